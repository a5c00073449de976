"""`top`: the table of `list`, live in a terminal, those in trouble first; q ends it."""

import argparse
import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from agent.cli.client import Client
from agent.cli.command import Subparsers, add_command, client_of
from agent.cli.terminal import Row, clean, duration, print_answer, table_of
from agent.cli.views import COLUMNS, NOTHING
from agent.errors import AgentUnreachable

if TYPE_CHECKING:
    from rich.console import Group


EVERY = 2.0
_STYLES = {
    **{"in trouble": "bold red", "waiting": "yellow", "on its way": "cyan"},
    **{"well": "green", "off": "dim"},
}
"""By tone, the worst first."""
_LEFT_OUT = ("ENGINE", "ENABLED")
"""Columns of `list` that a window of 80 columns has no place for."""


def add(commands: Subparsers) -> None:
    add_command(commands, "top", top)


def top(options: argparse.Namespace) -> int:
    """Watch every instance live, those in trouble first; q quits."""
    client = client_of(options)
    if not options.json and sys.stdin.isatty() and sys.stdout.isatty():
        return _watch(client)
    rows = worst_first(client)
    table = table_of(rows, COLUMNS) if rows else NOTHING
    return print_answer(options, {"instances": rows}, table)


def worst_first(client: Client) -> list[Row]:
    tones = [*_STYLES]
    return sorted(client.instances(), key=lambda its: (tones.index(tone_of(its)), its["id"]))


def tone_of(instance: Row) -> str:
    status, reason = instance["connection_status"], instance["reason"]
    if instance["health"]["verdict"] in ("degraded", "stuck", "corrupted"):
        return "in trouble"
    if not instance["should_run"] or reason == "masked":
        return "off"
    if status == "CONNECTED":
        return "well"
    if status == "QR_REQUIRED" or instance["next_attempt"] or instance["wait_reason"]:
        return "waiting"
    down = status in ("DISCONNECTED", "AUTH_FAILURE") and reason != "not_looked_yet"
    return "in trouble" if down else "on its way"


def frame(rows: list[Row], lost: str = "") -> "Group":
    from rich.console import Group
    from rich.text import Text

    tones = [tone_of(row) for row in rows]
    counts = Counter(tones)
    parts = [f"{counts[tone]} {tone}" for tone in _STYLES if counts[tone]]
    head = f"{time.strftime('%H:%M:%S')}  {len(rows)} instances: {', '.join(parts) or NOTHING}"
    columns = {head: field for head, field in COLUMNS.items() if head not in _LEFT_OUT}
    table = table_of(rows, columns).drawn([_STYLES[tone] for tone in tones])
    notice = [Text(clean(lost), "bold red", no_wrap=True, overflow="ellipsis")] if lost else []
    return Group(Text(head, no_wrap=True, overflow="ellipsis"), *notice, table)


def _watch(client: Client) -> int:
    from rich.live import Live

    rows: list[Row] = []
    seen, lost = time.monotonic(), ""
    with _keys() as fd, Live(screen=True, auto_refresh=False) as live:
        while True:
            try:
                rows, seen, lost = worst_first(client), time.monotonic(), ""
            except AgentUnreachable as error:
                lost = f"{duration(time.monotonic() - seen)} old: {error}"
            live.update(frame(rows, lost), refresh=True)
            # The end of the input is readable for ever: it ends the program.
            if select.select([fd], [], [], EVERY)[0]:
                keys = os.read(fd, 1024)
                if not keys or b"q" in keys:
                    return 0


@contextlib.contextmanager
def _keys() -> Iterator[int]:
    """Keys one by one, and a terminal that is restored at every end."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda ended_by, _: sys.exit(128 + ended_by))
    # A screen that is suspended would have to be left and entered again.
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        tty.setcbreak(fd)
        yield fd
    finally:
        # A terminal that is gone (SIGHUP) needs nothing back.
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
