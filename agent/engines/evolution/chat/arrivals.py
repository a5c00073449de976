"""What arrives in one session: kept here before its server hears that the event was taken, then
told. A webhook that cannot be kept is answered as failed, and 2.x sends it again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.core.words import Happening
from agent.engines.base import Reporter
from agent.engines.evolution.chat.comparing import Comparing
from agent.engines.evolution.chat.records import records_of
from agent.engines.evolution.chat.stored import Stored
from agent.engines.evolution.claims import Live
from agent.engines.evolution.observer import Server
from agent.engines.evolution.webhook.hooks import HookEvent, read_acks, read_messages
from agent.engines.evolution.webhook.subscription import Hooked

_MOST_KNOWN = 500
_TOLD = frozenset({"server", "delivered", "read", "played"})


@dataclass(slots=True)
class Arrivals:
    remote: str
    server: Server
    reporter: Callable[[], Reporter]
    """The newest: it may be held again."""
    alive: Callable[[], None]
    """Called when a message came through the session."""
    _compared: Comparing = field(init=False)
    _where: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """The newest messages: an edit does not tell its chat."""

    def __post_init__(self) -> None:
        self._compared = Comparing(
            Stored(self.server.api, self.remote),
            self.server.comparing,
            self.reporter,
            self._again,
            lambda error: self.reporter().crashed(error),
            self._found,
        )

    async def take(self, event: HookEvent) -> None:
        """EngineError `not_kept`: the server is to tell it again."""
        if self.reporter().keeps:
            records = records_of(event.kind, event.content)
            for record in records:
                self._know(record)
            if records:
                await self.reporter().keep(records)
        if event.kind == "MESSAGES_UPDATE":
            happenings = read_acks(event.content)
        elif event.kind in ("MESSAGES_UPSERT", "SEND_MESSAGE"):
            happenings = read_messages(event.content)
        else:
            return
        for happening in happenings:
            id = str(happening.detail.get("id"))
            if happening.kind == "message" and not self.server.seen.first(self.remote, id):
                continue
            if happening.detail.get("direction") == "in":
                self.alive()
            self.reporter().happened(happening)

    def note(self, live: Live | None, before: Live | None) -> None:
        """How it is, now and again: a comparison begins when one is due."""
        connected = live is Live.OPEN
        if connected and before is not Live.OPEN:
            self._compared.soon()
            self._compared.settle(self.server.pace.compare_settled)
        if live is not Live.MISSING:
            self._compared.look(connected=connected)

    def missed(self) -> None:
        """Events may have been lost: the agent was away, or the server."""
        self._compared.soon()
        self._compared.unsteady()

    def end(self) -> None:
        self._compared.end()

    def _again(self) -> float:
        pace = self.server.pace
        hooked = self.server.hooks.word(self.remote) is Hooked.OURS
        return pace.compare_again if hooked else pace.compare_unhooked

    def _found(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Tells of each acknowledgement once. Messages count when a webhook brings them."""
        acks = (record for record in records if record.get("state") in _TOLD)
        for ack in acks:
            if self.server.seen.first(self.remote, ack["id"]):
                detail = {"id": ack["message_id"], "ack": ack["state"]}
                self.reporter().happened(Happening("ack", detail))

    def _know(self, record: dict[str, Any]) -> None:
        id = record["message_id"]
        if record["kind"] == "message":
            self._where.pop(id, None)
            if len(self._where) >= _MOST_KNOWN:
                del self._where[next(iter(self._where))]
            names = ("chat", "from_me", "sender", "alias")
            self._where[id] = {name: record[name] for name in names}
        elif record["kind"] == "message_edit":
            record |= self._where.get(id, {})
