"""`top`: every instance live in a terminal, those in trouble first; q ends it."""

import argparse
import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from agent.cli.client import AgentSaidNo, Client
from agent.cli.command import Subparsers, Words, add_command, client_of, wants_json
from agent.cli.terminal import clean, duration, next_of, print_json, size
from agent.errors import AgentUnreachable, InvalidRequest

if TYPE_CHECKING:
    from rich.console import Group


_STYLES = {"bad": "bold red", "warn": "yellow", "busy": "cyan", "good": "green", "off": "dim"}
"""By tone, the worst first."""
_UNWELL = ("degraded", "stuck", "corrupted")
_STATUS = {"CONNECTED": "good", "QR_REQUIRED": "warn", "AUTH_FAILURE": "bad", "DISCONNECTED": "off"}
_NOT_DOWN = {"not_looked_yet": "busy", "masked": "off"}
_COLUMNS = {
    **{"INSTANCE": 20, "STATUS": 13, "HEALTH": 12, "SINCE": 8, "PROOF": 7},
    **{"MEM": 8, "TRIES": 5, "NEXT": 7},
}
_GO_FIRST = ("MEM", "PROOF", "TRIES", "SINCE", "HEALTH", "NEXT")
"""Columns that a narrow window leaves out, in this order."""
_WHY = 20
"""Columns that are left for the reason."""


def add(commands: Subparsers) -> None:
    words: Words = {
        "--once": "print one frame and end",
        "--every SECONDS": (
            "seconds between two frames, default 2",
            {"type": float, "default": 2.0},
        ),
    }
    summary = "watch every instance live, those in trouble first; q quits"
    add_command(commands, "top", top, summary, "--every 1", words=words)


@dataclass(frozen=True, slots=True)
class Sight:
    """The agent's answers of one moment."""

    instances: Sequence[Mapping[str, Any]]
    system: Mapping[str, Any] | None = None
    health: Mapping[str, Any] = field(default_factory=dict)
    troubles: Sequence[Mapping[str, Any]] = ()
    incidents: Sequence[Mapping[str, Any]] = ()


def top(options: argparse.Namespace) -> int:
    if not 0.2 <= options.every <= 3600:
        raise InvalidRequest("cannot use --every: it takes 0.2 to 3600 seconds")
    client = client_of(options)
    if wants_json(options):
        print_json(asdict(look(client)))
    elif options.once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        from rich.console import Console

        width = shutil.get_terminal_size((120, 0)).columns
        Console(width=width).print(draw(look(client), width))
    else:
        _watch(client, options.every)
    return 0


def look(client: Client) -> Sight:
    """One picture of everything that the client's key may see."""
    instances = list(client.instances())
    system = client.get("/performance-metrics").get("system")
    health, troubles, incidents = {}, [], []
    with contextlib.suppress(AgentSaidNo):
        health = client.get("/api/health")
        incidents = client.get("/api/incidents")["incidents"]
        troubles = client.get("/api/troubles")["troubles"]
    return Sight(instances, system, health, troubles, incidents)


def _watch(client: Client, every: float) -> None:
    from rich.live import Live

    seen, seen_at, lost = Sight([]), 0.0, ""
    with _keys(), Live(screen=True, auto_refresh=False) as live:
        while True:
            try:
                seen, seen_at, lost = look(client), time.time(), ""
            except AgentUnreachable as error:
                lost = str(error)
            until = time.monotonic() + every
            while (left := until - time.monotonic()) > 0:
                age = f"; this picture is {duration(time.time() - seen_at)} old" if seen_at else ""
                window = live.console.size
                notice = f"{lost}{age}" if lost else ""
                live.update(draw(seen, *window, lost=notice), refresh=True)
                if not select.select([sys.stdin], [], [], min(left, 1.0))[0]:
                    continue
                # The end of the input is readable for ever: it ends the program.
                key = os.read(sys.stdin.fileno(), 1) or b"q"
                if key in b"qQ\x03\x04":
                    return
                if key in b"r ":
                    break


def tone_of(instance: Mapping[str, Any]) -> str:
    """bad, warn (waits for a person, a turn or its next try), busy, good or off."""
    if instance["health"]["verdict"] in _UNWELL:
        return "bad"
    if not instance["should_run"]:
        return _STATUS.get(instance["connection_status"], "busy")
    if instance["connection_status"] == "DISCONNECTED":  # busy before its first check
        return _NOT_DOWN.get(instance["reason"], "warn" if instance["next_attempt"] else "bad")
    waits = "warn" if instance["wait_reason"] else "busy"
    return _STATUS.get(instance["connection_status"], waits)


