"""What one session sends. What became of a message whose answer never came is looked up in the
server's own store; it is not sent again to find out."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.core.words import Happening
from agent.engines.base import Reporter
from agent.engines.evolution.answers import is_missing, refusal, refusal_words
from agent.engines.evolution.chat.messages import NOT_CONNECTED, send
from agent.engines.evolution.chat.outgoing import (
    PRESENCES,
    Request,
    chat_of,
    presence_request,
    read_request,
)
from agent.engines.evolution.chat.records import stored_records
from agent.engines.evolution.chat.stored import Stored
from agent.engines.evolution.observer import Server
from agent.engines.phones import receiver_of
from agent.engines.raw import inside, text
from agent.engines.remote.answers import segment
from agent.engines.remote.outcomes import UNKNOWN, Answer, Outcomes
from agent.engines.tasks import Tasks
from agent.errors import EngineError

_EARLIER = 2.0
"""Seconds by which the server's clock may be behind ours."""
_SHOWN = 10.0
_LONGEST_SHOWN = 20.0
_REFUSED_WITHIN = 1.0
"""Seconds within which a server refuses; else it shows the presence, and answers after it."""


@dataclass(slots=True)
class Sending:
    remote: str
    server: Server
    reporter: Callable[[], Reporter]
    outcomes: Outcomes = field(init=False)
    tasks: Tasks = field(init=False)

    def __post_init__(self) -> None:
        def crashed(error: BaseException) -> None:
            self.reporter().crashed(error)

        self.outcomes = Outcomes(crashed)
        self.tasks = Tasks(crashed, expected=(EngineError,))

    async def send(self, message: Mapping[str, Any]) -> Answer:
        return await self.outcomes.once(message, lambda: self._send(message))

    async def sent(self, message: Mapping[str, Any], begun: float) -> Answer:
        """What became of a message that was begun to be sent then, by this worker or another."""
        key = str(message.get("key") or "")
        answer = await self.outcomes.of(key, begun)
        if answer is not None and answer["outcome"] != UNKNOWN:
            return answer
        found = await self._look(message, begun)
        if found is not None:
            self.outcomes.settle(key, found)
            return found
        return answer or {"id": "", "outcome": UNKNOWN, "cause": "its server shows no such message"}

    async def mark_read(self, asked: Mapping[str, Any]) -> None:
        ids = [str(id) for id in asked["message_ids"]]
        await self._tell("mark messages as read", read_request(asked["chat"], ids, old=self._old))

    async def presence(self, asked: Mapping[str, Any]) -> None:
        state, chat = asked["state"], asked.get("chat", "")
        if state not in PRESENCES:
            body = {"presence": state}
            await self._tell("show a presence", Request("POST", "/instance/setPresence", body))
            return
        seconds = min(asked.get("seconds") or _SHOWN, _LONGEST_SHOWN) if state != "paused" else 0.0
        number = receiver_of(chat).replace("@c.us", "@s.whatsapp.net")
        request = presence_request(number, state, seconds, old=self._old)
        patience = seconds + self.server.pace.presence_patience
        showing = self.tasks.start(self._tell("show a presence", request, patience), "presence")
        done, _ = await asyncio.wait({showing}, timeout=_REFUSED_WITHIN)
        for task in done:
            task.result()

    @property
    def _old(self) -> bool:
        return self.server.api.old

    async def _send(self, message: Mapping[str, Any]) -> Answer:
        begun = time.time()
        whole = self.server.uploads.whole(self.remote, message)
        answer = await send(self.server.api, self.remote, whole)
        for wait in self.server.pace.settle_looks if answer["outcome"] == UNKNOWN else ():
            await asyncio.sleep(wait)
            if (found := await self._try_look(message, begun)) is not None:
                answer = found
                break
        if answer["outcome"] == "sent" and self.server.seen.first(self.remote, answer["id"]):
            detail = {"direction": "out", "type": message.get("type", "text"), "id": answer["id"]}
            self.reporter().happened(Happening("message", detail))
        return answer

    async def _try_look(self, message: Mapping[str, Any], begun: float) -> Answer | None:
        try:
            return await self._look(message, begun)
        except EngineError:
            return None

    async def _look(self, message: Mapping[str, Any], begun: float) -> Answer | None:
        """Only where no other message can be meant. EngineError: the server does not show its
        store now."""
        if message.get("type", "text") != "text":
            return None
        rows = await Stored(self.server.api, self.remote).sent_to(
            chat_of(message), begun - _EARLIER
        )
        ids = {
            id
            for row in rows
            if _is_same(row, message)
            and (id := text(inside(row, "key", "id"), 120))
            and not self.outcomes.is_known(id)
        }
        return {"id": ids.pop(), "outcome": "sent", "ack": "server"} if len(ids) == 1 else None

    async def _tell(self, what: str, request: Request, timeout: float | None = None) -> None:
        path = f"{request.path}/{segment(self.remote)}"
        answer = await self.server.api.ask(request.method, path, request.body, timeout=timeout)
        if is_missing(answer):
            raise EngineError(
                f"cannot {what}: the server has no such session", code="remote_missing"
            )
        if not answer.good or inside(answer.body, "error") is True:
            words = refusal_words(answer.body)
            away = any(sign in words for sign in NOT_CONNECTED)
            raise refusal(what, answer, "not_connected" if away else "not_sent")


def _is_same(row: Mapping[str, Any], message: Mapping[str, Any]) -> bool:
    for record in stored_records(row):
        if record["kind"] == "message":
            quoted = record.get("quote", {}).get("message_id", "")
            same = (record.get("text"), quoted) == (message["text"], message.get("quote", ""))
            return record["type"] == "text" and same
    return False
