"""A session's keys in Redis, spoken to by its own protocol (RESP 2); a connection for each piece
of work.

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

from agent.backends.whaticket.shelf import Record
from agent.errors import ConfigError, EngineError

LARGEST = 64 << 20
_BATCH = 100
_GLOB = re.compile(r"([*?\[\]\\^-])")
Command = Sequence[bytes | str | int]
_WORDS = {
    "NOAUTH": "Redis refuses the password, or asks for one",
    "WRONGPASS": "Redis refuses the password, or asks for one",
    "NOPERM": "Redis does not allow this user to do it (`ACL SETUSER` gives the right)",
    "LOADING": "Redis is still loading its data",
    "READONLY": "this Redis is a copy that takes no changes",
}


class RespError(Exception):
    """Redis answered with an error; `word` is its first one: WRONGTYPE, NOAUTH, ERR."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.word = text.split(" ", 1)[0]


class _Changed(Exception):
    """A key is not as it was backed up."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """An open connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, *commands: Command) -> list[Any]:
        """The answers in order, sent at once; the first error among them is raised."""
        self.writer.write(b"".join(map(_packed, commands)))
        await self.writer.drain()
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

    def __post_init__(self) -> None:
        """ConfigError for a URL that cannot be used, without its password."""
        parts = urlsplit(self.url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if port == 0 or not self._database.isdecimal() or not (parts.path or parts.hostname):
            cause = "it must be like redis://HOST:PORT/DATABASE or unix:///PATH?db=DATABASE"
            words = f"cannot use backend setting 'redis_url': {cause}"
            raise ConfigError(words, field="redis_url")

    @property
    def _database(self) -> str:
        parts = urlsplit(self.url)
        path = "" if parts.scheme == "unix" else parts.path.strip("/")
        return dict(parse_qsl(parts.query)).get("db") or path or "0"

    async def ping(self) -> None:
        async with self._talk("reach Redis") as redis:
            await redis.ask(["PING"])

    async def ids(self) -> list[str]:
        """All sessions that have keys."""
        before, after = self.pattern[:-1].split("{id}")
        ids = set()
        for key in await self._scan(before):
            id, found, rest = key.removeprefix(before).partition(after)
            ids |= {id} if id and found and rest else set()
        return sorted(ids)

    async def names(self, id: str) -> list[str]:
        prefix = self._prefix(id)
        return sorted({key.removeprefix(prefix) for key in await self._scan(prefix)})

    async def values(self, id: str, names: Sequence[str]) -> dict[str, bytes]:
        """What is stored; those that are gone are left out, and what is no text is empty."""
        values: dict[str, bytes] = {}
        async with self._talk("read the keys") as redis:
            for batch in _batches(names):
                keys = [self._key(id, name) for name in batch]
                [stored] = await redis.ask(["MGET", *keys])
                kinds = await redis.ask(*(("TYPE", key) for key in keys))
                for name, value, kind in zip(batch, stored, kinds, strict=True):
                    if value is not None or kind not in ("none", "string"):
                        values[name] = value or b""
        return values

    async def read(self, id: str, names: Sequence[str]) -> list[Record]:
        """All that are there, of any type."""
        records = []
        async with self._talk("back up the keys") as redis:
            for batch in _batches(names):
                keys = [self._key(id, name) for name in batch]
                raw = await redis.ask(*((w, key) for key in keys for w in ("PTTL", "DUMP")))
                for name, ttl, dump in zip(batch, raw[::2], raw[1::2], strict=True):
                    if dump is not None:
                        records.append(Record(name, dump, redis=True, ttl=int(ttl)))
        return records

    async def remove(self, id: str, records: Sequence[Record]) -> None:
        """EngineError for one that is not as it was backed up."""
        async with self._talk("delete the keys") as redis:
            for batch in _batches(records):
                keys = [self._key(id, record.name) for record in batch]
                await redis.ask(["WATCH", *keys])
                stored = await redis.ask(*(("DUMP", key) for key in keys))
                for record, now in zip(batch, stored, strict=True):
                    if now not in (record.content, None):
                        raise _Changed
                *_, done = await redis.ask(["MULTI"], ["DEL", *keys], ["EXEC"])
                if done is None:
                    raise _Changed

    async def restore(self, id: str, records: Sequence[Record]) -> None:
        """The caller moved away what was in their place."""
        async with self._talk("put the keys back") as redis:
            for batch in _batches(records):
                back = [("RESTORE", self._key(id, r.name), max(r.ttl, 0), r.content) for r in batch]
                *_, done = await redis.ask(["MULTI"], *back, ["EXEC"])
                for answer in done or ():
                    if isinstance(answer, RespError):
                        raise answer

    async def must_be_allowed(self, id: str, records: Sequence[Record], *, back: bool) -> None:
        """EngineError where this user may not delete those keys, or (`back`) write them. Redis
        looks at the rights when a transaction is made; none of it is carried out."""
        words = ("DUMP", "DEL", *(("RESTORE",) if back else ()))
        async with self._talk("change the keys") as redis:
            for batch in _batches(records):
                keys = [self._key(id, record.name) for record in batch]
                wanted = [
                    (word, key, *((0, "") if word == "RESTORE" else ()))
                    for key in keys
                    for word in words
                ]
                await redis.ask(["WATCH", keys[0]])
                await redis.ask(["MULTI"])  # refused, the rest would be carried out
                await redis.ask(*wanted, ["DISCARD"])

    def _prefix(self, id: str) -> str:
        return self.pattern[:-1].replace("{id}", id)

    def _key(self, id: str, name: str) -> bytes:
        return os.fsencode(self._prefix(id) + name)

    async def _scan(self, prefix: str) -> list[str]:
        match, cursor, found = os.fsencode(_GLOB.sub(r"\\\1", prefix) + "*"), b"0", []
        async with self._talk("list the keys") as redis:
            while True:  # not KEYS: it would block all other clients of this Redis
                [[cursor, keys]] = await redis.ask(["SCAN", cursor, "MATCH", match, "COUNT", 500])
                found += [os.fsdecode(key) for key in keys]
                if cursor == b"0":
                    return [key for key in found if key.startswith(prefix)]

    @asynccontextmanager
    async def _talk(self, what: str) -> AsyncIterator[Conversation]:
        """Redis' errors in our words: theirs may have a key's value or the password."""
        try:
            async with asyncio.timeout(self.timeout * 3), self._connected() as redis:
                yield redis
        except (RespError, _Changed, OSError, EOFError, ValueError) as error:
            cause = _cause(error, self.timeout * 3)
            raise EngineError(f"cannot {what}: {cause}", code="redis") from None

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Conversation]:
        parts = urlsplit(self.url)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if parts.password is None:
            user, password = "", user  # redis-cli reads the only word before the @ as the password
        async with asyncio.timeout(self.timeout):
            if parts.scheme == "unix":
                path = unquote(parts.path)
                reader, writer = await asyncio.open_unix_connection(path, limit=LARGEST)
            else:
                host, port = parts.hostname or "localhost", parts.port or 6379
                tls = ssl.create_default_context() if parts.scheme == "rediss" else None
                if tls is not None and self.ca_file:
                    tls.load_verify_locations(self.ca_file)
                reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=LARGEST)
        try:
            redis = Conversation(reader, writer)
            if password:
                await redis.ask(["AUTH", *([user] if user else []), password])
            await redis.ask(["SELECT", self._database])
            yield redis
        finally:
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
    match kind:
        case b"+":
            return rest.decode("utf-8", "replace")
        case b"-":
            return RespError(rest.decode("utf-8", "replace"))
        case b":":
            return int(rest)
        case b"$" if (length := int(rest)) <= LARGEST:
            return None if length < 0 else (await reader.readexactly(length + 2))[:-2]
        case b"*":
            count = int(rest)
            return None if count < 0 else [await _answer(reader) for _ in range(count)]
        case _:
            raise ValueError("the answer is not Redis'")


def _cause(error: Exception, timeout: float) -> str:
    match error:
        case _Changed():
            return "they changed meanwhile, so the server still writes them"
        case RespError(word=word) if word in _WORDS:
            return _WORDS[word]
        case RespError(word=word):
            auth = "AUTH" in str(error)  # the words of a Redis without users or password
            answers = f"Redis answers {word if word.isupper() and len(word) < 20 else 'an error'}"
            return "Redis refuses the password, or has none" if auth else answers
        case TimeoutError():
            return f"no answer from Redis within {timeout:g} s"
        case ValueError():
            return "the program that answers is not Redis"
        case _:
            return "no connection to Redis"
