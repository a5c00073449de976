"""What a session tells a chat for the moment: that its messages were read, that its account types.
Nothing keeps it for later: it is done at once or refused."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.api.handlers.messages import must_send, writer_of
from agent.api.http.call import Call, Json
from agent.api.http.fields import INTEGER, STRING, STRINGS, Field
from agent.engines.base import IN_CHAT, PRESENCES
from agent.engines.phones import receiver_of
from agent.errors import EngineError, InvalidRequest
from agent.messages.outcomes import refusal_of

_CHAT = "a phone number or a chat's id"
READ = (
    Field("chat", STRING, _CHAT, required=True, least=1, most=128),
    Field(
        "message_ids",
        STRINGS,
        "WhatsApp's ids of messages in it; default: all that arrived there since it was marked"
        " last, as far as they are kept, at most the newest 1000",
        least=1,
        most=1000,
    ),
    Field(
        "sender",
        STRING,
        "who wrote them, in a group: a number or jid; default: looked up in what is kept here",
        least=5,
        most=64,
    ),
)
PRESENCE = (
    Field("state", STRING, "what is shown", required=True, choices=PRESENCES),
    Field(
        "chat", STRING, f"where the account types, records or paused: {_CHAT}", least=1, most=128
    ),
    Field(
        "seconds",
        INTEGER,
        "how long it is shown, then `paused`; default 0: as long as phones do by themselves",
        least=0,
        most=120,
    ),
)


async def mark_read(call: Call) -> Json:
    body = await call.body()
    async with _told(call, "mark_read"):
        chat = _chat_of(body["chat"])
        sender = writer_of(body["sender"], "sender") if "sender" in body else ""
        ids = body.get("message_ids", ())
        count = await call.supervisor.asking.mark_read(call.id, chat, ids, sender)
    return {"instance": call.id, "chat": chat, "marked": count}


async def presence(call: Call) -> Json:
    body = await call.body()
    state, chat = body["state"], body.get("chat", "")
    if (state in IN_CHAT) != bool(chat):
        what = "give one" if state in IN_CHAT else f"{state} is shown to all"
        raise InvalidRequest(f"cannot use the field 'chat': {what}", field="chat")
    async with _told(call, "typing"):
        chat = chat and _chat_of(chat)
        seconds = body.get("seconds", 0)
        await call.supervisor.asking.presence(call.id, state, chat, seconds)
    return {"instance": call.id, "chat": chat, "state": state}


def _chat_of(text: str) -> str:
    try:
        chat = receiver_of(text).replace("@c.us", "@s.whatsapp.net")
    except InvalidRequest:
        raise InvalidRequest(
            f"cannot use {text!r:.80}: it is neither a phone number nor a chat's id", field="chat"
        ) from None
    return chat if "@" in chat else f"{chat}@s.whatsapp.net"


@asynccontextmanager
async def _told(call: Call, feature: str) -> AsyncIterator[None]:
    engine = call.supervisor.view(call.id).instance.engine
    must_send(engine, feature)
    try:
        yield
    except EngineError as error:
        raise refusal_of(engine, error) from error