def worst_first(instances: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(instances, key=lambda its: ([*_STYLES].index(tone_of(its)), str(its["id"])))


def draw(sight: Sight, width: int, height: int = 0, *, lost: str = "", now: float = 0.0) -> "Group":
    """At most `height` lines; height 0 is as high as needed."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    now, rows = now or time.time(), worst_first(sight.instances)

    def line(text: str, style: str) -> Text:
        return Text(clean(text), style, no_wrap=True, overflow="ellipsis")

    head = [line(*told) for told in _head(sight, lost, now)]
    room = max(height - len(head) - 1, 1) if height else len(rows)
    shown = rows if len(rows) <= room else rows[: max(room - 1, 1)]
    columns = dict(_COLUMNS)
    for name in _GO_FIRST:
        if sum(columns.values()) + len(columns) + _WHY > width:
            del columns[name]
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="dim")
    for name, most in columns.items():
        table.add_column(name, max_width=most, no_wrap=True)
    table.add_column("WHY", ratio=1, no_wrap=True)
    for instance in shown:
        cells = _cells(instance, now)
        texts = [Text(clean(cells[name])) for name in (*columns, "WHY")]
        table.add_row(*texts, style=_STYLES[tone_of(instance)])
    foot = ""
    if len(shown) < len(rows):
        foot = f"… and {len(rows) - len(shown)} more: wa-agent list"
    elif not (rows or lost):
        foot = "no instance yet: wa-agent create NAME --engine sandbox"
    return Group(*head, table, *([line(foot, "dim")] if foot else []))


def _head(sight: Sight, lost: str, now: float) -> Iterator[tuple[str, str]]:
    tones = [tone_of(instance) for instance in sight.instances]
    clock = datetime.fromtimestamp(now).strftime("%H:%M:%S")
    yield (
        f"wa-agent {sight.health.get('agent', {}).get('version', '')}  {clock}"
        f"  {len(tones)} instances:"
        f" {tones.count('good')} well, {tones.count('bad')} in trouble,"
        f" {tones.count('warn')} waiting, {tones.count('busy')} on their way,"
        f" {tones.count('off')} off",
        "",
    )
    if (system := sight.system) is not None:
        used, total = size(system["usedMemory"]), size(system["totalMemory"])
        yield (
            f"memory {used} of {total}  processor {_share(system['cpuUsage'])}"
            f"  disk free {size(system['diskFree'])}"
            f"  connections {system['activeConnections']}  errors {_share(system['errorRate'])}",
            "dim",
        )
    if lost:
        yield f"NOT LIVE: {lost}", _STYLES["bad"]
    for incident in sight.incidents:
        yield f"INCIDENT  {incident['sentence']}", _STYLES["bad"]
    # The worst come first.
    for trouble in sight.troubles[:3]:
        tone = "bad" if trouble["severity"] == "critical" else "warn"
        yield f"TROUBLE  {trouble['sentence']}", _STYLES[tone]
    if (more := len(sight.troubles) - 3) > 0:
        yield f"TROUBLE  and {more} more: wa-agent list --trouble", _STYLES["warn"]


def _cells(instance: Mapping[str, Any], now: float) -> Mapping[str, object]:
    return {
        "INSTANCE": instance["id"],
        "STATUS": instance["connection_status"],
        "HEALTH": instance["health"]["verdict"],
        "SINCE": _age(instance["since"], now),
        "PROOF": _age(instance["proved"], now),
        "MEM": size(instance["memory_bytes"]),
        "TRIES": instance["attempts"] or "-",
        "NEXT": _age(next_of(instance), now),
        "WHY": instance["sentence"],
    }


def _age(text: str | None, now: float) -> str:
    """3m5s, 2h7m, 9d4h."""
    if not text:
        return "-"
    seconds = abs(now - datetime.fromisoformat(text).timestamp())
    return duration(seconds).replace("min", "m").replace(" ", "")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.0f} %"


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Keys one by one, and a terminal that is restored at every end."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda ended_by, _: sys.exit(128 + ended_by))
    # A screen that is suspended would have to be left and entered again.
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        tty.setcbreak(fd)
        yield
    finally:
        # A terminal that is gone (SIGHUP) needs nothing back.
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
