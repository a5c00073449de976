"""Rename: the clone of a machine becomes an empty machine of the fleet, with a name of its own.

Its sessions are the original's: their folders go to the trash, and what waited to be sent goes.
"""

import asyncio
import sys
import tomllib
from contextlib import ExitStack
from pathlib import Path

from agent.core.model import JournalEntry
from agent.errors import Refused, WaError
from agent.files import folder_locked
from agent.fleet import join, plan
from agent.host.choose import only_agent, only_of_sessions
from agent.store.database import Store
from agent.vault import folders, identity

_OURS = ("fleet/agent.json", "fleet/orders.json", "outbox.db", "outbox.db-wal", "outbox.db-shm")


def rename(name: str, address: str, config: Path, state: Path, root: Path) -> str:
    """Returns FLEET/MACHINE. `root`: of the sessions. Refused while its agent or a worker runs;
    cut off it can be done again."""
    path = config.resolve()
    text = path.read_text(encoding="utf-8")
    if not (fleet := tomllib.loads(text).get("fleet", {}).get("name", "").rpartition("/")[0]):
        raise Refused(f"cannot rename this machine: {path} names no FLEET/MACHINE in [fleet]")
    new = f"{fleet}/{name}"
    lines = f'[fleet]\nname = "{new}"\naddress = "{plan.reached(address)}"\n'
    made = join.with_fleet(text, lines, path, replaces=True)
    if not join.done_as_owner(state, "empty this machine", "agent.fleet.rename", state, root):
        empty(state, root)
    join.rewrite(path, made)
    return new


def empty(state: Path, root: Path) -> None:
    """As the agent's user."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with only_agent(state), only_of_sessions(root), ExitStack() as held:
        ids = [it.id for it in identity.scan(root)]
        try:
            for id in ids:
                held.enter_context(folder_locked(root / id))
        except BlockingIOError:
            raise Refused(f"cannot empty this machine: the worker of {id} runs; stop it") from None
        for id in ids:
            folders.retire(root, id, "renamed", follows=False)
        asyncio.run(_forget(state))
        for name in (*_OURS, "state-mark.json"):
            (state / name).unlink(missing_ok=True)


async def _forget(state: Path) -> None:
    store = await Store.open(state / "agent.db")
    try:
        for row, _ in await store.instances():
            words = "the machine was renamed; its session is in the trash"
            await store.remove(row.id, JournalEntry("deleted", words, instance=row.id))
    finally:
        await store.close()


if __name__ == "__main__":
    try:
        empty(*map(Path, sys.argv[1:]))
    except (OSError, WaError) as error:
        sys.exit(str(error))
