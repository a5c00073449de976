"""A log that is filtered for warnings tells of every session that goes down, hangs or is banned."""

import ast
from pathlib import Path

import pytest

import agent
from agent.core.model import JournalEntry
from agent.supervise.story import is_trouble


def status(before: str, now: str, reason: str, **more: object) -> JournalEntry:
    detail = {"before": before, "status": now, "reason": reason, **more}
    return JournalEntry("status", "", detail=detail)


def verdict(health: str, reason: str) -> JournalEntry:
    return JournalEntry("verdict", "", detail={"verdict": health, "reason": reason})


@pytest.mark.parametrize(
    ("entry", "warns"),
    [
        pytest.param(status("CONNECTED", "RECONNECTING", "connection_lost"), True, id="goes down"),
        pytest.param(status("CONNECTED", "DISCONNECTED", "stopped"), False, id="stopped by hand"),
        pytest.param(status("CONNECTED", "AUTH_FAILURE", "logout"), True, id="logged out"),
        pytest.param(
            status("CONNECTED", "AUTH_FAILURE", "logout", asked=True),
            False,
            id="logged out as asked",
        ),
        pytest.param(status("RECONNECTING", "CONNECTED", ""), False, id="comes back"),
        pytest.param(status("LOADING", "DISCONNECTED", "banned"), True, id="refused at its start"),
        pytest.param(status("LOADING", "QR_REQUIRED", "waiting_for_scan"), False, id="a code"),
        pytest.param(verdict("stuck", "start_stuck"), True, id="stuck"),
        pytest.param(verdict("corrupted", "session_damaged"), True, id="corrupted"),
        pytest.param(verdict("disconnected", "temporary_ban"), True, id="banned for a time"),
        pytest.param(verdict("degraded", "client_outdated"), True, id="outdated"),
        pytest.param(verdict("disconnected", "qr_idle"), False, id="nobody scanned"),
        pytest.param(verdict("healthy", ""), False, id="well"),
        pytest.param(verdict("disconnected", "disabled"), False, id="disabled"),
    ],
)
def test_troubles_that_the_log_shows_as_warnings(entry: JournalEntry, warns: bool) -> None:
    assert is_trouble(entry) is warns


LEVELS = ("debug", "info", "warning", "error", "exception")


def test_every_line_about_a_session_carries_its_id() -> None:
    """`journalctl WA_INSTANCE=ID` must find it: a bound logger, or extra=about(ID)."""
    bare = []
    for path in sorted(Path(agent.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in ("log", "_log")
                and not any(keyword.arg == "extra" for keyword in node.keywords)
            ):
                said = [ast.unparse(argument) for argument in node.args[1:]]
                if any(one in ("id", "instance") or one.endswith(".id") for one in said):
                    bare.append(f"{path}:{node.lineno}")
    assert bare == []
