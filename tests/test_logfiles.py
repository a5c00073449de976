"""Log files of our own: what goes where, rotation, and a disk that does not play along."""

import asyncio
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.config.config import Config, LogSection
from agent.core.model import Category
from agent.log import bound, set_level, set_up_logging
from agent.logfiles import AUDIT, PERFORMANCE, FileWriter, open_files
from agent.supervise.facts import Settings
from agent.supervise.upkeep import Upkeep, performance_line
from tests.conftest import Eventually
from tests.fakes.supervisor import make_view


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """Given back as they were."""
    names = ("", AUDIT, PERFORMANCE)
    kept = {
        name: (logging.getLogger(name).handlers[:], logging.getLogger(name).level) for name in names
    }
    yield
    for name, (handlers, level) in kept.items():
        logger = logging.getLogger(name)
        for one in logger.handlers:
            if one not in handlers:
                one.close()
        logger.handlers[:], logger.level = handlers, level
    logging.captureWarnings(False)


def record(text: str, category: str = "API") -> logging.LogRecord:
    made = logging.LogRecord("x", logging.INFO, "/x.py", 1, text, (), None)
    made.__dict__["wa_category"] = category
    return made


def write(path: Path, count: int, **how: int) -> FileWriter:
    writer = FileWriter(path, "text", **{"max_bytes": 1000, "keep": 2, **how})
    for number in range(count):
        writer.handle(record(f"line {number:04} " + "x" * 40))
    return writer


def lines(*paths: Path) -> list[int]:
    text = "".join(path.read_text() for path in paths)
    return [int(line.split("line ")[1][:4]) for line in text.splitlines()]


def test_a_full_file_is_put_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    write(path, 100).close()
    names = sorted(one.name for one in tmp_path.iterdir())
    assert names == ["audit.log", "audit.log.1", "audit.log.2"]
    assert all(one.stat().st_size <= 1000 for one in tmp_path.iterdir())
    assert path.stat().st_mode & 0o777 == 0o640
    kept = lines(tmp_path / "audit.log.2", tmp_path / "audit.log.1", path)
    assert kept == list(range(kept[0], 100)), "no line is lost between two files"


def test_a_file_that_logrotate_moved_is_created_again(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    writer = write(path, 2)
    path.rename(tmp_path / "moved")
    writer.handle(record("line 0007"))
    assert lines(tmp_path / "moved") == [0, 1]
    assert lines(path) == [7]
    writer.close()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "audit.log").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        open_files(tmp_path, "text", "repairs.log")
    assert not (tmp_path / "victim").exists()


def test_f16_a_full_disk_loses_lines_and_no_more(small_disk: Callable[[str], Path]) -> None:
    folder = small_disk("size=32k")
    writer = write(folder / "a.log", 2000, max_bytes=1 << 20)
    assert (folder / "a.log").stat().st_size <= 32 << 10
    (folder / "a.log").rename(folder / "old")
    (folder / "old").unlink()
    writer.handle(record("line 0001"))
    assert lines(folder / "a.log") == [1]
    writer.close()


def test_every_line_goes_to_its_file_with_any_level_of_stderr(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    set_up_logging("error", env={}, fd=writing)
    open_files(tmp_path / "log", "json", "of-repairs.log")
    bound(Category.API, "sales", AUDIT).info("key shop: POST /x → 202")
    bound(Category.CRYPTO, "sales").info("its keys fail")
    bound(Category.SESSION, "sales").info("of no interest")
    bound(Category.SYSTEM, "sales", PERFORMANCE).info("messages=3")
    with suppress(BlockingIOError):
        pytest.fail(f"stderr wants errors only: {os.read(reading, 4096)!r}")
    set_level("info")
    bound(Category.RECOVERY, "sales").info("again")
    logging.getLogger("aiohttp.websocket").warning("a client's words")
    told = os.read(reading, 4096)
    assert (b"again" in told, b"words" in told) == (True, False)
    found = {
        name: [
            json.loads(line)["text"]
            for line in (tmp_path / f"log/{name}.log").read_text().splitlines()
        ]
        for name in ("audit", "of-repairs", "performance")
    }
    assert found == {
        "audit": ["key shop: POST /x → 202"],
        "of-repairs": ["its keys fail", "again"],
        "performance": ["messages=3"],
    }
    os.close(reading)
    os.close(writing)


async def test_the_performance_log_has_a_line_for_each_instance(
    tmp_path: Path, eventually: Eventually
) -> None:
    open_files(tmp_path, "text", "repairs.log")
    view = make_view("sales", messages={"in": 2, "out": 3}, probes=4, response_seconds=0.005)
    assert "messages=5" in performance_line(view)
    assert "response_seconds=0.0050" in performance_line(view)
    views = {view.instance.id: view}
    often = replace(Config(), log=LogSection(performance_interval=0.01))
    registry: Any = SimpleNamespace(views=lambda: views, settings=Settings(often))
    writing = asyncio.create_task(Upkeep(registry).log_performance())
    path = tmp_path / "performance.log"
    await eventually(lambda: path.read_text().count("[sales] status=CONNECTED") >= 2)
    writing.cancel()
