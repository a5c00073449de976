"""A bot that stands still before it told anything is ended; one that tells nothing is not."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.engines.program.tree import descendants
from tests.engines.program.conftest import ProgramBench
from tests.engines.program.test_program_baileys import BotBench, bot, whatsapp
from tests.lacking import lacks

__all__ = ["bot", "whatsapp"]


@pytest.mark.parametrize("file", ["late.mjs", "forks.mjs"], ids=["itself", "its child"])
async def test_a_bot_that_is_stopped_before_its_library_is_there_is_started_again(
    bot: BotBench, file: str
) -> None:
    bot.run_bot(file)
    link = await bot.linked()
    await bot.is_now("INITIALIZING", "not_told")
    pid = (await link.call("probe"))["detail"]["pid"]
    if file == "forks.mjs":
        await bot.until(lambda: descendants(pid))
    os.kill([pid, *descendants(pid)][-1], signal.SIGSTOP)
    claim = await bot.is_now("DISCONNECTED", "program_ended")
    assert claim.raw.startswith("it was stopped by a signal for")
    (bot.session / "go").touch()
    await link.call("connect")
    await bot.is_now("QR_REQUIRED")
    assert (await link.call("probe"))["detail"]["pid"] != pid


async def test_a_bot_whose_loop_does_not_turn_before_its_library_is_there_is_started_again(
    bot: BotBench,
) -> None:
    bot.run_bot("late.mjs", "waits")
    link = await bot.linked()
    await bot.is_now("INITIALIZING", "not_told")
    await bot.until(lambda: bot.claims[-1].reason == "program_ended", within=90)
    assert bot.claims[-1].raw.startswith("its loop did not turn for")
    (bot.session / "go").touch()
    await link.call("connect")
    await bot.is_now("QR_REQUIRED")


async def test_a_stopped_bot_gets_the_time_of_its_end(bench: ProgramBench) -> None:
    """Its files may be half written: SIGTERM comes before SIGKILL, as for a stop."""
    bench.run("orderly")
    link = await bench.linked()
    await bench.file("began")
    pid = (await link.call("probe"))["detail"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    claim = await bench.is_now("DISCONNECTED", "program_ended")
    assert claim.raw.startswith("it was stopped by a signal for")
    assert (bench.folder / "began").read_text() == "ended in order"


def test_one_that_tells_nothing_by_design_is_left_alone(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        lacks("node is not installed")
    told = subprocess.run(
        [sys.executable, "-m", "tests.engines.program.standing", node, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=90,
    ).stdout.splitlines()
    assert told[0].startswith("['hangs'] its loop did not turn for")
    assert told[1] == "''"
