"""Reads in what sessions keep who wrote to them, or was written to from the phone: they are no new
people. Nothing is read where [messages.pace] does not limit these."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agent.core.model import InstanceId
from agent.engines.receiver import person_of
from agent.errors import WaError
from agent.supervise.messages.kept_messages import KeptMessages
from agent.wings.messages.out.session.ledger import Ledger
from agent.wings.messages.out.session.pace import Moment
from agent.wings.messages.out.session.pacing import person_in
from agent.wings.messages.settings import PaceSettings

LOOK_EVERY = 2.0
"""Seconds, at least, between two looks."""
PAGE = 500


class PeopleReader:
    def __init__(
        self,
        messages: KeptMessages,
        rules: Callable[[], PaceSettings],
        moment: Callable[[], Moment],
    ) -> None:
        self._messages = messages
        self._rules = rules
        self._moment = moment
        self._cursors: dict[InstanceId, int] = {}

    async def run(self, ledger: Ledger) -> None:
        changes = self._messages.follow()
        try:
            ids = frozenset(self._messages.sessions())
            while True:
                if self._rules().new_people:
                    key = await ledger.key()
                    for id in ids:
                        await self._read(ledger, id, key)
                await asyncio.sleep(LOOK_EVERY)
                ids = await changes.next()
        finally:
            changes.close()

    async def _read(self, ledger: Ledger, id: InstanceId, key: bytes) -> None:
        if id not in self._cursors:
            known = await ledger.read_up_to(id)
            if known is None:
                chats = await ledger.written_to(id)
                await ledger.meet(id, _people(chats, key), 0, self._moment())
            self._cursors[id] = known or 0
        more = True
        while more:
            try:
                page = await self._messages.page(id, self._cursors[id], limit=PAGE)
            except WaError:
                return  # no worker runs, or it keeps nothing: a change comes when that is over
            found = _people([who for record in page.records for who in _who(record)], key)
            if page.next != self._cursors[id]:
                await ledger.meet(id, found, page.next, self._moment())
            self._cursors[id], more = page.next, page.more


def _people(chats: list[str], key: bytes) -> set[int]:
    return {person for chat in chats if (person := person_in(chat, key)) is not None}


def _who(record: Mapping[str, Any]) -> Iterator[str]:
    """The other person of a message, by each of its names; members of a group stay unknown."""
    if record.get("kind") != "message" or person_in(str(record.get("chat", "")), b"") is None:
        return
    names = ["chat"] if record.get("from_me") else ["chat", "sender", "alias"]
    yield from (person_of(name) for each in names if (name := str(record.get(each) or "")))
