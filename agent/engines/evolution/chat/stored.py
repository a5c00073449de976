"""The messages of one session in its server's own store, as far as the server shows it."""

import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent.engines.evolution.answers import refusal
from agent.engines.evolution.api import EvolutionApi
from agent.engines.evolution.chat.content import number_of
from agent.engines.raw import inside, whole
from agent.engines.remote.answers import segment

log = logging.getLogger(__name__)

_PAGE = 100
_MOST_PAGES = 200
_OLD_LIMIT = 500
"""1.8 takes no page and no time. From its folder it gives so many in no order, from MongoDB its
newest; it empties its folder every two hours."""
_AHEAD = 86_400.0
_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Stored:
    api: EvolutionApi
    name: str

    async def rows(self, since: float) -> AsyncIterator[Mapping[str, Any]]:
        """Those since then, newest first. EngineError where the server does not give them."""
        read = self._old_rows if self.api.old else self._pages
        async for row in read(since):
            yield row

    async def sent_to(self, chat: str, since: float) -> list[Mapping[str, Any]]:
        """The newest that the session itself sent to a chat since then."""
        key = {"fromMe": True, "remoteJid": chat}
        body: dict[str, Any] = {"where": {"key": key}}
        if self.api.old:
            body["limit"] = _OLD_LIMIT
        else:
            body |= {"page": 1, "offset": _PAGE}
        found = (await self._find(body))[0]
        return [
            row
            for row in found
            if inside(row, "key", "fromMe") is True
            and inside(row, "key", "remoteJid") == chat
            and _time_of(row) >= since
        ]

    async def row(self, id: str) -> Mapping[str, Any] | None:
        """The message of that id."""
        rows, _ = await self._find({"where": {"key": {"id": id}}, "page": 1, "offset": 1})
        return next((row for row in rows if inside(row, "key", "id") == id), None)

    async def _pages(self, since: float) -> AsyncIterator[Mapping[str, Any]]:
        where = {"messageTimestamp": {"gte": _iso(since), "lte": _iso(since + _AHEAD * 366)}}
        for page in range(1, _MOST_PAGES + 1):
            rows, pages = await self._find({"where": where, "page": page, "offset": _PAGE})
            for row in rows:
                if _time_of(row) >= since:
                    yield row
            if page >= pages or not rows:
                return
        log.warning("%s has more than %d messages to compare", self.name, _PAGE * _MOST_PAGES)

    async def _old_rows(self, since: float) -> AsyncIterator[Mapping[str, Any]]:
        rows, _ = await self._find({"limit": _OLD_LIMIT})
        if len(rows) >= _OLD_LIMIT:
            log.warning("%s may have more than %d messages to compare", self.name, _OLD_LIMIT)
        for row in sorted(rows, key=_time_of, reverse=True):
            if _time_of(row) >= since:
                yield row

    async def _find(self, body: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], int]:
        """Rows, and how many pages there are."""
        path = f"/chat/findMessages/{segment(self.name)}"
        answer = await self.api.ask("POST", path, body, timeout=_PATIENCE)
        if not answer.good:
            raise refusal(f"find messages of {self.name}", answer, "not_found")
        found = answer.body
        if (paged := inside(found, "messages")) is not None:
            rows, pages = inside(paged, "records"), whole(inside(paged, "pages"))
        else:
            rows, pages = found, 1
        listed = rows if isinstance(rows, list) else []
        return [row for row in listed if isinstance(row, Mapping)], pages or 0


def _time_of(row: Mapping[str, Any]) -> float:
    return float(number_of(row.get("messageTimestamp")) or 0)


def _iso(wall: float) -> str:
    return datetime.fromtimestamp(int(wall), UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
