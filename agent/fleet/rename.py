"""Rename: the clone of a machine becomes an empty machine of the fleet, with a name of its own.

Its sessions are the original's: their folders go to the trash, and what waited to be sent goes.
"""

import asyncio
import sys
import tomllib
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from agent.core.model import JournalEntry
from agent.errors import Refused, WaError
from agent.files import folder_locked
from agent.fleet import join, plan
from agent.fleet.etcd import Etcd
from agent.fleet.peers import tls_of
from agent.fleet.records import Keys, Machine, decoded, named
from agent.fleet.store import Get, Pair, StoreAway
from agent.host.choose import only_agent, only_of_sessions
from agent.store.database import Store
from agent.vault import folders, identity

_OURS = ("fleet/agent.json", "fleet/orders.json", "outbox.db", "outbox.db-wal", "outbox.db-shm")


def rename(name: str, address: str, config: Path, state: Path, root: Path) -> str:
    """Returns FLEET/MACHINE. `root`: of the sessions. Refused while its agent or a worker runs, and
    where a machine that is not lost has the name or the address; cut off it can be done again."""
    path = config.resolve()
    text = path.read_text(encoding="utf-8")
    own, reached = tomllib.loads(text).get("fleet", {}), plan.reached(address)
    if not (fleet := own.get("name", "").rpartition("/")[0]):
        raise Refused(f"cannot rename this machine: {path} names no FLEET/MACHINE in [fleet]")
    its = f"{fleet}/{name}"
    lines = f'[fleet]\nname = "{its}"\naddress = "{reached}"\n'
    made = join.with_fleet(text, lines, path, replaces=True)
    words = (str(state), str(root), its, reached, *own.get("store", ()))
    if not join.done_as_owner(state, "empty this machine", "agent.fleet.rename", *words):
        empty(*words)
    join.rewrite(path, made)
    return its


def empty(state_path: str, root_path: str, its: str, reached: str, *store: str) -> None:
    """As the agent's user."""
    state, root = Path(state_path), Path(root_path)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with only_agent(state), only_of_sessions(root), ExitStack() as held:
        asyncio.run(_check(state / "fleet", its, reached, store))
        ids = [it.id for it in identity.scan(root)]
        try:
            for id in ids:
                held.enter_context(folder_locked(root / id))
        except BlockingIOError:
            raise Refused(f"cannot empty this machine: the worker of {id} runs; stop it") from None
        for id in ids:
            folders.retire(root, id, "renamed", follows=False)
        asyncio.run(_forget(state))
        for name in _OURS:
            (state / name).unlink(missing_ok=True)


async def _check(folder: Path, its: str, reached: str, store: Sequence[str]) -> None:
    """An etcd that does not answer refuses nothing: a machine whose name lives starts nothing."""
    etcd, (fleet, name) = Etcd(store, tls_of(folder)), its.split("/")
    found: Sequence[Pair] = ()
    with suppress(StoreAway):
        found = (await etcd.read(Get(Keys(fleet).machines))).found[0]
    await etcd.close()
    for pair in found:
        there = decoded(pair.value, Machine) or Machine()
        if not there.lost and (named(pair.key) == name or there.address == reached):
            cause = f"machine {named(pair.key)} has that name or address, and is not lost"
            raise Refused(f"cannot be {its} at {reached}: {cause}")


async def _forget(state: Path) -> None:
    store = await Store.open(state / "agent.db")
    try:
        for its, _ in await store.instances():
            words = "the machine was renamed; its session is in the trash"
            await store.remove(its.id, JournalEntry("deleted", words, instance=its.id))
    finally:
        await store.close()


if __name__ == "__main__":
    try:
        empty(*sys.argv[1:])
    except (OSError, WaError) as error:
        sys.exit(str(error))
