"""Several operators add backends at once to an agent.toml that a person writes by hand."""

import asyncio
import tomllib
from pathlib import Path
from random import Random

from tests.trial.hostile.operating.commands import Step
from tests.trial.hostile.operating.oracle import judge_command
from tests.trial.hostile.operating.processes import type_command
from tests.trial.hostile.operating.world import World

STATES = ("good", "good", "good", "link", "bare", "crlf", "syntax", "table", "gone")
"""States of the file: as it was, behind a link, without its last line's end, with CRLF, with
errors."""
BROKEN = ("syntax", "table", "gone")
NOWHERE = "http://127.0.0.1:9"


def draw_additions(chance: Random) -> Step:
    first, many = chance.randrange(10**6), chance.choice([1, 2, 3, 6])
    adds = [{"name": f"late-{first}-{number}"} for number in range(many)]
    return {"do": "additions", "adds": adds, "file": chance.choice(STATES)}


async def play_additions(world: World, step: Step) -> None:
    """Each backend that was acknowledged is in the file, and no other user can read its key."""
    if world.dead or world.full or world.armed:
        return
    config, agent = world.agent.config, world.agent.process
    before, mode = config.read_bytes(), config.stat().st_mode
    _write(config, step["file"], before)
    meant = config.read_bytes() if config.exists() else b""
    try:
        told = await asyncio.gather(*(_add(world, each) for each in step["adds"]))
        if world.agent.process is not agent or world.dead or world.full:
            return
        added = [each["name"] for each, good in zip(step["adds"], told, strict=True) if good]
        if step["file"] in BROKEN:
            assert not added, f"{added} were added to a file that is {step['file']}"
            assert (config.read_bytes() if config.exists() else b"") == meant, "it was changed"
            return
        held = tomllib.loads(config.read_text())
        names = [each["name"] for each in held["backend"]]
        lost = set(added) - set(names)
        assert not lost, f"{lost} were acknowledged, and agent.toml has {names}"
        assert len(names) == len(set(names)), names
        assert config.is_symlink() == (step["file"] == "link"), "the link became a file"
        _judge_keys(world, step)
    finally:
        config.unlink(missing_ok=True)
        config.write_bytes(before)
        config.chmod(mode)


def _write(config: Path, state: str, whole: bytes) -> None:
    match state:
        case "link":
            config.rename(config.with_name("managed.toml"))
            config.symlink_to("managed.toml")
        case "bare":
            config.write_bytes(whole + b"# the last line")
        case "crlf":
            config.write_bytes(whole.replace(b"\n", b"\r\n"))
        case "syntax":
            config.write_bytes(whole + b"\n[[instance]\n")
        case "table":
            config.write_bytes(whole + b"\n[nonsense]\nx = 1\n")
        case "gone":
            config.unlink()


def _key(name: str) -> str:
    return f"global-key-of-{name}"


async def _add(world: World, each: Step) -> bool:
    """True if the backend was acknowledged."""
    name = each["name"]
    file = world.folder / f"{name}.key"
    file.touch(0o600)
    file.write_text(_key(name))
    words = ["backends", "add", name, "evolution", NOWHERE, "--key-file", str(file)]
    status, said = await type_command(world, words)
    judge_command(" ".join(words), status, said, killed=0.0, out="")
    return status == 0


def _judge_keys(world: World, step: Step) -> None:
    keys = [_key(each["name"]).encode() for each in step["adds"]]
    for path in [*world.agent.config.parent.iterdir(), *world.agent.state.rglob("*")]:
        if path.is_file() and path.stat().st_mode & 0o044 and path.stat().st_size < 1 << 20:
            held = path.read_bytes()
            shown = [key for key in keys if key in held]
            assert not shown, f"others can read {shown[0].decode()} in {path.name}"
