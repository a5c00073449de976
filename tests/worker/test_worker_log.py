"""A worker of the process host keeps its log bounded and in its place, without an agent, too."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.log import LOG_LIMIT, open_log
from tests.conftest import Eventually

WORKER = """
import logging, os, sys
from agent.worker.life import set_up_worker_log
set_up_worker_log("shop", os.environ)
for order in sys.stdin:
    text, times = order.split()
    for _ in range(int(times)):
        logging.warning(text)
"""

Say = Callable[[str, int], None]


@pytest.fixture
def say(tmp_path: Path) -> Iterator[Say]:
    out = open_log(tmp_path)
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        env={**os.environ, "RUNTIME_DIRECTORY": str(tmp_path), "JOURNAL_STREAM": ""},
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=out,
        text=True,
    )
    os.close(out)

    def order(text: str, times: int) -> None:
        assert worker.stdin is not None
        worker.stdin.write(f"{text} {times}\n")
        worker.stdin.flush()

    yield order
    worker.send_signal(signal.SIGKILL)
    worker.communicate(timeout=10)


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


async def test_a_flood_leaves_two_pieces(say: Say, tmp_path: Path, eventually: Eventually) -> None:
    log = tmp_path / "worker.log"
    say("x" * 8000, 800)
    say("last", 1)
    await eventually(lambda: read(log).endswith(" last\n"), within=30)
    before = log.with_suffix(".log.1")
    assert log.stat().st_size <= LOG_LIMIT + 10_000
    assert 0 < before.stat().st_size <= LOG_LIMIT
    assert before.stat().st_mode & 0o777 == 0o600
