"""What is done to a machine's disk: it is full, copied, or as it was some seconds ago again."""

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path

from scripts.nemeses.one_round import Round
from tests.fleet.agent import TTL, FleetAgent

FILLED = "filling"
CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
"""An agent that sees the other one's process refuses to begin."""


async def fill_disk(round: Round) -> float:
    filling = round.machine().state / FILLED
    round.ended.callback(filling.unlink, missing_ok=True)
    with suppress(OSError), filling.open("wb") as file:
        while True:
            file.write(bytes(1 << 18))
    return round.beyond()


async def restore_image(round: Round) -> float:
    """A machine begins again with its disk as it was some seconds ago."""
    machine = round.machine()
    image = machine.state.with_name("image")
    await machine.lose_power()
    await asyncio.to_thread(_replace, image, machine.state)
    round.ended.push_async_callback(_restore, machine, image)
    await machine.boot()
    return round.beyond()


async def copy_machine(round: Round) -> float:
    """A second agent begins with a copy of its disk, on its host, while the first one runs."""
    machine = round.machine()
    place = machine.config.with_name("copied")
    place.mkdir()
    config = place / "agent.toml"
    # A port of its own: else it would end at once.
    config.write_text(machine.config.read_text().replace(":8471", ":8472"))
    twin = FleetAgent(machine.name, place, config, ())
    twin.inside = [*machine.inside, *CONTAINER]
    with suppress(shutil.Error):  # files that went while they were copied
        await asyncio.to_thread(_replace, twin.state, machine.state)
    round.ended.push_async_callback(_end, twin)
    await twin.start(machine.env, ready=False)
    return round.beyond() + TTL  # it takes seconds to begin


async def _end(twin: FleetAgent) -> None:
    await twin.lose_power()
    await asyncio.to_thread(shutil.rmtree, twin.config.parent)


async def _restore(machine: FleetAgent, image: Path) -> None:
    await machine.lose_power()
    await asyncio.to_thread(_replace, machine.state, image)
    await machine.boot()


def _replace(folder: Path, by: Path) -> None:
    """What is in it, not the folder: a disk of its own may be there."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for each in folder.iterdir():
        shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
    shutil.copytree(by, folder, symlinks=True, dirs_exist_ok=True, ignore=special)


def special(folder: str, names: list[str]) -> list[str]:
    """Sockets, and what fills a disk."""
    return [it for it in names if it == FILLED or (Path(folder) / it).is_socket()]
