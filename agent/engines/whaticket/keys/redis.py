"""A session's keys in Redis: found by SCAN, backed up, deleted, put back.

Only what was backed up as it stands is deleted: each batch is watched, dumped again and
compared in the same transaction.
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

import redis.asyncio as redis
from redis import exceptions as wrong
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from agent.engines.whaticket.keys.peers import Peers, mappings_of, with_mapped
from agent.errors import ConfigError, EngineError

_BATCH = 100
_PER_SCAN = 500
_GLOB = re.compile(r"([*?\[\]\\^-])")


@dataclass(frozen=True, slots=True)
class KeptKey:
    key: str
    """As it is named, `surrogateescape` for what is no UTF-8."""
    kind: str
    ttl: int
    """Milliseconds left; -1 = for ever."""
    dump: bytes = field(repr=False)
    """Redis' own form, for RESTORE."""


class RedisKeys:
    """`pattern` ends with its only star: `sessions:{id}:*`. Used inside one loop."""

    def __init__(self, url: str, pattern: str, timeout: float) -> None:
        self._before, self._after = pattern[:-1].split("{id}")
        self._timeout = timeout
        try:
            self._client: Any = redis.from_url(
                url,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 0),
                max_connections=8,
                decode_responses=False,
                protocol=2,  # the older greeting, so that a refusal is told as what it is
            )
        except (ValueError, TypeError) as error:
            raise ConfigError(
                "cannot use backend setting 'redis_url': no address of a Redis", field="redis_url"
            ) from error

    async def close(self) -> None:
        await self._client.aclose()

    def prefix(self, id: str) -> str:
        return f"{self._before}{id}{self._after}"

    async def look(self, id: str) -> str:
        """absent, unpaired, paired or damaged, by the creds."""
        async with self._explained("look at the keys"):
            raw = await self._client.get(_raw(self.prefix(id) + "creds"))
        if raw is None:
            return "absent"
        try:
            told = json.loads(raw)
        except (ValueError, RecursionError):
            return "damaged"
        if not isinstance(told, dict):
            return "damaged"
        me = told.get("me")
        return "paired" if isinstance(me, dict) and me.get("id") else "unpaired"

    async def holding(self, ids: Sequence[str], address: str) -> list[str]:
        """Which of these sessions have talked with that address."""
        async with self._explained("look for a peer's keys"):
            pipe = self._client.pipeline(transaction=False)
            for id in ids:
                pipe.exists(_raw(f"{self.prefix(id)}session-{address}"))
            told = await pipe.execute() if ids else []
        return [id for id, there in zip(ids, told, strict=True) if there]

    async def other_names(self, id: str, users: Iterable[str]) -> Peers:
        users = frozenset(users)
        keys = [self.prefix(id) + name for user in users for name in mappings_of(user)]
        async with self._explained("read the names of a peer"):
            values = await self._client.mget([_raw(key) for key in keys]) if keys else []
        return with_mapped(users, [_text_in(value) for value in values])

    async def names(self, id: str, peers: Peers | None = None) -> list[str]:
        """Whole keys: of these peers, or all of the session's."""
        prefix, found = self.prefix(id), set()
        match = _raw(_GLOB.sub(r"\\\1", prefix) + "*")
        async with self._explained("list the keys"):
            async for raw in self._client.scan_iter(match=match, count=_PER_SCAN):
                key = raw.decode("utf-8", "surrogateescape")
                name = key.removeprefix(prefix)
                if key.startswith(prefix) and (peers is None or peers.owns(name)):
                    found.add(key)
        return sorted(found)

    async def read(self, keys: Sequence[str]) -> list[KeptKey]:
        """All of them, whatever they hold; what is gone by now is left out."""
        found = []
        async with self._explained("back up the keys"):
            for batch in _batches(keys):
                pipe = self._client.pipeline(transaction=False)
                for key in batch:
                    pipe.type(_raw(key)).pttl(_raw(key)).dump(_raw(key))
                told = await pipe.execute()
                for at, key in enumerate(batch):
                    kind, ttl, dump = told[3 * at : 3 * at + 3]
                    if dump is not None:
                        found.append(KeptKey(key, kind.decode(), int(ttl), dump))
        return found

    async def delete(self, kept: Sequence[KeptKey]) -> None:
        """Only what is still as it was backed up; EngineError otherwise."""
        async with self._explained("delete the keys"):
            for batch in _batches(kept):
                names = [_raw(each.key) for each in batch]
                async with self._client.pipeline(transaction=True) as pipe:
                    await pipe.watch(*names)
                    for each, name in zip(batch, names, strict=True):
                        if await pipe.dump(name) not in (each.dump, None):
                            raise wrong.WatchError("changed")
                    pipe.multi()
                    pipe.delete(*names)
                    await pipe.execute()

    async def present(self, keys: Sequence[str]) -> list[str]:
        async with self._explained("look at the keys"):
            pipe = self._client.pipeline(transaction=False)
            for key in keys:
                pipe.exists(_raw(key))
            told = await pipe.execute() if keys else []
        return [key for key, there in zip(keys, told, strict=True) if there]

    async def restore(self, kept: Sequence[KeptKey]) -> None:
        """Back as they were; one that is there again is refused, before any is written."""
        if there := await self.present([each.key for each in kept]):
            raise EngineError(
                f"cannot put back {len(kept)} keys: {len(there)} are there again", code="redis"
            )
        async with self._explained("put the keys back"):
            for batch in _batches(kept):
                pipe = self._client.pipeline(transaction=True)
                for each in batch:
                    pipe.restore(_raw(each.key), max(each.ttl, 0), each.dump)
                await pipe.execute()

    @asynccontextmanager
    async def _explained(self, what: str) -> AsyncIterator[None]:
        """Redis' errors in our words: theirs may hold a key's value or the address' password."""
        try:
            async with asyncio.timeout(max(self._timeout * 3, 1.0)):
                yield
        except (wrong.RedisError, OSError, TimeoutError, ValueError) as error:
            raise EngineError(
                f"cannot {what}: {_cause(error, self._timeout)}", code="redis"
            ) from None


