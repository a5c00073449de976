"""The worker of one pack: one process with its one Node for several sessions of an engine.

Each session runs in it as in a worker of its own: `agent.worker.run` runs it, on a link of its own.
What they share is this process and what the engine shares (of baileys: Node).
"""

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from agent.core.words import Happening, parse_instance_id
from agent.engines.catalog import load_shared
from agent.errors import ConfigError
from agent.link.server import LinkServer
from agent.link.wire import Call
from agent.worker.calls import Answer, answer_with, plain
from agent.worker.identity import Identity, refuse_foreign_group
from agent.worker.life import ProcessLife, live
from agent.worker.pack.member import House
from agent.worker.pack.members import Members
from agent.worker.pack.tasks import follow_tasks, present_member
from agent.worker.watch import tell_status

log = logging.getLogger(__name__)

THREADS = 32
"""A disk that hangs for one session leaves threads for the others."""
STATUS_APART = 2.0
SESSIONS_ROOT = "WA_MEMBERS_ROOT"


def run_pack(name: str) -> int:
    """Do it all with what the environment says; return the exit status."""
    return live(name, _read_pack, _work)


def _read_pack(name: str, _root: Path) -> Identity:
    """A pack has no file: its name says the engine, its run folder holds the rest."""
    id = parse_instance_id(name)
    engine, _, _ = id.rpartition("-")
    if not os.environ.get(SESSIONS_ROOT):
        raise ConfigError(f"cannot start a pack: {SESSIONS_ROOT} is not set", field=SESSIONS_ROOT)
    return Identity(id, Path(os.environ["RUNTIME_DIRECTORY"].split(":")[0]), engine, {})


async def _work(identity: Identity, link_path: Path) -> int:
    life, loop = ProcessLife(identity), asyncio.get_running_loop()
    shared = load_shared(identity.engine)(identity.id)
    loop.set_default_executor(ThreadPoolExecutor(THREADS, "pack"))
    follow_tasks(loop)
    _stamp_lines(identity.id)
    links, root = link_path.with_name("members"), Path(os.environ[SESSIONS_ROOT])
    refuse_foreign_group(root)
    links.mkdir(mode=0o750, exist_ok=True)
    for left in links.glob("*/link.sock"):  # of a run that was killed
        left.unlink()
    changed = asyncio.Event()

    def broken(why: str) -> None:
        log.error("the pack ends, and all its sessions log in again: %s", why)
        os._exit(1)

    def status() -> str:
        return f"{len(members.running())} sessions"

    def tell() -> None:
        changed.set()
        server.happened(Happening("members"))

    async def stop() -> bool:
        life.notifier.stopping("stopping: closing its sessions")
        in_order = await members.stop()
        await shared.close()
        return in_order

    async def answer(call: Call) -> Answer:
        return await answer_with(calls, call)

    server = await LinkServer.open(link_path, life.hello, answer, lambda: None)
    house = House(root, links, shared.open_engine, life.watchdog, broken, life.notifier.send)
    members = Members(link_path.parent, house, tell)
    calls = {**members.works(), "end": plain(life.stop)}
    works = {
        "shared": shared.watch(partial(life.notifier.send, "WATCHDOG=1")),
        "status": tell_status(changed, status, life.notifier, STATUS_APART),
    }
    try:
        status_code = await life.spend(works, status, stop)
        await life.end(server)
    except BaseException:
        log.exception("the pack ended with an internal error")
        os._exit(1)  # its sessions are in an unknown state: what the disk holds is better
    return status_code


def _stamp_lines(pack: str) -> None:
    """A line that a session's run writes is about that session."""

    def stamp(record: logging.LogRecord) -> bool:
        if record.__dict__.get("wa_instance") in (None, pack) and (id := present_member()):
            record.__dict__["wa_instance"] = id
        return True

    for handler in logging.getLogger().handlers:
        handler.addFilter(stamp)
