"""`wa-agent top`: every instance live in a terminal, those in trouble first; q ends it."""

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
from collections.abc import Iterator
from types import FrameType

from agent.cli.client import AgentSaidNo, Client
from agent.cli.command import Subparsers, add_command, client_of, wants_json
from agent.cli.terminal.show import clean, print_json
from agent.cli.watch.top_frame import Sight, draw
from agent.cli.watch.top_keys import Scroll
from agent.errors import AgentUnreachable, InvalidRequest, WaError

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_LEAST_SIZE = (20, 5)


def add(commands: Subparsers) -> None:
    summary = "watch every instance live; arrows scroll, / filters, q quits"
    parser = add_command(commands, "top", top, summary, "--every 1")
    parser.add_argument("--once", action="store_true", help="print one frame and end")
    parser.add_argument(
        "--every",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="seconds between two frames, default 2",
    )


def top(options: argparse.Namespace) -> int:
    if not 0.2 <= options.every <= 3600:
        raise InvalidRequest("cannot use --every: it takes 0.2 to 3600 seconds")
    client = client_of(options)
    if wants_json(options):
        print_json(look(client).as_json())
        return 0
    if options.once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        size = shutil.get_terminal_size((120, 0))
        colours = sys.stdout.isatty()
        print("\n".join(draw(look(client), size.columns, 0, colours=colours)))
        return 0
    with own_screen():
        _watch(client, options.every)
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


def _watch(client: Client, every: float) -> None:
    seen: Sight | None = None
    lost, scroll = "", Scroll()
    with waking() as wake:
        while True:
            try:
                seen, lost = look(client), ""
            except AgentUnreachable as error:
                lost = str(error)
            until = time.monotonic() + every
            while (left := until - time.monotonic()) > 0:
                _show(seen, lost, scroll)
                pressed = _wait(wake, min(left, 1.0))
                if len(pressed) == 2:  # two keys that came together
                    scroll.press(pressed[:1])
                    pressed = pressed[1:]
                if pressed in (b"\x03", b"\x04") or (pressed in (b"q", b"Q") and not scroll.typing):
                    return
                if not scroll.press(pressed) and pressed in (b"r", b" "):
                    break


def _show(seen: Sight | None, lost: str, scroll: Scroll) -> None:
    size = shutil.get_terminal_size()
    width, height = max(size.columns, _LEAST_SIZE[0]), max(size.lines, _LEAST_SIZE[1])
    if seen is None:
        lines = [clean(lost)[:width]]
    else:
        lines = draw(seen, width, height, colours=True, lost=lost, scroll=scroll)
    # Each line is cleared behind its end: clearing the whole screen would flicker.
    text = "\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J"
    sys.stdout.write(text)
    sys.stdout.flush()


def _wait(wake: int, seconds: float) -> bytes:
    """A pressed key; b"" when the time is over or the window has another size."""
    fd = sys.stdin.fileno()
    ready, _, _ = select.select([fd, wake], [], [], seconds)
    if wake in ready:
        os.read(wake, 4096)
    if fd in ready:
        # The end of the input is readable for ever: it ends the program.
        key = os.read(fd, 1) or b"\x04"
        # An arrow is several bytes that come together; Esc alone is one.
        while key.startswith(b"\x1b") and not _is_whole(key) and select.select([fd], [], [], 0)[0]:
            key += os.read(fd, 1)
        return key
    return b""


def _is_whole(key: bytes) -> bool:
    """ESC [ and then a letter or ~; ESC and any other sign is a key of its own."""
    if len(key) == 2 and key[1:] not in (b"[", b"O"):
        return True
    return len(key) >= 8 or (len(key) >= 3 and (key[-1:].isalpha() or key.endswith(b"~")))


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
