"""The store of a session's keys on the server's side: an auth folder, Redis, or both."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.engines.tasks import in_thread
from agent.engines.whaticket.keys.damage import memory_of, own_groups
from agent.engines.whaticket.keys.files import write_private
from agent.engines.whaticket.keys.folder import AuthFolder
from agent.engines.whaticket.keys.peers import Peers, user_of
from agent.engines.whaticket.keys.redis import KeyDump, RedisKeys, parse_keys, render_keys
from agent.engines.whaticket.keys.removed import KEYS, Removal, RemovedKeys
from agent.engines.whaticket.settings import WhaticketSettings
from agent.errors import EngineError, InvalidRequest

ROOM = 16 << 10
"""Bytes for a removal's manifest and its folders."""
ROOM_PER_KEY = 2048
"""Bytes for a key of Redis as it is written down; nearly all are smaller."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be removed."""

    files: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    whole: bool = False

    def __or__(self, other: "Plan") -> "Plan":
        files = tuple(sorted({*self.files, *other.files}))
        keys = tuple(sorted({*self.keys, *other.keys}))
        return Plan(files, keys, self.whole or other.whole)

    def __bool__(self) -> bool:
        return bool(self.files or self.keys)


@dataclass(frozen=True, slots=True)
class SessionStore:
    """Either may be None: not configured."""

    shelf: RemovedKeys
    folder: AuthFolder | None = None
    redis: RedisKeys | None = None

    @property
    def usable(self) -> bool:
        return self.folder is not None or self.redis is not None

    async def close(self) -> None:
        if self.redis is not None:
            await self.redis.close()

    async def look(self, id: str) -> str:
        """absent, unpaired, paired, damaged, unreadable, or unknown where nothing is configured."""
        if self.folder is not None:
            return await in_thread(self.folder.look, id)
        return await self.redis.look(id) if self.redis is not None else "unknown"

    async def holding(self, ids: Sequence[str], address: str) -> list[str]:
        """Which of these sessions have talked with that address. A session whose keys were taken
        out fails until new ones are agreed: the backups count as well."""
        holders: list[str] = []
        if (folder := self.folder) is not None:
            holders = await in_thread(lambda: [id for id in ids if folder.holds(id, address)])
        elif self.redis is not None:
            holders = await self.redis.holding(ids, address)
        return holders or await in_thread(self._held, ids, address)

    def _held(self, ids: Sequence[str], address: str) -> list[str]:
        name, all_of = f"session-{address}", self.shelf.all
        return [id for id in ids if any(_holds(removal, name) for removal in all_of(id))]

    async def plan_peers(self, id: str, peers: Sequence[str]) -> Plan:
        """The records of these peers alone."""
        users = frozenset(user for peer in peers if (user := user_of(peer)))
        if not users:
            raise InvalidRequest("cannot choose keys: no peer is named", field="peers")
        owners, files, keys = Peers(users), [], []
        if (folder := self.folder) is not None:
            owners = await in_thread(folder.other_names, id, owners.users)
        if self.redis is not None:
            owners = await self.redis.other_names(id, owners.users)
            keys = await self.redis.names(id, owners)
        if folder is not None:
            files = await in_thread(folder.names, id, owners)
        return Plan(tuple(files), tuple(keys))

    async def plan_damaged(self, id: str) -> Plan:
        """The session's records that Baileys cannot use, of all peers. With a damaged sender key of
        the account's own goes the note of who has it: it is given out again."""
        files: list[str] = []
        keys: list[str] = []
        own = await self.own_users(id)
        if (folder := self.folder) is not None:
            files = await in_thread(folder.damaged, id)
            groups = own_groups((name.removesuffix(".json") for name in files), own)
            notes = {f"{memory_of(group)}.json" for group in groups} - set(files)
            there = await in_thread(folder.all_names, id) if notes else []
            files += sorted(notes & set(there))
        if self.redis is not None:
            keys, prefix = await self.redis.damaged(id), self.redis.prefix(id)
            groups = own_groups((key.removeprefix(prefix) for key in keys), own)
            memories = {prefix + memory_of(group) for group in groups} - set(keys)
            keys += await self.redis.present(sorted(memories))
        return Plan(tuple(files), tuple(keys))

    async def own_users(self, id: str) -> frozenset[str]:
        """The account's own number and LID, by its creds."""
        if (folder := self.folder) is not None:
            return await in_thread(folder.own_users, id)
        return await self.redis.own_users(id) if self.redis is not None else frozenset()

    async def ids(self) -> list[str]:
        """Every session that has something here."""
        by_folder = await in_thread(self.folder.ids) if self.folder is not None else []
        by_redis = await self.redis.ids() if self.redis is not None else []
        return sorted({*by_folder, *by_redis})

    async def plan_all(self, id: str) -> Plan:
        files = await in_thread(self.folder.all_names, id) if self.folder is not None else ()
        keys = await self.redis.names(id) if self.redis is not None else ()
        return Plan(tuple(files), tuple(keys), whole=True)

    async def must_be_possible(
        self, id: str, plan: Plan, to_put_back: Removal | None = None
    ) -> None:
        """EngineError where the plan cannot be carried out, for want of room or of rights: asked
        before the session is taken down. All its keys come back where a start is refused."""
        back = plan.keys if plan.whole else ()
        if to_put_back is not None and to_put_back.keys:
            back = tuple(dump.key for dump in await in_thread(_read_keys, to_put_back))
        if self.redis is not None and (plan.keys or back):
            await self.redis.must_be_allowed(plan.keys, back)
        if not plan:
            return
        size = ROOM
        if (folder := self.folder) is not None and plan.files:
            await in_thread(folder.must_be_writable, id)
            size += await in_thread(folder.size_elsewhere, self.shelf, id, plan.files)
        size += len(plan.keys) * ROOM_PER_KEY
        await in_thread(self.shelf.must_have_room, id, size)

    async def back_up(self, id: str, plan: Plan, why: str) -> tuple[Removal, list[KeyDump]]:
        """Everything read once, and what is in Redis written down and read back."""
        removal = await in_thread(self.shelf.begin, id, why)
        if self.folder is not None and plan.files:
            files = await in_thread(self.folder.measure, id, plan.files)
            removal = replace(removal, files=files)
        dumps: list[KeyDump] = []
        if self.redis is not None and plan.keys:
            dumps = await self.redis.read(plan.keys)
            raw = render_keys(dumps)
            await in_thread(_write_keys, removal.path / KEYS, raw)
            digest = hashlib.sha256(raw).hexdigest()
            removal = replace(removal, keys=len(dumps), keys_sha256=digest)
        await in_thread(self.shelf.write, removal)
        return removal, dumps

    async def take_out(self, id: str, plan: Plan, why: str) -> Removal:
        """Back up, then away with it. Nothing goes that was not backed up."""
        removal, dumps = await self.back_up(id, plan, why)
        if self.redis is not None and dumps:
            await self.redis.delete(dumps)
        if (folder := self.folder) is not None and removal.files:
            return await in_thread(folder.take_out, self.shelf, removal, id, whole=plan.whole)
        return await in_thread(self.shelf.write, replace(removal, state="done"))

    async def copy_all(self, id: str, why: str) -> Removal | None:
        """For a session whose server takes its keys away itself."""
        plan = await self.plan_all(id) if self.usable else Plan()
        if not plan:
            return None
        removal, _ = await self.back_up(id, plan, why)
        if (folder := self.folder) is not None and removal.files:
            return await in_thread(folder.copy, self.shelf, removal, id)
        return await in_thread(self.shelf.write, replace(removal, state="done"))

    async def came_back(self, id: str, plan: Plan) -> list[str]:
        """Removed records that are there again: the server still writes."""
        there: list[str] = []
        if (folder := self.folder) is not None and plan.files:
            now = set(await in_thread(folder.all_names, id))
            there += [name for name in plan.files if name in now]
        if self.redis is not None and plan.keys:
            there += await self.redis.present(plan.keys)
        return there

    async def put_back(self, id: str, removal: Removal) -> None:
        """The session must be down, and what stands in the way taken out."""
        if self.redis is not None and removal.keys:
            dumps = await in_thread(_read_keys, removal)
            there = set(await self.redis.present([dump.key for dump in dumps]))
            await self.redis.restore([dump for dump in dumps if dump.key not in there])
        if (folder := self.folder) is not None and removal.files:
            await in_thread(folder.put_back, self.shelf, removal, id)
            return
        await in_thread(self.shelf.write, replace(removal, state="put_back"))

    async def in_the_way(self, id: str, removal: Removal) -> Plan:
        """What would have to go before this removal can come back. EngineError where it cannot come
        back whole: asked first, so that nothing goes for it."""
        files: tuple[str, ...] = ()
        keys: tuple[str, ...] = ()
        back: set[str] = set()
        if (folder := self.folder) is not None and removal.files:
            left = {file.name for file in await in_thread(folder.left_to_put_back, removal, id)}
            back = {file.name for file in removal.files} - left
            now = set(await in_thread(folder.all_names, id))
            files = tuple(sorted(left & now))
        if self.redis is not None and removal.keys:
            await in_thread(_read_keys, removal)
        if removal.whole:
            plan = await self.plan_all(id)
            kept = tuple(name for name in plan.files if name not in back)
            return replace(plan, files=kept, whole=not back)
        if self.redis is not None and removal.keys:
            dumps = await in_thread(_read_keys, removal)
            keys = tuple(await self.redis.present([dump.key for dump in dumps]))
        return Plan(files, keys)


