"""Sessions in Redis: whaticket forks (`sessions:ID:*`) and Evolution API (`PREFIX:instance:ID`)."""

import asyncio
from collections.abc import Mapping
from typing import Any

from agent.engines.whaticket.keys.redis import RedisKeys
from agent.engines.whaticket.keys.resp import Command, RespError
from agent.errors import EngineError, InvalidRequest
from agent.vault.archives.found import FoundSession
from agent.wings.moving.session import CREDS, Keys, look_at
from agent.wings.moving.users import used_by

_TIMEOUT = 10.0
_BATCH = 200
_HASHES = b"*:instance:*"


def find_in_redis(url: str, pattern: str) -> list[FoundSession]:
    return asyncio.run(_find(url, pattern))


def hash_keys(url: str, id: str) -> Keys:
    """The keys of one instance of Evolution API."""
    return asyncio.run(_hash_of(url, id))


async def _find(url: str, pattern: str) -> list[FoundSession]:
    if not pattern.endswith("*") or pattern.count("{id}") != 1:
        raise InvalidRequest(
            f"cannot use the key pattern {pattern!r}: it has one {{id}} and ends with *",
            field="pattern",
        )
    redis = RedisKeys(url, pattern, _TIMEOUT)
    try:
        user = await _others(redis)
        sessions = []
        for id in await redis.ids():
            keys = await _strings(redis, id)
            sessions.append(_looked_at("whaticket", id, keys, user))
        for name in await _hashes(redis):
            keys = await _hash(redis, name)
            if CREDS in keys:
                id = name.rpartition(b":")[2].decode("utf-8", "replace")
                sessions.append(_looked_at("Evolution API", id, keys, user))
        return sessions
    finally:
        await redis.close()


def _looked_at(program: str, name: str, keys: Keys, user: str) -> FoundSession:
    return look_at(program, name, lambda: keys, written=None, in_use=used_by(user))


async def _hash_of(url: str, id: str) -> Keys:
    redis = RedisKeys(url, "sessions:{id}:*", _TIMEOUT)
    try:
        for name in await _hashes(redis):
            if name.endswith(b":instance:" + id.encode()):
                return await _hash(redis, name)
        return {}
    finally:
        await redis.close()


async def _strings(redis: RedisKeys, id: str) -> Mapping[str, bytes]:
    names, prefix = await redis.names(id), redis.prefix(id)
    keys: dict[str, bytes] = {}
    for start in range(0, len(names), _BATCH):
        batch = names[start : start + _BATCH]
        raw = [name.encode("utf-8", "surrogateescape") for name in batch]
        [values] = await _asked(redis, ["MGET", *raw])
        for name, value in zip(batch, values, strict=True):
            if value is not None:
                keys[name.removeprefix(prefix)] = value
    return keys


async def _hashes(redis: RedisKeys) -> list[bytes]:
    hashes: set[bytes] = set()
    cursor = b"0"
    while True:
        scan: Command = ["SCAN", cursor, "MATCH", _HASHES, "COUNT", 500, "TYPE", "hash"]
        [[cursor, names]] = await _asked(redis, scan)
        hashes.update(names)
        if cursor == b"0":
            return sorted(hashes)


async def _hash(redis: RedisKeys, name: bytes) -> Mapping[str, bytes]:
    [flat] = await _asked(redis, ["HGETALL", name])
    fields = [field.decode("utf-8", "replace") for field in flat[::2]]
    return dict(zip(fields, flat[1::2], strict=True))


async def _others(redis: RedisKeys) -> str:
    """The other programs that are connected: one of them may be the sessions' server."""
    [answer] = await _asked(redis, ["CLIENT", "LIST", "TYPE", "normal"])
    [own] = await _asked(redis, ["CLIENT", "ID"])
    lines = [line for line in answer.decode("utf-8", "replace").splitlines() if line]
    clients = [dict(word.partition("=")[::2] for word in line.split(" ")) for line in lines]
    addresses = sorted(client["addr"] for client in clients if client.get("id") != str(own))
    return "a client of this Redis (" + ", ".join(addresses[:3]) + ")" if addresses else ""


async def _asked(redis: RedisKeys, command: Command) -> list[Any]:
    try:
        return await redis.resp.ask(command)
    except RespError as error:
        raise EngineError(
            f"cannot read Redis: it refused ({error.word})", code="unreadable"
        ) from None
    except (OSError, EOFError, ValueError) as error:
        cause = str(error) or type(error).__name__
        raise EngineError(f"cannot read Redis: {cause}", code="unreadable") from None
