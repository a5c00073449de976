"""`--wait`: how long a command waits for a connection, and when waiting is in vain."""

from typing import Any

import pytest

from agent.cli import session
from agent.errors import Refused, TryLater

OFF = {"disabled": ": wa-agent enable sales", "stopped": ": wa-agent start sales"}


class Told:
    """An agent that answers one thing after the other, the last one for ever."""

    def __init__(self, *answers: tuple[str, str]) -> None:
        self._answers = list(answers)

    def get(self, _path: str) -> dict[str, Any]:
        status, reason = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        answer = {"connection_status": status, "reason": reason, "should_run": reason not in OFF}
        return {**answer, "sentence": f"it says {reason}"}


def wait(*answers: tuple[str, str], seconds: float) -> dict[str, Any]:
    return session.wait_until_connected(Told(*answers), "sales", seconds)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SETTLED", 0.3)


@pytest.mark.parametrize("reason", ["misconfigured", "banned", *OFF])
def test_waiting_ends_where_only_a_person_can_help(reason: str) -> None:
    with pytest.raises(Refused, match=f"must help, it says {reason}{OFF.get(reason, '')}$"):
        wait(("DISCONNECTED", reason), seconds=100_000)


@pytest.mark.parametrize("shown", [("INITIALIZING", ""), ("DISCONNECTED", "connection_lost")])
def test_wait_goes_on_while_a_session_may_still_connect(shown: tuple[str, str]) -> None:
    with pytest.raises(TryLater, match="cannot wait longer"):
        wait(shown, seconds=1.0)


def test_waiting_ends_when_the_sandbox_shows_a_code_that_its_phone_does_not_scan() -> None:
    with pytest.raises(TryLater, match="a person must scan the code of sales: wa-agent qr sales"):
        wait(("INITIALIZING", ""), ("QR_REQUIRED", ""), seconds=100_000)


def test_ctrl_c_says_what_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), session.already("sales created"):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "wa-agent: sales created\n"


@pytest.mark.parametrize("first", [("DISCONNECTED", "misconfigured"), ("QR_REQUIRED", "")])
def test_no_word_of_the_last_run_and_no_code_that_the_sandbox_scans_ends_it(first: Any) -> None:
    assert wait(first, ("LOADING", ""), ("CONNECTED", ""), seconds=60)


def test_a_restart_is_waited_for_until_its_new_run_is_connected() -> None:
    """Until the pass that carries it out, the session is connected as before; and a new run may be
    seen before its first claim."""
    runs = iter([("a", "t"), ("a", "t"), ("b", None), ("b", "t")])

    class Restarting:
        def get(self, path: str) -> dict[str, Any]:
            row = {"connection_status": "CONNECTED", "reason": "", "should_run": 1, "sentence": ""}
            if not path.endswith("/details"):
                return row
            run, proved = next(runs)
            return {**row, "unit": {"run": run}, "proved": proved}

    session.wait_until_connected(Restarting(), "sales", 60, "a")  # type: ignore[arg-type]
    assert next(runs, None) is None
