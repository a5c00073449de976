"""The process of one pack: what several workers' sessions share (of baileys: one Node)."""

import os
from pathlib import Path

from agent.core.words import parse_instance_id
from agent.engines.catalog import load_pack
from agent.errors import EngineError
from agent.link.sockets import listen_at
from agent.worker.identity import Identity
from agent.worker.life import Life, live
from agent.worker.stop import stop_in_order


def run_pack(name: str) -> int:
    """Do it all with what the environment says; return the exit status."""
    return live(name, _read_pack, _work)


def _read_pack(name: str, _root: Path) -> Identity:
    """A pack has no file: its name says the engine, its folder holds the socket."""
    id = parse_instance_id(name)
    engine, _, _ = id.rpartition("-")
    return Identity(id, Path(os.environ["RUNTIME_DIRECTORY"].split(":")[0]), engine, {})


async def _work(identity: Identity, link_path: Path) -> int:
    life = Life(identity)
    pack = load_pack(identity.engine)(identity.id, lambda why: life.crashed(EngineError(why)))
    await pack.open()

    def status() -> str:
        return f"{pack.sessions} sessions"

    def alive() -> None:
        life.notifier.send("WATCHDOG=1")

    with listen_at(link_path.with_name("pack.sock")) as listener:
        try:
            return await life.spend(
                {"serve": pack.serve(listener), "watch": pack.watch(alive)},
                status,
                lambda: stop_in_order(pack, lambda: 0.0, life.notifier, life.hurry),
            )
        finally:
            await life.end(None)
