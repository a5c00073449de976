"""`top`: every instance live in a terminal, those in trouble first; q ends it. One frame is lines
that fit the window."""

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
from types import FrameType
from typing import Any

from agent.cli.client import AgentSaidNo, Client
from agent.cli.command import Subparsers, Words, add_command, client_of, wants_json
from agent.cli.terminal import clean, columns_of, duration, next_of, pad, print_json, size
from agent.errors import AgentUnreachable, InvalidRequest, WaError

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_LEAST_SIZE = (20, 5)
_TONES = {"bad": "1;31", "warn": "33", "busy": "36", "good": "32", "off": "2", "head": "2"}
_ORDER = ("bad", "warn", "busy", "good", "off")
_UNWELL = ("degraded", "stuck", "corrupted")
_STATUS = {"CONNECTED": "good", "QR_REQUIRED": "warn", "AUTH_FAILURE": "bad", "DISCONNECTED": "off"}
_NOT_DOWN = {"not_looked_yet": "busy", "masked": "off"}
_COLUMNS = {
    **{"INSTANCE": 20, "STATUS": 13, "HEALTH": 12, "SINCE": 8, "PROOF": 7},
    **{"MEM": 8, "TRIES": 5, "NEXT": 7},
}
_GO_FIRST = ("MEM", "PROOF", "TRIES", "SINCE", "HEALTH")
"""Columns that a narrow window leaves out, in this order."""
_WHY = 26
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
        width = shutil.get_terminal_size((120, 0)).columns
        print("\n".join(draw(look(client), width, 0, colours=sys.stdout.isatty())))
    else:
        with own_screen():
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
    seen, seen_at, lost = Sight([]), 0.0, ""
    while True:
        try:
            seen, seen_at, lost = look(client), time.time(), ""
        except AgentUnreachable as error:
            lost = str(error)
        until = time.monotonic() + every
        while (left := until - time.monotonic()) > 0:
            age = f"; this picture is {duration(time.time() - seen_at)} old" if seen_at else ""
            _show(seen, f"{lost}{age}" if lost else "")
            if not select.select([sys.stdin], [], [], min(left, 1.0))[0]:
                continue
            # The end of the input is readable for ever: it ends the program.
            key = os.read(sys.stdin.fileno(), 1) or b"q"
            if key in b"qQ\x03\x04":
                return
            if key in b"r ":
                break


def _show(seen: Sight, lost: str) -> None:
    size = shutil.get_terminal_size()
    width, height = max(size.columns, _LEAST_SIZE[0]), max(size.lines, _LEAST_SIZE[1])
    lines = draw(seen, width, height, colours=True, lost=lost)
    # Each line is cleared behind its end: clearing the whole screen would flicker.
    text = "\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J"
    sys.stdout.write(text)
    sys.stdout.flush()


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
    return sorted(instances, key=lambda its: (_ORDER.index(tone_of(its)), str(its["id"])))


def draw(
    sight: Sight, width: int, height: int, *, colours: bool, lost: str = "", now: float = 0.0
) -> list[str]:
    """At most `height` lines of at most `width` columns; height 0 is as high as needed."""
    now = now or time.time()
    columns = _columns_for(width)
    lines = [*_head(sight, lost, now)]
    lines.append((_row(columns, {name: name for name in (*columns, "WHY")}), "head"))
    rows = worst_first(sight.instances)
    room = max(height - len(lines), 1) if height else len(rows)
    shown = rows if len(rows) <= room else rows[: max(room - 1, 1)]
    for instance in shown:
        lines.append((_row(columns, _cells(instance, now)), tone_of(instance)))
    if len(shown) < len(rows):
        lines.append((f"… and {len(rows) - len(shown)} more: wa-agent list", "head"))
    if not (rows or lost):
        lines.append(("no instance yet: wa-agent create NAME --engine sandbox", "head"))
    return [
        f"\x1b[{_TONES[tone]}m{_cut(text, width)}\x1b[0m" if colours and tone else _cut(text, width)
        for text, tone in lines[: height or None]
    ]


def _head(sight: Sight, lost: str, now: float) -> Iterator[tuple[str, str]]:
    tones = [tone_of(instance) for instance in sight.instances]
    clock = datetime.fromtimestamp(now).strftime("%H:%M:%S")
    yield (
        f"wa-agent {clean(sight.health.get('agent', {}).get('version', ''))}  {clock}"
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
            "head",
        )
    if lost:
        yield f"NOT LIVE: {clean(lost)}", "bad"
    for incident in sight.incidents:
        yield f"INCIDENT  {clean(incident['sentence'])}", "bad"
    # The worst come first.
    for trouble in sight.troubles[:3]:
        tone = "bad" if trouble["severity"] == "critical" else "warn"
        yield f"TROUBLE  {clean(trouble['sentence'])}", tone
    if (more := len(sight.troubles) - 3) > 0:
        yield f"TROUBLE  and {more} more: wa-agent list --trouble", "warn"


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


def _columns_for(width: int) -> dict[str, int]:
    """The columns that leave room for the reason; a very narrow window shortens the id, too."""
    columns = dict(_COLUMNS)
    for name in _GO_FIRST:
        spare = 6 if name == "HEALTH" else 0  # a shorter id is better than no verdict
        if sum(columns.values()) + len(columns) + _WHY <= width + spare:
            break
        del columns[name]
    missing = sum(columns.values()) + len(columns) + _WHY - width
    columns["INSTANCE"] = max(columns["INSTANCE"] - max(missing, 0), 8)
    return columns


def _row(columns: Mapping[str, int], cells: Mapping[str, object]) -> str:
    fitted = [pad(_cut(clean(cells[name]), width), width) for name, width in columns.items()]
    return " ".join([*fitted, clean(cells["WHY"])])


def _cut(text: str, width: int) -> str:
    """No wider than `width` columns; … marks a cut."""
    if columns_of(text) <= width:
        return text
    start, taken = "", 0
    for letter in text:
        taken += columns_of(letter)
        if taken > width - 1:
            break
        start += letter
    return start + "…"


def _age(text: str | None, now: float) -> str:
    """3m5s, 2h7m, 9d4h."""
    if not text:
        return "-"
    seconds = abs(now - datetime.fromisoformat(text).timestamp())
    return duration(seconds).replace("min", "m").replace(" ", "")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.0f} %"


class Ended(WaError):
    """A signal asked this process to end."""

    code = "ended"
    exit_status = 143


@contextlib.contextmanager
def own_screen() -> Iterator[None]:
    """The alternate screen, keys one by one; restores the terminal at every end."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def end(number: int, _: FrameType | None) -> None:
        raise Ended(f"ended by {signal.Signals(number).name}")

    # A screen that is suspended would have to be left and entered again.
    handlers: dict[int, Any] = {
        signal.SIGTERM: end,
        signal.SIGHUP: end,
        signal.SIGTSTP: signal.SIG_IGN,
    }
    replaced = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        tty.setcbreak(fd)
        sys.stdout.write(_ENTER)
        sys.stdout.flush()
        yield
    finally:
        # A terminal that is gone (SIGHUP) needs nothing back.
        with contextlib.suppress(OSError, ValueError, termios.error):
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()
        for number, handler in replaced.items():
            signal.signal(number, handler)