def render_keys(kept: Sequence[KeptKey]) -> bytes:
    told = [
        {
            "key": base64.b64encode(_raw(each.key)).decode(),
            "kind": each.kind,
            "ttl": each.ttl,
            "dump": base64.b64encode(each.dump).decode(),
            "sha256": hashlib.sha256(each.dump).hexdigest(),
        }
        for each in kept
    ]
    return json.dumps(told, indent=1).encode() + b"\n"


def parse_keys(raw: bytes) -> list[KeptKey]:
    """ValueError where it is not what `render_keys` wrote."""
    found = []
    try:
        for told in json.loads(raw):
            key = base64.b64decode(told["key"], validate=True)
            dump = base64.b64decode(told["dump"], validate=True)
            if hashlib.sha256(dump).hexdigest() != told["sha256"]:
                raise ValueError("a checksum is wrong")
            name = key.decode("utf-8", "surrogateescape")
            found.append(KeptKey(name, str(told["kind"]), int(told["ttl"]), dump))
    except (KeyError, TypeError) as error:
        raise ValueError("it is no backup of keys") from error
    return found


def _raw(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _text_in(raw: bytes | None) -> object:
    try:
        return json.loads(raw) if raw is not None else None
    except (ValueError, RecursionError):
        return None


def _batches(all: Sequence[Any]) -> list[Sequence[Any]]:
    return [all[at : at + _BATCH] for at in range(0, len(all), _BATCH)]


def _cause(error: Exception, timeout: float) -> str:
    # A refused password or a timeout while connecting comes wrapped in a plain ConnectionError.
    inner: BaseException | None = error
    while type(inner) is wrong.ConnectionError and isinstance(inner.__cause__, wrong.RedisError):
        inner = inner.__cause__
    match inner:
        case wrong.WatchError():
            return "they changed meanwhile, so the server still writes them"
        case wrong.AuthenticationError():
            return "Redis refuses the password, or asks for one"
        case wrong.NoPermissionError():
            return "Redis does not allow this user to do it"
        case wrong.TimeoutError() | TimeoutError():
            return f"no answer from Redis within {timeout:g} s"
        case wrong.BusyLoadingError():
            return "Redis is still loading its data"
        case wrong.ReadOnlyError():
            return "this Redis is a copy that takes no changes"
        case wrong.ConnectionError() | OSError():
            return "no connection to Redis"
        case wrong.ResponseError():
            word = str(inner).split(" ", 1)[0]
            return f"Redis answers {word if word.isupper() and len(word) < 20 else 'an error'}"
        case _:
            return f"Redis: {type(inner).__name__}"
