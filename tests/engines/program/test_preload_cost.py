"""What the module costs that Node loads before a program."""

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from agent.engines.program.environment import preload_into
from tests.engines.program.test_program_baileys import BotBench, bot, whatsapp
from tests.lacking import lacks

__all__ = ["bot", "whatsapp"]
SAYS = """
const fs = require("fs");
const rss = Number(/VmRSS:\\s+(\\d+)/.exec(fs.readFileSync("/proc/self/status", "utf8"))[1]);
console.log(JSON.stringify({ threads: fs.readdirSync("/proc/self/task").length, rss }));
"""
MOST = 8 << 10
"""KiB; a thread of hooks alone has 14 MiB."""


def test_a_program_gets_no_thread_and_little_memory(tmp_path: Path) -> None:
    if (node := shutil.which("node")) is None:
        lacks("node is not installed")
    (tmp_path / "says.cjs").write_text(SAYS)
    plain = {"PATH": os.environ["PATH"]}
    ours, theirs = socket.socketpair()
    with ours, theirs:
        number = theirs.fileno()
        attached = dict(plain)
        preload_into(attached, number, str(Path(f"/proc/self/fd/{number}").readlink()))

        def run(environment: dict[str, str]) -> dict[str, int]:
            done = subprocess.run(
                [node, str(tmp_path / "says.cjs")],
                env=environment,
                pass_fds=(number,),
                capture_output=True,
                check=True,
                timeout=60,
            )
            return dict(json.loads(done.stdout))

        before, after = run(plain), run(attached)
    assert after["threads"] == before["threads"]
    assert after["rss"] - before["rss"] < MOST


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("registers.mjs", "--no-warnings"),
        ("plain.mjs", "--no-warnings --import={hooks}"),
    ],
    ids=["in the program", "by an option"],
)
async def test_a_program_with_hooks_of_its_own_is_noticed(
    bot: BotBench, file: str, options: str
) -> None:
    own = "data:text/javascript,export const load=(url,context,next)=>next(url,context)"
    register = f'import {{ register }} from "node:module"; register("{own}");'
    hooks = bot.root / "hooks.mjs"
    hooks.write_text(register)
    bot.run_bot(file, environment=[f"NODE_OPTIONS={options.format(hooks=hooks)}"])
    await bot.linked()
    await bot.is_now("QR_REQUIRED")
