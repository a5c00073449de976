"""The keys of a server's sessions, in an auth folder, in Redis, or in both, and their removals.

A removal is on the agent's disk, read back, before a record goes; one that was killed at any step
can be put back.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.backends.whaticket import damage
from agent.backends.whaticket.contract import BackendSettings, cannot
from agent.backends.whaticket.redis import RedisKeys
from agent.backends.whaticket.shelf import SUFFIX, FolderKeys, Record, Removal, Shelf
from agent.config.declaration import BackendDeclaration
from agent.engines.baileys.peers import mappings_of, user_of, with_mapped
from agent.engines.tasks import in_thread
from agent.errors import EngineError

AGAIN = 0.1
"""Seconds until a damaged record is read again: Baileys empties a file before it writes it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The names of records to remove: files, and keys in Redis."""

    files: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    whole: bool = False

    def of(self, store: FolderKeys | RedisKeys) -> tuple[str, ...]:
        return self.keys if store.redis else self.files

    def add(self, store: FolderKeys | RedisKeys, names: Iterable[str]) -> "Plan":
        part = "keys" if store.redis else "files"
        return replace(self, **{part: tuple(sorted(names))})  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return bool(self.files or self.keys)


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """A session is named by the server's id of it."""

    shelf: Shelf
    stores: tuple[FolderKeys | RedisKeys, ...]

    async def look(self, id: str) -> str:
        """The state of its creds: absent, unpaired, paired, damaged, unreadable or unknown."""
        if not self.stores:
            return "unknown"
        try:
            state = damage.state_of_creds(await self._creds(id))
            if state == "damaged":
                await asyncio.sleep(AGAIN)
                state = damage.state_of_creds(await self._creds(id))
        except EngineError:
            return "unreadable"
        return state

    async def _creds(self, id: str) -> bytes | None:
        store = self.stores[0]
        name = "creds" if store.redis else f"creds{SUFFIX}"
        values = await store.values(id, [name])
        if not values and name in await store.names(id):
            raise cannot("read the creds", "it is no readable file", "files")
        return values.get(name)

    async def plan_all(self, id: str) -> Plan:
        plan = Plan(whole=True)
        for store in self.stores:
            plan = plan.add(store, await store.names(id))
        return plan

    async def plan_records(self, id: str, peers: Sequence[str], *, damaged: bool) -> Plan:
        """The records of these peers; where they have none, or with `damaged`, also those that
        Baileys cannot use."""
        plan = Plan()
        for store in self.stores:
            keys = {name.removesuffix(SUFFIX): name for name in await store.names(id)}
            users = {user for peer in peers if (user := user_of(peer))}
            maps = [keys[m] for user in users for m in mappings_of(user) if m in keys]
            mapped = (await store.values(id, maps)).values()
            owned = with_mapped(
                users, [value.decode(errors="replace").strip('" ') for value in mapped]
            )
            names = {keys[key] for key in keys if owned.owns(key)}
            if damaged or not names:
                names |= {keys[key] for key in await self._damaged(store, id, keys)}
            plan = plan.add(store, names)
        return plan

    async def _damaged(
        self, store: FolderKeys | RedisKeys, id: str, keys: dict[str, str]
    ) -> set[str]:
        """With a damaged sender key of the account's own goes the note of who has it."""
        bad = [key for key in keys if damage.worth_reading(key)]
        for pause in (0.0, AGAIN):
            await asyncio.sleep(pause if bad else 0.0)
            values = await store.values(id, [keys[key] for key in bad])
            stored = {key: values[keys[key]] for key in bad if keys[key] in values}
            bad = await in_thread(damage.bad_among, stored)
        own = damage.own_users(await self._creds(id) or b"") if bad else frozenset()
        return {*bad, *(damage.notes_of_own(bad, own) & keys.keys())}

    async def must_be_possible(self, id: str, plan: Plan) -> None:
        """EngineError where it cannot be backed up: asked before the session is taken down."""
        await in_thread(self.shelf.must_have_room, id, await self._read(id, plan))

    async def _read(self, id: str, plan: Plan) -> list[Record]:
        stores = [store for store in self.stores if plan.of(store)]
        return [it for store in stores for it in await store.read(id, plan.of(store))]

    async def take_out(self, id: str, plan: Plan, why: str) -> Removal:
        """Nothing goes that was not backed up."""
        removal = await self.copy(id, plan, why)
        for store in self.stores:
            await store.remove(id, [it for it in removal.records if it.redis == store.redis])
        return await self._note(removal, "done")

    async def copy(self, id: str, plan: Plan, why: str) -> Removal:
        records = await self._read(id, plan)
        return await in_thread(self.shelf.keep, id, why, records, whole=plan.whole)

    async def came_back(self, id: str, plan: Plan) -> int:
        """How many removed records are there again: the server still writes."""
        there = 0
        for store in self.stores:
            there += len({*await store.names(id)} & {*plan.of(store)})
        return there

    async def in_the_way(self, id: str, removal: Removal) -> Plan:
        """What must go before that removal can come back: other records of the same names, and of
        a whole one all others."""
        plan = Plan(whole=removal.whole)
        for store in self.stores:
            kept = {it.name: it.content for it in removal.records if it.redis == store.redis}
            names = [n for n in await store.names(id) if removal.whole or n in kept]
            now = await store.read(id, names) if names else []
            other = [it.name for it in now if kept.get(it.name) != it.content]
            plan = plan.add(store, other)
        return plan

    async def put_back(self, id: str, removal: Removal) -> None:
        """The session is down, and what was in the way is gone. What is back already stays."""
        for store in self.stores:
            there = set(await store.names(id))
            records = [it for it in removal.records if it.redis == store.redis]
            if missing := [it for it in records if it.name not in there]:
                await store.restore(id, missing)
        await self._note(removal, "put_back")

    async def _note(self, removal: Removal, state: str) -> Removal:
        noted = replace(removal, state=state)
        await in_thread(self.shelf.write, noted)
        return noted


def open_keys(declared: BackendDeclaration, folder: Path) -> SessionKeys:
    """`folder`: for what is removed."""
    own: BackendSettings = declared.own
    stores: list[FolderKeys | RedisKeys] = []
    if own.auth_folder:
        stores.append(FolderKeys(own.auth_folder))
    if own.redis_url:
        redis = RedisKeys(own.redis_url, own.redis_pattern, declared.timeout, declared.ca_file)
        stores.append(redis)
    return SessionKeys(Shelf(folder), tuple(stores))
