"""What is done to a machine's disk: it is full, or begins again as it was some seconds ago."""

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path

from scripts.nemeses.one_round import Round
from tests.fleet.agent import FleetAgent

FILLED = "filling"


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
