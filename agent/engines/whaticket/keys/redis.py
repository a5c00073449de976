"""A session's keys in Redis: found by SCAN, backed up, deleted, put back. Each batch is watched,
dumped again and compared in the transaction that deletes it, so only backed-up values are deleted.
"""

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from agent.engines.whaticket.keys.damage import is_record, own_users, state_of_creds, worth_reading
from agent.engines.whaticket.keys.peers import Peers, mappings_of, with_mapped
from agent.engines.whaticket.keys.resp import Command, Resp, RespError, read_address
from agent.errors import ConfigError, EngineError

_BATCH = 100
_PER_SCAN = 500
_NO_RECORD = ("none", "string")
_GLOB = re.compile(r"([*?\[\]\\^-])")


@dataclass(frozen=True, slots=True)
class KeyDump:
    key: str
    """The key's name; bytes that are not UTF-8 as `surrogateescape` writes them."""
    kind: str
    ttl: int
    """Milliseconds left; -1 = for ever."""
    dump: bytes = field(repr=False)
    """Redis' own form, for RESTORE."""


class RedisKeys:
    """`pattern` ends with its only star: `sessions:{id}:*`. Used inside one loop."""

    def __init__(self, url: str, pattern: str, timeout: float, ca_file: str = "") -> None:
        self._before, self._after = pattern[:-1].split("{id}")
        self._timeout = timeout
        try:
            self.resp = Resp(read_address(url), timeout, ca_file)
        except ValueError as error:
            raise ConfigError(
                f"cannot use backend setting 'redis_url': {error}", field="redis_url"
            ) from error

    async def close(self) -> None:
        await self.resp.close()

    async def ping(self) -> None:
        """EngineError where Redis cannot be reached or refuses us."""
        async with self._explained("reach Redis"):
            await self.resp.ask(["PING"])

    def prefix(self, id: str) -> str:
        return f"{self._before}{id}{self._after}"

    async def look(self, id: str) -> str:
        """absent, unpaired, paired or damaged, by the creds."""
        creds = await self._creds(id)
        return "absent" if creds is None else state_of_creds(creds)

    async def own_users(self, id: str) -> frozenset[str]:
        return own_users(await self._creds(id) or b"")

    async def _creds(self, id: str) -> bytes | None:
        async with self._explained("look at the keys"):
            [raw] = await self.resp.ask(["GET", _raw(self.prefix(id) + "creds")])
        return None if raw is None else bytes(raw)

    async def holding(self, ids: Sequence[str], address: str) -> list[str]:
        """Which of these sessions have talked with that address."""
        async with self._explained("look for a peer's keys"):
            names = [_raw(f"{self.prefix(id)}session-{address}") for id in ids]
            counts = await self.resp.ask(*(("EXISTS", name) for name in names))
        return [id for id, there in zip(ids, counts, strict=True) if there]

    async def other_names(self, id: str, users: Iterable[str]) -> Peers:
        users = frozenset(users)
        keys = [self.prefix(id) + name for user in users for name in mappings_of(user)]
        async with self._explained("read the names of a peer"):
            raw = await self.resp.ask(["MGET", *map(_raw, keys)]) if keys else [[]]
            values = raw[0]
        return with_mapped(users, [_text_in(value) for value in values])

    async def names(self, id: str, peers: Peers | None = None) -> list[str]:
        """Whole keys: of these peers, or all of the session's."""
        prefix = self.prefix(id)
        async with self._explained("list the keys"):
            keys = [key async for key in self._scan(prefix)]
        return sorted({k for k in keys if peers is None or peers.owns(k.removeprefix(prefix))})

    async def ids(self) -> list[str]:
        """Every session that has keys here."""
        ids = set()
        async with self._explained("list the sessions"):
            async for key in self._scan(self._before):
                id, after, _ = key.removeprefix(self._before).partition(self._after)
                if id and after:
                    ids.add(id)
        return sorted(ids)

    async def damaged(self, id: str) -> list[str]:
        """Whole keys whose value is no record that Baileys can use, read twice."""
        prefix = self.prefix(id)
        keys = [key for key in await self.names(id) if worth_reading(key.removeprefix(prefix))]
        for _ in range(2):
            values = [value async for value in self._values(keys)]
            keys = [key for key, raw in values if not is_record(key.removeprefix(prefix), raw)]
        return keys

    async def _values(self, keys: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
        """Each key with what is stored under it: `null` = nothing, no bytes = no text at all."""
        for batch in _batches(keys):
            async with self._explained("read the keys"):
                [stored] = await self.resp.ask(["MGET", *map(_raw, batch)])
                # MGET answers the same for an absent key and for one of another type.
                unread = [key for key, raw in zip(batch, stored, strict=True) if raw is None]
                kinds = await self.resp.ask(*(("TYPE", _raw(key)) for key in unread))
            strange = {k for k, kind in zip(unread, kinds, strict=True) if kind not in _NO_RECORD}
            for key, raw in zip(batch, stored, strict=True):
                yield key, raw if raw is not None else b"" if key in strange else b"null"

    async def _scan(self, prefix: str) -> AsyncIterator[str]:
        match, cursor = _raw(_GLOB.sub(r"\\\1", prefix) + "*"), b"0"
        while True:
            # Not KEYS: it would block all other clients of this Redis.
            [[cursor, keys]] = await self.resp.ask(
                ["SCAN", cursor, "MATCH", match, "COUNT", _PER_SCAN]
            )
            for raw in keys:
                key = raw.decode("utf-8", "surrogateescape")
                if key.startswith(prefix):
                    yield key
            if cursor == b"0":
                return

    async def read(self, keys: Sequence[str]) -> list[KeyDump]:
        """All of them, whatever they hold; what is gone by now is left out."""
        dumps = []
        async with self._explained("back up the keys"):
            for batch in _batches(keys):
                raw = await self.resp.ask(
                    *((word, _raw(key)) for key in batch for word in ("TYPE", "PTTL", "DUMP"))
                )
                for at, key in enumerate(batch):
                    kind, ttl, dump = raw[3 * at : 3 * at + 3]
                    if dump is not None:
                        dumps.append(KeyDump(key, kind, int(ttl), dump))
        return dumps

    async def delete(self, dumps: Sequence[KeyDump]) -> None:
        """Only what is still as it was backed up; EngineError otherwise."""
        async with self._explained("delete the keys"):
            for batch in _batches(dumps):
                names = [_raw(k.key) for k in batch]
                async with self.resp.turn() as redis:
                    await redis.ask(["WATCH", *names])
                    stored = await redis.ask(*(("DUMP", name) for name in names))
                    if any(now not in (k.dump, None) for k, now in zip(batch, stored, strict=True)):
                        raise _Changed
                    *_, done = await redis.ask(["MULTI"], ["DEL", *names], ["EXEC"])
                    if done is None:
                        raise _Changed

    async def must_be_allowed(self, keys: Sequence[str], back: Sequence[str] = ()) -> None:
        """EngineError where this user may not delete those keys, or write those `back`. Redis looks
        at the rights when a transaction is made; none of it is carried out."""
        wanted: list[Command] = [("DUMP", _raw(key)) for key in keys]
        wanted += [("DEL", _raw(key)) for key in keys]
        wanted += [("RESTORE", _raw(key), 0, "") for key in back]
        async with self._explained("delete the keys"):
            for batch in _batches(wanted):
                async with self.resp.turn() as redis:
                    await redis.ask(["WATCH", batch[0][1]])
                    await redis.ask(["MULTI"])  # refused, the rest would be carried out
                    await redis.ask(*batch, ["DISCARD"])

    async def present(self, keys: Sequence[str]) -> list[str]:
        async with self._explained("look at the keys"):
            counts = await self.resp.ask(*(("EXISTS", _raw(key)) for key in keys))
        return [key for key, there in zip(keys, counts, strict=True) if there]

    async def restore(self, dumps: Sequence[KeyDump]) -> None:
        """Back as they were; one that is there again is refused, before any is written."""
        if there := await self.present([k.key for k in dumps]):
            raise EngineError(
                f"cannot put back {len(dumps)} keys: {len(there)} exist again", code="redis"
            )
        async with self._explained("put the keys back"):
            for batch in _batches(dumps):
                back = (("RESTORE", _raw(k.key), max(k.ttl, 0), k.dump) for k in batch)
                *_, done = await self.resp.ask(["MULTI"], *back, ["EXEC"])
                for answer in done or ():
                    if isinstance(answer, RespError):
                        raise answer

    @asynccontextmanager
    async def _explained(self, what: str) -> AsyncIterator[None]:
        """Redis' errors in our words: theirs may hold a key's value or the address' password."""
        try:
            async with asyncio.timeout(max(self._timeout * 3, 1.0)):
                yield
        except (RespError, _Changed, OSError, EOFError, ValueError) as error:
            raise EngineError(
                f"cannot {what}: {_cause(error, self._timeout)}", code="redis"
            ) from None


def render_keys(dumps: Sequence[KeyDump]) -> bytes:
    raw = [
        {
            "key": base64.b64encode(_raw(k.key)).decode(),
            "kind": k.kind,
            "ttl": k.ttl,
            "dump": base64.b64encode(k.dump).decode(),
            "sha256": hashlib.sha256(k.dump).hexdigest(),
        }
        for k in dumps
    ]
    return json.dumps(raw, indent=1).encode() + b"\n"


def parse_keys(raw: bytes) -> list[KeyDump]:
    """ValueError where it is not what `render_keys` wrote."""
    dumps = []
    try:
        for entry in json.loads(raw):
            key = base64.b64decode(entry["key"], validate=True)
            dump = base64.b64decode(entry["dump"], validate=True)
            if hashlib.sha256(dump).hexdigest() != entry["sha256"]:
                raise ValueError("a checksum is wrong")
            name = key.decode("utf-8", "surrogateescape")
            dumps.append(KeyDump(name, str(entry["kind"]), int(entry["ttl"]), dump))
    except (KeyError, TypeError) as error:
        raise ValueError("it is no backup of keys") from error
    return dumps


def _raw(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _text_in(raw: bytes | None) -> object:
    try:
        return json.loads(raw) if raw is not None else None
    except (ValueError, RecursionError):
        return None


def _batches(all: Sequence[Any]) -> list[Sequence[Any]]:
    return [all[at : at + _BATCH] for at in range(0, len(all), _BATCH)]


class _Changed(Exception):
    """A key is not as it was backed up."""


_WORDS = {
    "NOAUTH": "Redis refuses the password, or asks for one",
    "WRONGPASS": "Redis refuses the password, or asks for one",
    "NOPERM": "Redis does not allow this user to do it (`ACL SETUSER` gives the right)",
    "LOADING": "Redis is still loading its data",
    "READONLY": "this Redis is a copy that takes no changes",
}


def _cause(error: Exception, timeout: float) -> str:
    match error:
        case _Changed():
            return "they changed meanwhile, so the server still writes them"
        case RespError(word=word) if word in _WORDS:
            return _WORDS[word]
        case RespError() if "AUTH" in str(error):
            # The words of a Redis without users, or of one without a password.
            return "Redis refuses the password, or has none"
        case RespError(word=word):
            return f"Redis answers {word if word.isupper() and len(word) < 20 else 'an error'}"
        case TimeoutError():
            return f"no answer from Redis within {timeout:g} s"
        case ValueError():
            return "the program that answers is not Redis"
        case _:
            return "no connection to Redis"
