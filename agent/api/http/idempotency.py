"""Answers by Idempotency-Key: the same request sent twice is carried out once.

The database holds them, also over a killed agent: the request before it is carried out, and its
answer before it is sent. A request that surely failed is forgotten and can be sent again; one
without an answer stays unknown, because a second try could carry it out twice.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.core.model import Category
from agent.errors import Refused, StoreError, TryLater, WaError
from agent.log import bound
from agent.store.database import Store

log = bound(Category.API)

Answer = Mapping[str, Any]

PREFIX = "answer/"
DAY = 86_400.0
UNKNOWN = "unknown_outcome"


@dataclass(frozen=True, slots=True)
class _Stored:
    """One request; without an answer it was begun and its end is unknown."""

    digest: str
    """Of the request; behind an @ when what it was for was made."""
    wall: float
    answer: Answer | None

    def encode(self) -> str:
        return json.dumps([self.digest, self.wall, self.answer])


@dataclass(frozen=True, slots=True)
class EarlierAnswer:
    """What is stored of a request, for who took it over."""

    wall: float
    born: str
    """Of what it was for."""
    answer: Answer | None
    """None: its end is unknown."""


def read_answer(text: str) -> EarlierAnswer:
    stored = _Stored(*json.loads(text))
    return EarlierAnswer(stored.wall, stored.digest.partition("@")[2], stored.answer)


class IdempotentAnswers:
    def __init__(
        self,
        store: Store,
        *,
        most: int = 10_000,
        seconds: float = DAY,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._most = most
        self._seconds = seconds
        self._wall = wall
        self._under_way: dict[str, asyncio.Future[None]] = {}
        self._since_look = most
        self._owed: dict[str, _Stored | None] = {}
        """Ends of requests that the database refused to take so far; None: to be forgotten."""

    async def once(
        self,
        key: tuple[str, ...],
        request: str,
        work: Callable[[], Awaitable[Answer]],
        *,
        born: float = 0.0,
    ) -> tuple[Answer, bool]:
        """The answer, and whether an earlier request got it; a second caller waits. `born`: when
        what it is for was made; an answer for an earlier one of that name is not taken."""
        name, digest = _names(key, request)
        while (first := self._under_way.get(name)) is not None:
            await asyncio.shield(first)
        done = self._under_way[name] = asyncio.get_running_loop().create_future()
        try:
            stored = await self._read(name, str(born))
            if stored is not None:
                return _earlier(stored, digest), True
            return await self._do(name, f"{digest}@{born}", work), False
        finally:
            del self._under_way[name]
            done.set_result(None)

    async def earlier(
        self, key: tuple[str, ...], request: str, *, born: float = 0.0
    ) -> Answer | None:
        """The answer that `once` would give without work; None: it would work."""
        name, digest = _names(key, request)
        while (first := self._under_way.get(name)) is not None:
            await asyncio.shield(first)
        stored = await self._read(name, str(born))
        return None if stored is None else _earlier(stored, digest)

    async def _do(self, name: str, digest: str, work: Callable[[], Awaitable[Answer]]) -> Answer:
        await self._write_owed()
        await self._forget_old()
        await self._store.put_facts({name: _Stored(digest, self._wall(), None).encode()})
        try:
            answer = await work()
        except WaError as error:
            if error.code != UNKNOWN:
                await self._note_end(name, None)
            raise
        await self._note_end(name, _Stored(digest, self._wall(), answer))
        return answer

    async def _note_end(self, name: str, end: _Stored | None) -> None:
        """How it went is known, and is answered, also where it cannot be written now."""
        self._owed[name] = end
        try:
            await self._write_owed()
        except StoreError as error:
            log.error("the end of a request with an Idempotency-Key is written later: %s", error)

    async def _write_owed(self) -> None:
        for name, end in list(self._owed.items()):
            if end is None:
                await self._store.forget_facts([name])
            else:
                await self._store.put_facts({name: end.encode()})
            if self._owed.get(name) is end:
                self._owed.pop(name, None)

    async def _read(self, name: str, born: str) -> _Stored | None:
        if name in self._owed:
            stored = self._owed[name]
        else:
            text = await self._store.get_fact(name)
            stored = None if text is None else _Stored(*json.loads(text))
        if stored is None or stored.digest.partition("@")[2] not in ("", born):
            return None
        return stored if self._wall() - stored.wall < self._seconds else None

    async def _forget_old(self) -> None:
        """Drop answers that are too old, and the oldest ones over the limit."""
        self._since_look += 1
        if self._since_look < self._most / 10:
            return
        self._since_look = 0
        walls = {
            name: _Stored(*json.loads(text)).wall
            for name, text in (await self._store.get_facts(PREFIX)).items()
        }
        newest = sorted(walls, key=lambda name: walls[name], reverse=True)
        keep = newest[: self._most - self._most // 10]
        oldest = self._wall() - self._seconds
        gone = [name for name in newest if walls[name] < oldest]
        gone += [name for name in newest[len(keep) :] if walls[name] >= oldest]
        await self._store.forget_facts([name for name in gone if name not in self._under_way])


def _names(key: tuple[str, ...], request: str) -> tuple[str, str]:
    """Hashed: the database reveals neither the client's key nor a message."""
    name = PREFIX + hashlib.sha256("\0".join(key).encode()).hexdigest()
    return name, hashlib.sha256("\0".join((*key, request)).encode()).hexdigest()


def _earlier(stored: _Stored, digest: str) -> Answer:
    if stored.digest.partition("@")[0] != digest:
        raise Refused(
            "cannot use this Idempotency-Key again: it was sent with another request",
            field="Idempotency-Key",
            code="idempotency_key_reused",
        )
    if stored.answer is None:
        raise TryLater(
            "cannot tell how the first request with this Idempotency-Key went: its answer was"
            " lost; check whether it was carried out before you send it with another key",
            code=UNKNOWN,
        )
    return stored.answer
