"""The keys of a server's sessions, in an auth folder of Baileys (a file for each), in Redis, or in
both; and their removals, each a file that is kept for seven days.

A removal's file has the records themselves, and is whole and read back before the first record
goes: a removal that was killed at any step can be put back. No link is followed. Blocking work runs
in threads. Redis is asked by its own protocol (RESP 2), by a connection for each piece of work, and
no error has a key's value or the address' password.
"""

import asyncio
import base64
import hashlib
import json
import os
import re
import shutil
import ssl
import stat
import time
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from agent.backends.http import cannot
from agent.backends.whaticket import damage
from agent.backends.whaticket.contract import BackendSettings, is_safe
from agent.config.declaration import BackendDeclaration
from agent.engines.baileys.peer_keys import mappings_of, user_of, with_mapped
from agent.engines.tasks import in_thread
from agent.errors import EngineError, InvalidRequest
from agent.files import open_plain, replacement, write_whole

KEEP = 7 * 86400.0
LARGEST = 256 << 20
_NAME = re.compile(r"\d{8}T\d{6}Z(?:\.\d{1,4})?")
_FORMAT = "wa-agent removed keys 1"
AGAIN = 0.1
"""Seconds until a damaged record is read again: Baileys empties a file before it writes it."""
Key = tuple[bool, str]
"""True if it is in Redis, and its name there or the file's."""
LARGEST_KEY = 16 << 20
SUFFIX = ".json"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
LARGEST_ANSWER = 64 << 20
_BATCH = 100
_GLOB = re.compile(r"([*?\[\]\\^-])")
Command = Sequence[bytes | str | int]
_ROOM = 4096
"""Bytes of a removal without records, and of a record without its content."""


@dataclass(frozen=True, slots=True)
class Record:
    """One key as it was stored."""

    name: str
    """The file's, or the key's behind the session's prefix; not UTF-8: by `surrogateescape`."""
    content: bytes = field(repr=False)
    """The file's, or Redis' own form for RESTORE."""
    redis: bool = False
    mode: int = 0
    uid: int = 0
    gid: int = 0
    ttl: int = -1
    """Milliseconds left in Redis; -1 = for ever."""

    @property
    def key(self) -> Key:
        return self.redis, self.name


@dataclass(frozen=True, slots=True)
class Removal:
    name: str
    remote: str
    """The server's id of the session."""
    why: str
    wall: float
    state: str
    """begun, done or put_back"""
    whole: bool
    """True if all keys of the session were taken."""
    records: tuple[Record, ...] = field(repr=False)

    def shown(self) -> dict[str, Any]:
        keys = sum(record.redis for record in self.records)
        told = {name: getattr(self, name) for name in ("name", "why", "state", "whole")}
        return told | {"at": self.wall, "files": len(self.records) - keys, "keys": keys}


@dataclass(frozen=True, slots=True)
class Shelf:
    """All removals of one backend."""

    root: Path

    def keep(self, remote: str, why: str, records: Sequence[Record], *, whole: bool) -> Removal:
        """Write them down and read them back; what was removed long ago is deleted."""
        self.sweep()
        wall = time.time()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall))
        names = (stamp, *(f"{stamp}.{number}" for number in range(2, 10_000)))
        name = next(name for name in names if not self._path(remote, name).exists())
        removal = Removal(name, remote, why[:200], wall, "begun", whole, tuple(records))
        self.write(removal)
        if _read(self._path(remote, name)) != removal:
            raise cannot("back up keys", f"{self._path(remote, name)} reads differently", "files")
        return removal

    def write(self, removal: Removal) -> None:
        raw = asdict(removal)
        for record in raw["records"]:
            record["content"] = base64.b64encode(record["content"]).decode()
        body, path = json.dumps(raw), self._path(removal.remote, removal.name)
        digest = hashlib.sha256(body.encode()).hexdigest()
        try:
            write_whole(path, f"{_FORMAT} {digest}\n{body}\n".encode())
        except OSError as error:
            raise cannot(f"write {path}", f"{error.strerror}", "files") from error

    def must_have_room(self, remote: str, records: Sequence[Record]) -> None:
        """EngineError where they cannot be backed up: asked before the session is taken down."""
        size = _ROOM + sum(_ROOM + 2 * len(record.content) for record in records)
        folder = self._path(remote, "").parent
        if shutil.disk_usage(folder).free < size:
            cause = f"{size // 1024} KiB are needed in {folder}; the session was not touched"
            raise cannot(f"back up the keys of {remote}", cause, "disk_full")

    def all(self, remote: str) -> list[Removal]:
        """Oldest first."""
        if not is_safe(remote) or not (self.root / remote).is_dir():
            return []
        paths = sorted((self.root / remote).glob("*.json"))
        return [removal for path in paths if (removal := _read(path)) is not None]

    def find(self, remote: str, name: object) -> Removal:
        """A removal that can be put back. What lies in the session's place after it was put back
        may be the live pairing, which nothing may move away for it again."""
        good = isinstance(name, str) and _NAME.fullmatch(name)
        removal = _read(self._path(remote, str(name))) if good else None
        if removal is None or removal.remote != remote:
            cause = "there is no such removal, or it is damaged"
            raise InvalidRequest(f"cannot put back {name!r:.40}: {cause}", field="name")
        if removal.state == "put_back":
            cause = "it was put back already, and nothing of the session was touched"
            raise cannot(f"put back {name}", cause, "put_back_already")
        return removal

    def sweep(self) -> None:
        folders = list(self.root.iterdir()) if self.root.is_dir() else []
        for removal in [removal for folder in folders for removal in self.all(folder.name)]:
            if time.time() - removal.wall > KEEP:
                self._path(removal.remote, removal.name).unlink(missing_ok=True)

    def _path(self, remote: str, name: str) -> Path:
        if not is_safe(remote):
            what = f"keep keys of {remote!r:.60}"
            raise cannot(what, "its name cannot name a folder", "remote_name")
        try:
            (self.root / remote).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise cannot(f"create {self.root / remote}", f"{error.strerror}", "files") from error
        return self.root / remote / f"{name}.json"


