"""Shows on a terminal how far work is that takes longer than a second; prints nothing elsewhere."""

import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 1.0
_EVERY = 0.2

Result = TypeVar("Result")


def with_progress(
    words: str, work: Callable[[], Result], look: Callable[[], str] = str, *, quiet: bool = False
) -> Result:
    """Do the work in a thread and print the words, the seconds and what `look` says meanwhile."""
    if quiet or not sys.stderr.isatty():
        return work()
    done = threading.Event()
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # raised where the work was asked for
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=run, daemon=True).start()
    begun, shown = time.monotonic(), False
    if not done.wait(PATIENCE):
        while not done.wait(_EVERY):
            line = f"{words}: {time.monotonic() - begun:.0f} s{look()}"
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
            shown = True
    if shown:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if errors:
        raise errors[0]
    return results[0]


def of_bytes(done: int, total: int) -> str:
    """ ", 12 of 40 MiB (30 %)"; "" before anything is known."""
    if not done:
        return ""
    if not total:
        return f", {done / 1048576:.1f} MiB"
    share = min(100.0 * done / total, 100.0)
    return f", {done / 1048576:.1f} of {total / 1048576:.1f} MiB ({share:.0f} %)"
