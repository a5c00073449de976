"""`wa-agent top`: worst first, nothing wider than the window, the terminal as it was."""

import fcntl
import io
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from agent.cli.client import Client
from agent.cli.views import frame, tone_of, worst_first
from agent.core.model import ConnectionStatus, Health, HealthVerdict, InstanceId
from tests.api.conftest import House
from tests.cli.conftest import Cli
from tests.conftest import Eventually
from tests.fakes.supervisor import make_view
from tests.sessions import changed

S = ConnectionStatus
FOUL = "\x1b[2J\x1b]0;owned\x07 evil \u202etxt"


def one(
    id: str, status: str = "CONNECTED", verdict: str = "healthy", **more: Any
) -> dict[str, Any]:
    return {
        **{"id": id, "engine": "sandbox", "connection_status": status, "enabled": True},
        **{"health": {"verdict": verdict}, "override": "none", "should_run": True},
        **{"uptime_seconds": 60, "memory_bytes": None, "snapshot_failure": ""},
        **{"circuit": "closed", "circuit_opens": None, "next_attempt": None},
        **{"sentence": "as it should be", "reason": "", "wait_reason": "", **more},
    }


def sorted_ids(*rows: dict[str, Any]) -> list[str]:
    client = cast(Client, SimpleNamespace(instances=lambda: iter(rows)))
    return [row["id"] for row in worst_first(client)]


def drawn(width: int, *rows: dict[str, Any], lost: str) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(frame([*rows], lost))
    return captured.get().splitlines()


def test_trouble_comes_first() -> None:
    found = sorted_ids(
        one("fine"),
        one("off", "DISCONNECTED", "disconnected", should_run=False),
        one("starting", "LOADING", "disconnected"),
        one("held", "RECONNECTING", "disconnected", wait_reason="network_down"),
        one("unscanned", "QR_REQUIRED", "disconnected"),
        one("silent", verdict="stuck"),
    )
    assert found == ["silent", "held", "unscanned", "starting", "fine", "off"]


def test_a_session_that_should_run_and_is_down_is_in_trouble() -> None:
    later = {"next_attempt": "2026-01-15T11:00:00.000Z"}
    down = [
        one("banned", "DISCONNECTED", "disconnected", reason="banned"),
        one("for-a-time", "DISCONNECTED", "disconnected", reason="temporary_ban", **later),
        one("new", "DISCONNECTED", "not_found", reason="not_looked_yet"),
        one("masked", "DISCONNECTED", "disconnected", reason="masked"),
        one("stopped", "DISCONNECTED", "disconnected", reason="stopped", should_run=False),
    ]
    assert {row["id"]: tone_of(row) for row in down} == {
        **{"banned": "in trouble", "for-a-time": "waiting", "new": "on its way"},
        **{"masked": "off", "stopped": "off"},
    }
    well = [one(f"a{number}") for number in range(70)]
    assert sorted_ids(*well, *down)[:2] == ["banned", "for-a-time"]


@pytest.mark.parametrize("width", [20, 80, 200])
def test_a_session_is_one_line_of_the_window(width: int) -> None:
    rows = [one(f"instance-{n}", sentence="日本語" * 40) for n in range(30)]
    lines = drawn(width, *rows, lost="gone " * 50)
    assert len(lines) <= len(rows) + 6
    assert width < 80 or any("instance-29" in line and "healthy" in line for line in lines)
    for line in lines:
        assert sum(2 if ord(sign) > 0x2E80 else 1 for sign in line) <= width, line


def test_foreign_text_cannot_move_the_cursor() -> None:
    text = "".join(drawn(300, one("a", sentence=FOUL), lost=FOUL))
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202e]", text)


async def test_into_a_pipe_or_a_dumb_terminal_it_prints_one_table_and_ends(
    cli: Cli, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.supervisor.known[InstanceId("sales")] = make_view("sales")
    said = await cli("top")
    assert said.status == 0
    assert re.search(r"^sales +.*CONNECTED +healthy", said.out, re.M)
    assert "\x1b" not in said.out
    assert [row["id"] for row in (await cli("--json", "top")).json()["instances"]] == ["sales"]
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    assert "CONNECTED" in (await cli("top")).out


@dataclass
class Screen:
    """A terminal and the program on it."""

    pid: int
    fd: int
    text: str = ""
    before: list[Any] = field(default_factory=list)

    def read(self) -> str:
        with suppress(OSError):  # nothing more there, or the other end is closed
            while part := os.read(self.fd, 65536):
                self.text += part.decode("utf-8", "replace")
        return self.text

    def shows(self, text: str) -> Callable[[], bool]:
        return lambda: text in self.read()

    def ended(self) -> int | None:
        self.read()
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))


@contextmanager
def on_a_terminal(house: House) -> Iterator[Screen]:
    # A runner may fix the width for its own children; a terminal has its own.
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    env |= {"WA_AGENT_SOCKET": str(house.socket_path), "TERM": "xterm"}
    main, side = pty.openpty()
    before = termios.tcgetattr(side)
    fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    code = (
        "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "from agent import __main__; from agent.cli import views; views.EVERY = 0.3;"
        "sys.argv[1:] = ['top']; sys.exit(__main__.main())"
    )
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", code],
        env,
        file_actions=[(os.POSIX_SPAWN_DUP2, side, fd) for fd in (0, 1, 2)],
    )
    os.set_blocking(main, False)
    screen = Screen(pid, main, before=before)
    try:
        yield screen
        # The side is still open here, so its settings can be read after the program's end.
        assert termios.tcgetattr(side) == before
        assert screen.text.count("\x1b[?1049h") == screen.text.count("\x1b[?1049l") == 1
        assert screen.text.count("\x1b[?25h") == 1
    finally:
        if _alive(pid):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(main)
        os.close(side)


def _alive(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False


async def end(screen: Screen, eventually: Eventually) -> int:
    found: list[int] = []

    def ended() -> bool:
        if not found and (status := screen.ended()) is not None:
            found.append(status)
        # The program's last bytes may come later than its end.
        return bool(found) and "\x1b[?1049l" in screen.read()

    await eventually(ended)
    return found[0]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_top_is_live_resizes_and_restores_the_terminal(
    house: House, eventually: Eventually, number: signal.Signals, status: int
) -> None:
    id = InstanceId("sales")
    house.supervisor.known[id] = make_view("sales")
    with on_a_terminal(house) as screen:
        await eventually(screen.shows("CONNECTED"))
        assert "\x1b[?1049h" in screen.text
        verdict = HealthVerdict(Health.STUCK, S.CONNECTED, "zombie", "it answers nothing")
        known = house.supervisor.known
        known[id] = changed(known[id], verdict=verdict, sentence="it answers nothing")
        await eventually(screen.shows("stuck"))
        known[id] = changed(known[id], sentence=f"{'far ' * 20}end")
        screen.resize(24, 160)
        await eventually(screen.shows("far end"))
        os.kill(screen.pid, number)
        assert await end(screen, eventually) == status
