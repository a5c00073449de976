"""`--wait` of the fleet's commands: asks again until something is so, or the time is over."""

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

from agent.errors import TryLater

T = TypeVar("T")
_USUAL_SECONDS = 600.0
_EVERY = 0.5


def add_wait_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait",
        type=float,
        nargs="?",
        const=_USUAL_SECONDS,
        metavar="SECONDS",
        help=f"wait until it is done, by default {_USUAL_SECONDS:g} s; exit status 75 when late",
    )


def ask_until(ask: Callable[[], T], is_over: Callable[[T], bool], seconds: float, what: str) -> T:
    """`what`: the thing that is waited for, after "cannot wait longer for"."""
    deadline = time.monotonic() + seconds
    while not is_over(answer := ask()):
        if time.monotonic() >= deadline:
            raise TryLater(f"cannot wait longer for {what}: it goes on; wa-agent fleet status")
        time.sleep(_EVERY)
    return answer
