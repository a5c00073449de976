"""The two ways to compare with: the same short delay for everything for ever, and nothing."""

from collections.abc import Callable

from scripts.simulation.world import Machine, Session


class FixedRetry:
    """What many systems do: two seconds after any drop or exit it is tried again.

    It knows no stuck start and no zombie, and stops only at a logout.
    """

    def __init__(self, machine: Machine, delay: float = 2.0) -> None:
        self._machine = machine
        self._delay = delay

    def boot(self, at: float) -> None:
        for session in self._machine.sessions:
            self._machine.start(session, at)

    def changed(self, session: Session, at: float) -> None:
        if session.state == "dropped" and session.reason != "logout":
            self._again(session, at, self._machine.connect)

    def crashed(self, session: Session, at: float) -> None:
        self._again(session, at, self._machine.start)

    def _again(self, session: Session, at: float, how: Callable[[Session, float], None]) -> None:
        turn = session.turn

        def retry(now: float) -> None:
            if session.turn == turn:
                how(session, now)

        self._machine.later(at + self._delay, retry)

    def fell_silent(self, session: Session, at: float) -> None:
        pass

    def keys_failed(self, session: Session, at: float) -> None:
        pass


class Nobody:
    """Started at boot, and that was it."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def boot(self, at: float) -> None:
        for session in self._machine.sessions:
            self._machine.start(session, at)

    def changed(self, session: Session, at: float) -> None:
        pass

    def crashed(self, session: Session, at: float) -> None:
        pass

    def fell_silent(self, session: Session, at: float) -> None:
        pass

    def keys_failed(self, session: Session, at: float) -> None:
        pass