def _read(path: Path) -> Removal | None:
    """None: it is not whole."""
    try:
        with open_plain(path) as file:
            head, _, body = file.read(LARGEST).rstrip(b"\n").partition(b"\n")
        if head.decode() != f"{_FORMAT} {hashlib.sha256(body).hexdigest()}":
            return None
        raw = json.loads(body)
        for record in raw["records"]:
            record["content"] = base64.b64decode(record["content"], validate=True)
        removal = Removal(**{**raw, "records": tuple(Record(**it) for it in raw["records"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return removal if removal.name == path.stem else None


@dataclass(frozen=True, slots=True)
class FolderKeys:
    """`template`: /path/{id}. Names are the files' names."""

    template: str
    redis = False

    def path(self, id: str) -> Path:
        if not is_safe(id):
            what = f"find the keys of {id!r:.60}"
            raise cannot(what, "its name cannot name a folder", "remote_name")
        return Path(self.template.rstrip("/").replace("{id}", id))

    async def names(self, id: str) -> list[str]:
        return await in_thread(self._names, id)

    def _names(self, id: str) -> list[str]:
        if not os.path.lexists(self.path(id)):
            return []
        with _opened(self.path(id)) as fd, os.scandir(fd) as entries:
            # A link counts: it must be refused, not passed over.
            return sorted(it.name for it in entries if not it.is_dir(follow_symlinks=False))

    async def values(self, id: str, names: Sequence[str]) -> dict[str, bytes]:
        """What the files hold; those that are gone or unreadable are left out."""
        values: dict[str, bytes] = {}
        for name in names:
            with suppress(EngineError):
                values |= {it.name: it.content for it in await self.read(id, [name])}
        return values

    async def read(self, id: str, names: Sequence[str]) -> list[Record]:
        """Those that are there. EngineError: one is a link, a pipe, a giant, or unreadable."""
        return await in_thread(self._records, id, names)

    def _records(self, id: str, names: Sequence[str]) -> list[Record]:
        records = []
        with _opened(self.path(id)) as fd:
            for name in names:
                with suppress(FileNotFoundError):
                    records.append(_read_key(self.path(id), fd, name))
        return records

    async def remove(self, id: str, records: Sequence[Record]) -> None:
        """EngineError, before it goes, for one that is not as it was backed up."""
        await in_thread(self._remove, id, records)

    def _remove(self, id: str, records: Sequence[Record]) -> None:
        path = self.path(id)
        with _opened(path) as fd:
            for record in records:
                try:
                    if _read_key(path, fd, record.name).content != record.content:
                        cause = "it changed meanwhile, so the server still writes it"
                        raise cannot(f"remove a key of {path}", cause, "files")
                    os.unlink(record.name, dir_fd=fd)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise _failed("remove a key of", path, error) from error
            os.fsync(fd)

    async def restore(self, id: str, records: Sequence[Record]) -> None:
        """With owner and mode of before. The caller moved away what was in their place."""
        await in_thread(self._restore, id, records)

    def _restore(self, id: str, records: Sequence[Record]) -> None:
        path = self.path(id)
        try:
            if not path.exists():
                path.mkdir(mode=0o700)
                os.chown(path, records[0].uid, records[0].gid)
            with _opened(path) as fd:
                for record in records:
                    with replacement(fd, record.name, mode=record.mode) as file:
                        file.write(record.content)
                        os.fchown(file.fileno(), record.uid, record.gid)
        except OSError as error:
            raise _failed("put keys back into", path, error) from error


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A link in its place is refused."""
    try:
        fd = os.open(path, _DIRECTORY)
    except OSError as error:
        raise _failed("open", path, error) from error
    try:
        yield fd
    finally:
        os.close(fd)


def _read_key(folder: Path, fd: int, name: str) -> Record:
    """FileNotFoundError if it is gone."""
    try:
        with os.fdopen(os.open(name, _READ, dir_fd=fd), "rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(LARGEST_KEY + 1) if stat.S_ISREG(status.st_mode) else None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _failed("read a key of", folder, error) from error
    if content is None or len(content) > LARGEST_KEY:
        raise cannot(f"read a key of {folder}", "it is no file of keys", "files")
    mode = stat.S_IMODE(status.st_mode)
    return Record(name, content, mode=mode, uid=status.st_uid, gid=status.st_gid)


def _failed(verb: str, path: Path, error: OSError) -> EngineError:
    return cannot(f"{verb} {path}", (error.strerror or type(error).__name__).lower(), "files")


class RespError(Exception):
    """Redis answered with an error, or a key is not as it was backed up. Its first word is shown:
    NOAUTH, NOPERM, READONLY."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """An open connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, *commands: Command) -> list[Any]:
        """The answers in order, sent at once; the first error among them is raised."""
        self.writer.write(b"".join(map(_packed, commands)))
        answers = [await _answer(self.reader) for _ in commands]
        for answer in answers:
            if isinstance(answer, RespError):
                raise answer
        return answers


@dataclass(frozen=True, slots=True)
class RedisKeys:
    """Names are the keys behind the session's prefix. `pattern` ends with its only star.

    Each batch is watched, dumped again and compared in the transaction that deletes it, so only
    values that were backed up go.
    """

    url: str = field(repr=False)
    pattern: str = "sessions:{id}:*"
    timeout: float = 10.0
    ca_file: str = ""
    redis = True

    async def names(self, id: str) -> list[str]:
        prefix = self._prefix(id)
        return sorted({key.removeprefix(prefix) for key in await self._scan(prefix)})

    async def values(self, id: str, names: Sequence[str]) -> dict[str, bytes]:
        """The texts that are stored; other types, and keys that are gone, are left out."""
        values: list[bytes | None] = []
        async with self.talk("read the keys") as redis:
            for batch in _batches(names):
                [stored] = await redis.ask(["MGET", *(self._key(id, name) for name in batch)])
                values += stored
        return {n: it for n, it in zip(names, values, strict=True) if it is not None}

    async def read(self, id: str, names: Sequence[str]) -> list[Record]:
        """All that are there, of any type."""
        records = []
        async with self.talk("back up the keys") as redis:
            for batch in _batches(names):
                keys = [self._key(id, name) for name in batch]
                raw = await redis.ask(*((w, key) for key in keys for w in ("PTTL", "DUMP")))
                for name, ttl, dump in zip(batch, raw[::2], raw[1::2], strict=True):
                    if dump is not None:
                        records.append(Record(name, dump, redis=True, ttl=int(ttl)))
        return records

    async def remove(self, id: str, records: Sequence[Record]) -> None:
        """EngineError for one that is not as it was backed up."""
        async with self.talk("delete the keys") as redis:
            for batch in _batches(records):
                keys = [self._key(id, record.name) for record in batch]
                await redis.ask(["WATCH", *keys])
                stored = await redis.ask(*(("DUMP", key) for key in keys))
                same = all(now in (it.content, None) for it, now in zip(batch, stored, strict=True))
                if not same or (await redis.ask(["MULTI"], ["DEL", *keys], ["EXEC"]))[-1] is None:
                    raise RespError("CHANGED")

    async def restore(self, id: str, records: Sequence[Record]) -> None:
        """The caller moved away what was in their place."""
        async with self.talk("put the keys back") as redis:
            for batch in _batches(records):
                await redis.ask(
                    *(("RESTORE", self._key(id, r.name), max(r.ttl, 0), r.content) for r in batch)
                )

    def _prefix(self, id: str) -> str:
        return self.pattern[:-1].replace("{id}", id)

    def _key(self, id: str, name: str) -> bytes:
        return os.fsencode(self._prefix(id) + name)

    async def _scan(self, prefix: str) -> list[str]:
        match, cursor, found = os.fsencode(_GLOB.sub(r"\\\1", prefix) + "*"), b"0", []
        async with self.talk("list the keys") as redis:
            while True:  # not KEYS: it would block all other clients of this Redis
                [[cursor, keys]] = await redis.ask(["SCAN", cursor, "MATCH", match, "COUNT", 500])
                found += [os.fsdecode(key) for key in keys]
                if cursor == b"0":
                    return [key for key in found if key.startswith(prefix)]

    @asynccontextmanager
    async def talk(self, what: str) -> AsyncIterator[Conversation]:
        parts, writer = urlsplit(self.url), None
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if parts.password is None:
            user, password = "", user  # redis-cli reads the only word before the @ as the password
        path = unquote(parts.path)
        try:
            async with asyncio.timeout(self.timeout * 3):
                if parts.scheme == "unix":
                    reader, writer = await asyncio.open_unix_connection(path, limit=LARGEST_ANSWER)
                    path = ""
                else:
                    tls = ssl.create_default_context(cafile=self.ca_file or None)
                    reader, writer = await asyncio.open_connection(
                        *(parts.hostname, parts.port or 6379),
                        ssl=tls if parts.scheme == "rediss" else None,
                        limit=LARGEST_ANSWER,
                    )
                redis = Conversation(reader, writer)
                if password:
                    await redis.ask(["AUTH", *([user] if user else []), password])
                await redis.ask(
                    ["SELECT", dict(parse_qsl(parts.query)).get("db") or path[1:] or "0"]
                )
                yield redis
        except (RespError, OSError, EOFError, ValueError) as error:
            # Redis' own words may have a key's value or the password.
            cause = "no connection to Redis"
            if isinstance(error, RespError):
                cause = f"Redis answers {str(error).split(' ', 1)[0][:20]}"
            elif isinstance(error, TimeoutError):
                cause = f"no answer from Redis within {self.timeout * 3:g} s"
            raise cannot(what, cause, "redis") from None
        finally:
            if writer is not None:
                writer.close()


def _batches(all: Sequence[Any]) -> list[Sequence[Any]]:
    return [all[at : at + _BATCH] for at in range(0, len(all), _BATCH)]


def _packed(command: Command) -> bytes:
    words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
    parts = [b"*%d\r\n" % len(words)]
    return b"".join(parts + [b"$%d\r\n%s\r\n" % (len(word), word) for word in words])


async def _answer(reader: asyncio.StreamReader) -> Any:
    line = await reader.readuntil(b"\r\n")
    kind, rest = line[:1], line[1:-2]
    if kind == b"+":
        return rest.decode("utf-8", "replace")
    if kind == b"-":
        return RespError(rest.decode("utf-8", "replace"))
    count = int(rest)  # ValueError: it is not Redis
    if kind == b"$" and count <= LARGEST_ANSWER:
        return None if count < 0 else (await reader.readexactly(count + 2))[:-2]
    if kind == b"*":
        return None if count < 0 else [await _answer(reader) for _ in range(count)]
    return count


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

    async def all(self, id: str) -> list[Key]:
        return [(store.redis, name) for store in self.stores for name in await store.names(id)]

    async def plan(self, id: str, peers: Sequence[str], *, damaged: bool) -> list[Key]:
        """The records of these peers; where they have none, or with `damaged`, also those that
        Baileys cannot use."""
        plan: list[Key] = []
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
            plan += [(store.redis, name) for name in sorted(names)]
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

    async def must_be_possible(self, id: str, plan: Collection[Key]) -> None:
        """EngineError where it cannot be backed up: asked before the session is taken down."""
        await in_thread(self.shelf.must_have_room, id, await self._read(id, plan))

    async def _read(self, id: str, plan: Collection[Key]) -> list[Record]:
        records: list[Record] = []
        for store in self.stores:
            if names := [name for redis, name in plan if redis == store.redis]:
                records += await store.read(id, names)
        return records

    async def take_out(
        self, id: str, plan: Collection[Key], why: str, *, whole: bool = False
    ) -> Removal:
        """Nothing goes that was not backed up. `whole`: all keys of the session go."""
        removal = await self.copy(id, plan, why, whole=whole)
        for store in self.stores:
            await store.remove(id, [it for it in removal.records if it.redis == store.redis])
        return await self._note(removal, "done")

    async def copy(self, id: str, plan: Collection[Key], why: str, *, whole: bool) -> Removal:
        records = await self._read(id, plan)
        return await in_thread(self.shelf.keep, id, why, records, whole=whole)

    async def in_the_way(self, id: str, removal: Removal) -> list[Key]:
        """What must go before that removal can come back: other records of the same names, and of
        a whole one all others."""
        kept = {it.key: it.content for it in removal.records}
        plan = [key for key in await self.all(id) if removal.whole or key in kept]
        return [r.key for r in await self._read(id, plan) if kept.get(r.key) != r.content]

    async def put_back(self, id: str, removal: Removal) -> None:
        """The session is down, and what was in the way is gone. What is back already stays."""
        there = set(await self.all(id))
        missing = [it for it in removal.records if it.key not in there]
        for store in self.stores:
            if records := [it for it in missing if it.redis == store.redis]:
                await store.restore(id, records)
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
