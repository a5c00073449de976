"""Key files of a bot's own store are whole at any instant of their writing."""

import json
import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from agent.engines.program.declaration import preload_into
from tests.lacking import lacks

LOOKS_WHILE_IT_WRITES = """
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";

const file = "creds.json";
const keys = (number) => JSON.stringify({ number, filler: "k".repeat(400000) });
await writeFile(file, keys(0));
let torn = 0, looks = 0;
for (let number = 1; number <= 20; number++) {
  let under_way = true;
  writeFile(file, keys(number)).then(() => (under_way = false));
  while (under_way) {
    looks++;
    try { JSON.parse(readFileSync(file, "utf8")); } catch { torn++; }
    await new Promise((then) => setImmediate(then));
  }
  if (JSON.parse(readFileSync(file, "utf8")).number !== number) torn++;
}
console.log(`${looks >= 10} ${torn}`);
"""
TWO_AT_ONCE = """
const { writeFile } = require("fs/promises");
const keys = (number) => JSON.stringify(Array(number + 1).fill(number));
const all = Array.from({ length: 50 }, (_, number) => writeFile("creds.json", keys(number)));
Promise.all(all).then(() => console.log("written"));
"""


def run_node(folder: Path, text: str, name: str = "script.cjs") -> str:
    """Return the output of a program under the module that Node loads before it. No worker is at
    the other end."""
    if (node := shutil.which("node")) is None:
        lacks("node is not installed")
    (folder / name).write_text(text)
    environment = {"PATH": os.environ["PATH"]}
    ours, theirs = socket.socketpair()
    with ours, theirs:
        number = theirs.fileno()
        preload_into(environment, number, str(Path(f"/proc/self/fd/{number}").readlink()))
        done = subprocess.run(
            [node, name],
            env=environment,
            pass_fds=(number,),
            cwd=folder,
            capture_output=True,
            check=True,
            timeout=60,
            text=True,
        )
    return done.stdout


def test_who_looks_while_a_key_file_is_written_finds_it_whole(tmp_path: Path) -> None:
    assert run_node(tmp_path, LOOKS_WHILE_IT_WRITES, "bot.mjs") == "true 0\n"
    assert {it.name for it in tmp_path.iterdir()} == {"bot.mjs", "creds.json"}


def test_writes_of_one_file_at_once_leave_the_last_one(tmp_path: Path) -> None:
    assert run_node(tmp_path, TWO_AT_ONCE) == "written\n"
    assert (tmp_path / "creds.json").read_text() == str([49] * 50).replace(" ", "")


def test_a_file_keeps_its_mode_and_a_link_its_target(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere.json"
    real.write_text("{}")
    (tmp_path / "session-1.json").symlink_to(real)
    (tmp_path / "creds.json").write_text("{}")
    (tmp_path / "creds.json").chmod(0o600)
    writes = "for (const it of ['creds', 'session-1']) void writeFile(`${it}.json`, '[1]');"
    run_node(tmp_path, f'const {{ writeFile }} = require("fs/promises");\n{writes}')
    assert stat.S_IMODE((tmp_path / "creds.json").stat().st_mode) == 0o600
    assert (tmp_path / "session-1.json").is_symlink()
    assert [(tmp_path / "creds.json").read_text(), real.read_text()] == ["[1]", "[1]"]


ENDS_ITSELF = """
const { writeFile } = require("fs/promises");
const turns = %d;
writeFile("creds.json", "[1]");
writeFile("creds.json", JSON.stringify(Array(100000).fill(2)));
writeFile("session-1.json", Buffer.from("[3]"));
const wait = (left) => (left ? setImmediate(() => wait(left - 1)) : process.exit(0));
wait(turns);
"""


@pytest.mark.parametrize("turns", [0, 2])
def test_a_bot_that_ends_itself_while_it_writes_leaves_the_new_content(
    tmp_path: Path, turns: int
) -> None:
    """As many do when WhatsApp asks for a new connection, right after the scan."""
    run_node(tmp_path, ENDS_ITSELF % turns)
    assert json.loads((tmp_path / "creds.json").read_text()) == [2] * 100000
    assert json.loads((tmp_path / "session-1.json").read_text()) == [3]
