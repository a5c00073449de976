"""What the module costs that Node loads before a program."""

import json
from pathlib import Path

import pytest

from tests.engines.program.node import run_node
from tests.engines.program.test_program_baileys import BotBench, bot, whatsapp

__all__ = ["bot", "whatsapp"]
SAYS = """
const fs = require("fs");
const rss = Number(/VmRSS:\\s+(\\d+)/.exec(fs.readFileSync("/proc/self/status", "utf8"))[1]);
console.log(JSON.stringify({ threads: fs.readdirSync("/proc/self/task").length, rss }));
"""
MOST = 8 << 10
"""KiB; a thread of hooks alone has 14 MiB."""


def test_a_program_gets_no_thread_and_little_memory(tmp_path: Path) -> None:
    script = tmp_path / "says.cjs"
    script.write_text(SAYS)
    before, after = (json.loads(run_node(script, preloaded=it)) for it in (False, True))
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
