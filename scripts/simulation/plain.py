"""The two ways to compare with: the same short delay for everything for ever, and nothing."""

from collections.abc import Callable

from scripts.simulation.places import Place
from scripts.simulation.session import Session
from scripts.simulation.world import Machine


class FixedRetry:
    """What many systems do: two seconds after any drop or exit it is tried again.

    It knows no stuck start and no zombie, and stops only at a logout. A backend that is away it
    asks on and on, once for each session.
    """

    def __init__(self, machine: Machine, delay: float = 2.0) -> None:
        self._machine = machine
        self._delay = delay
        self._gone: dict[str, float] = {}

    def boot(self, at: float) -> None:
        for session in self._machine.sessions:
            if session.state == "off" or at == 0:
                self._machine.start(session, at)

    def changed(self, session: Session, at: float) -> None:
        if session.state == "dropped" and session.reason != "logout":
            self._again(session, at, self._machine.connect)

    def crashed(self, session: Session, at: float) -> None:
        self._again(session, at, self._machine.start)

    def _again(self, session: Session, at: float, how: Callable[[Session, float], bool]) -> None:
        turn = session.turn

        def retry(now: float) -> None:
            if session.turn == turn:
                how(session, now)

        self._machine.later(at + self._delay, retry)

    def fell_silent(self, session: Session, at: float) -> None:
        pass

    def keys_failed(self, session: Session, at: float) -> None:
        pass

    def backend_gone(self, backend: Place, at: float) -> None:
        self._gone[backend.name] = at

    def backend_back(self, backend: Place, at: float) -> None:
        since = self._gone.pop(backend.name, at)
        for session in self._machine.sessions:
            if session.place is backend:
                self._machine.tally.in_vain += int((at - since) / self._delay)
                self.changed(session, at)


class NoSupervision:
    """Sessions are started at boot and left alone afterwards."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def boot(self, at: float) -> None:
        for session in self._machine.sessions:
            if session.state == "off" or at == 0:
                self._machine.start(session, at)

    def changed(self, session: Session, at: float) -> None:
        pass

    def crashed(self, session: Session, at: float) -> None:
        pass

    def fell_silent(self, session: Session, at: float) -> None:
        pass

    def keys_failed(self, session: Session, at: float) -> None:
        pass

    def backend_gone(self, backend: Place, at: float) -> None:
        pass

    def backend_back(self, backend: Place, at: float) -> None:
        pass
