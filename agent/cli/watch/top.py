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
from agent.cli.terminal.show import clean, columns_of, pad, print_json
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
    **{"MEM": 6, "MSG/M": 6, "TRIES": 5, "NEXT": 8},
}
_GO_FIRST = ("MSG/M", "MEM", "PROOF", "TRIES", "SINCE", "HEALTH")
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
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
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
        with own_screen(), waking() as wake:
            _watch(client, options.every, wake)
    return 0


def look(client: Client) -> Sight:
    """One picture of everything that the client's key may see."""
    instances = list(client.instances())
    figures = client.get("/performance-metrics")
    health, troubles, incidents = {}, [], []
    with contextlib.suppress(AgentSaidNo):
        health = client.get("/api/health")
        incidents = client.get("/api/incidents")["incidents"]
        troubles = client.get("/api/troubles")["troubles"]
    return Sight(
        instances, figures["instances"], figures.get("system"), health, troubles, incidents
    )


def _watch(client: Client, every: float, wake: int) -> None:
    seen, seen_at, lost = Sight([]), time.time(), ""
    while True:
        try:
            seen, seen_at, lost = look(client), time.time(), ""
        except AgentUnreachable as error:
            lost = str(error)
        until = time.monotonic() + every
        while (left := until - time.monotonic()) > 0:
            age = f"; this picture is {duration(time.time() - seen_at)} old"
            _show(seen, f"{lost}{age}" if lost else "")
            ready, _, _ = select.select([sys.stdin.fileno(), wake], [], [], min(left, 1.0))
            if wake in ready:
                os.read(wake, 4096)
            if sys.stdin.fileno() not in ready:
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
        figures = sight.figures.get(str(instance["id"]), {})
        lines.append((_row(columns, _cells(instance, figures, now)), tone_of(instance)))
    if len(shown) < len(rows):
        lines.append((f"… and {len(rows) - len(shown)} more: wa-agent list", "head"))
    if not rows:
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
        used, total = size_text(system["usedMemory"]), size_text(system["totalMemory"])
        yield (
            f"memory {used} of {total}  processor {_share(system['cpuUsage'])}"
            f"  disk free {size_text(system['diskFree'])}"
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


def _cells(
    instance: Mapping[str, Any], figures: Mapping[str, Any], now: float
) -> Mapping[str, object]:
    upcoming = _wall(
        instance["circuit_opens"] if instance["circuit"] == "open" else instance["next_attempt"]
    )
    return {
        "INSTANCE": instance["id"],
        "STATUS": instance["connection_status"],
        "HEALTH": instance["health"]["verdict"],
        "SINCE": _age(instance["since"], now),
        "PROOF": _age(instance["proved"], now),
        "MEM": "-" if instance["memory_bytes"] is None else size_text(instance["memory_bytes"]),
        "MSG/M": figures.get("messagesPerMinute", "-"),
        "TRIES": instance["attempts"] or "-",
        "NEXT": "-" if upcoming is None else "in " + duration(max(upcoming - now, 0)),
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


def _wall(text: str | None) -> float | None:
    return datetime.fromisoformat(text).timestamp() if text else None


def _age(text: str | None, now: float) -> str:
    since = _wall(text)
    return "-" if since is None else duration(max(now - since, 0))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.0f} %"


def duration(seconds: float) -> str:
    """At most seven signs: 42s, 3m05s, 2h07m, 9d04h."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def size_text(count: float | None) -> str:
    """At most five signs: 512M, 1.5G."""
    if count is None:
        return "-"
    for unit in "BKMG":
        if count < 1000 or unit == "G":
            break
        count /= 1024
    return f"{count:.1f}{unit}" if count < 10 and unit != "B" else f"{count:.0f}{unit}"


@contextlib.contextmanager
def waking() -> Iterator[int]:
    """A descriptor that is readable after the window changed its size."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    before = signal.signal(signal.SIGWINCH, lambda *_: None)
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGWINCH, before)
        os.close(reading)
        os.close(writing)


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

    def suspend(number: int, _: FrameType | None) -> None:
        _leave(fd, before)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)

    def resume(number: int, _: FrameType | None) -> None:
        signal.signal(signal.SIGTSTP, suspend)
        _enter(fd)

    handlers = {signal.SIGTERM: end, signal.SIGHUP: end, signal.SIGTSTP: suspend}
    replaced = {number: signal.signal(number, run) for number, run in handlers.items()}
    replaced[signal.SIGCONT] = signal.signal(signal.SIGCONT, resume)
    try:
        _enter(fd)
        yield
    finally:
        _leave(fd, before)
        for number, handler in replaced.items():
            signal.signal(number, handler)


def _enter(fd: int) -> None:
    tty.setcbreak(fd)
    sys.stdout.write(_ENTER)
    sys.stdout.flush()


def _leave(fd: int, before: list[object]) -> None:
    # A terminal that is gone (SIGHUP) needs nothing back.
    with contextlib.suppress(OSError, ValueError, termios.error):
        termios.tcsetattr(fd, termios.TCSADRAIN, before)  # type: ignore[arg-type]
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