def open_store(
    settings: WhaticketSettings, folder: Path, shelf: RemovedKeys | None = None
) -> SessionStore:
    own, server = settings.own, settings.server
    auth = AuthFolder(own.auth_folder.rstrip("/")) if own.auth_folder else None
    keys = None
    if own.redis_url:
        keys = RedisKeys(own.redis_url, own.redis_pattern, server.timeout, server.ca_file)
    return SessionStore(shelf or RemovedKeys(folder), auth, keys)


def _holds(removal: Removal, name: str) -> bool:
    if any(file.name == f"{name}.json" for file in removal.files):
        return True
    try:
        dumps = _read_keys(removal) if removal.keys else []
    except EngineError:
        return False
    return any(dump.key.endswith(f":{name}") for dump in dumps)


def _write_keys(path: Path, raw: bytes) -> None:
    write_private(path, raw)
    if path.read_bytes() != raw or not parse_keys(raw):
        raise EngineError(f"cannot back up keys: {path} reads differently", code="files")


def _read_keys(removal: Removal) -> list[KeyDump]:
    path = removal.path / KEYS
    try:
        raw = path.read_bytes()
        if hashlib.sha256(raw).hexdigest() != removal.keys_sha256:
            raise ValueError("its checksum is wrong")
        return parse_keys(raw)
    except (OSError, ValueError) as error:
        raise EngineError(f"cannot put back {removal.name}: {error}", code="files") from error
