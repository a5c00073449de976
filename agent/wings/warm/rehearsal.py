"""One short worker's life, played in the warm process before it forks.

CPython rewrites a function's code while it runs for the first times, and imports late what
it needs. Done once here, before the fork, those pages stay shared: half a megabyte less in
every child. Nothing of it is left over: no loop, no thread, no file.
"""

import logging
import os
import signal
import tempfile
import threading
from pathlib import Path

from agent.core.words import InstanceId
from agent.instance_file import NAME, InstanceFile, render_instance_file
from agent.worker.life import ENDING_SIGNALS
from agent.worker.run import run_worker

_SECONDS = 0.15
"""A worker of the sandbox is connected after a fifth of it."""
_SETTINGS = {"scan_after": 0.0, "login_seconds": 0.0, "sync_seconds": 0.0}


def rehearse() -> bool:
    """Return whether it went as it should; a rehearsal that fails costs memory, no more."""
    before = dict(os.environ)
    alarm = signal.signal(signal.SIGALRM, _ask_to_end)
    try:
        with tempfile.TemporaryDirectory(prefix="wa-agent-") as name:
            _set_stage(Path(name))
            signal.setitimer(signal.ITIMER_REAL, _SECONDS, _SECONDS)
            ended = run_worker("rehearsal")
    except OSError:
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        for number in ENDING_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(before)
        _close_log()
    return ended == 0 and threading.active_count() == 1


def _ask_to_end(_number: int, _frame: object) -> None:
    # Before the worker listens for it, and after, the signal would end this process.
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        signal.raise_signal(signal.SIGTERM)


def _close_log() -> None:
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()


def _set_stage(root: Path) -> None:
    folder = root / "rehearsal"
    folder.mkdir()
    file = InstanceFile(InstanceId("rehearsal"), "sandbox", enabled=True, settings=_SETTINGS)
    (folder / NAME).write_bytes(render_instance_file(file, {}))
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "INVOCATION_ID"):
        os.environ.pop(name, None)
    os.environ.update(
        {"RUNTIME_DIRECTORY": str(root), "WA_SESSION_ROOT": str(root), "WA_LOG_LEVEL": "error"}
    )
