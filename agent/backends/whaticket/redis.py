"""A session's keys in Redis, by its own protocol (RESP 2); a connection for each piece of work.

Each batch is watched, dumped again and compared in the transaction that deletes it, so only values
that were backed up go. No error has a key's value or the address' password.
"""

import asyncio
import os
import re
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from agent.backends.whaticket.contract import cannot
from agent.backends.whaticket.shelf import Record

LARGEST = 64 << 20
_BATCH = 100
_GLOB = re.compile(r"([*?\[\]\\^-])")
Command = Sequence[bytes | str | int]


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
    """Names are the keys behind the session's prefix. `pattern` ends with its only star."""

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
                    reader, writer = await asyncio.open_unix_connection(path, limit=LARGEST)
                    path = ""
                else:
                    tls = ssl.create_default_context(cafile=self.ca_file or None)
                    reader, writer = await asyncio.open_connection(
                        *(parts.hostname, parts.port or 6379),
                        ssl=tls if parts.scheme == "rediss" else None,
                        limit=LARGEST,
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
    if kind == b"$" and count <= LARGEST:
        return None if count < 0 else (await reader.readexactly(count + 2))[:-2]
    if kind == b"*":
        return None if count < 0 else [await _answer(reader) for _ in range(count)]
    return count
