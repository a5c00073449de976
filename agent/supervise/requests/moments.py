"""What a session tells a chat for the moment, that it read or that its account types, and which of
its messages that is about."""

from collections.abc import Mapping, Sequence
from typing import Any

from agent.core.model import InstanceId
from agent.errors import EngineError, InvalidRequest, Refused
from agent.supervise.requests.calls import Calls

AT_ONCE = 200
"""Messages of one call to an engine."""
MARKING = "mark messages as read"
ME = "me"
"""In the place of a jid: this session's account."""


class Moments:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def find(
        self, id: InstanceId, chat: str, message_ids: Sequence[str]
    ) -> Mapping[str, Mapping[str, Any]]:
        """Those of the messages that its worker has kept: `sender`, `from_me`, `type`, `text`."""
        try:
            args = {"chat": chat, "message_ids": list(message_ids)}
            raw = await self._calls.ask(id, "messages_find", args, "look for messages")
        except (EngineError, Refused) as error:
            if error.code != "not_supported":
                raise
            return {}  # its worker keeps none
        found = raw.get("found")
        return found if isinstance(found, Mapping) else {}

    async def mark_read(
        self, id: InstanceId, chat: str, message_ids: Sequence[str] = (), sender: str = ""
    ) -> int:
        """How many were marked: without ids all of the chat that arrived since it was marked last.
        `sender`: who wrote them in a group; "" = looked up in what its worker kept."""
        if not message_ids:
            return await self._mark_all(id, chat)
        whose: _Whose = {(chat, sender): message_ids}
        if not sender:
            whose = await self._by_sender(id, chat, message_ids)
        await self._mark(id, whose)
        return len(message_ids)

    async def presence(self, id: InstanceId, state: str, chat: str = "", seconds: int = 0) -> None:
        asked = {"state": state, "chat": chat, "seconds": seconds}
        await self._calls.ask(id, "presence", {"asked": asked}, "show a presence")

    async def _mark(self, id: InstanceId, whose: "_Whose") -> None:
        for (chat, sender), ids in whose.items():
            for start in range(0, len(ids), AT_ONCE):
                some = list(ids[start : start + AT_ONCE])
                asked = {"chat": chat, "message_ids": some, "sender": sender}
                await self._calls.ask(id, "mark_read", {"asked": asked}, MARKING)

    async def _mark_all(self, id: InstanceId, chat: str) -> int:
        try:
            raw = await self._calls.ask(id, "messages_unread", {"chat": chat}, MARKING)
        except Refused as error:
            if error.code != "not_supported":
                raise
            raise InvalidRequest(
                f"cannot mark all messages of a chat of {id}: its worker keeps none; name them",
                field="message_ids",
            ) from error
        whose: dict[tuple[str, str], list[str]] = {}
        for message_id, its_chat, sender in raw.get("messages", ()):
            whose.setdefault((str(its_chat), str(sender)), []).append(str(message_id))
        await self._mark(id, whose)
        marked = {"chat": chat, "cursor": raw.get("newest", 0)}
        await self._calls.ask(id, "messages_marked", marked, MARKING)
        return sum(map(len, whose.values()))

    async def _by_sender(self, id: InstanceId, chat: str, message_ids: Sequence[str]) -> "_Whose":
        """As far as they are kept; of a chat of two no more need be known."""
        found = await self.find(id, chat, message_ids)
        missing = sorted(set(message_ids) - set(found))
        if missing and chat.endswith("@g.us"):
            raise Refused(
                f"cannot mark {missing[0]!r:.80} as read: its writer is not known here; give"
                " `sender`",
                field="sender",
                code="message_not_found",
            )
        whose: dict[tuple[str, str], list[str]] = {}
        for message_id in message_ids:
            its = found.get(message_id, {})
            names = str(its.get("chat", chat)), str(its.get("sender", ""))
            whose.setdefault(names, []).append(message_id)
        return whose


_Whose = Mapping[tuple[str, str], Sequence[str]]
"""By chat and writer, as WhatsApp named both."""
