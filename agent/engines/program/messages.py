"""Messages of a program that agent.toml lets the agent have: sent by it, kept as they arrive."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from agent.engines.baileys.conversation import Conversation
from agent.engines.baileys.keeping import Keeping
from agent.engines.base import Reporter
from agent.engines.phones import receiver_of
from agent.engines.program.declaration import ProgramDeclaration
from agent.errors import EngineError

KEEP = "keep"
"""The event with records."""
WANTED = "WA_PROGRAM_MESSAGES"
"""The variable that tells the program what the agent wants of messages."""
SENDING, ANSWER, TELLING = 60.0, 8.0, 8.0
"""Seconds for the whole of it, for WhatsApp's confirmation, and for what needs none."""
UNKNOWN = {"id": "", "outcome": "unknown"}
_NOT_BEGUN = frozenset(
    [
        "not_ready",
        "not_connected",
        "not_supported",
        "invalid_request",
        "invalid_wid",
        "chat_not_found",
        "message_not_found",
        "busy",
        "file_lost",
        "file_too_large",
    ]
)
"""Errors that say that nothing was sent. Any other may come after the message went."""
_ERROR_OF_WHATSAPP = re.compile(r"[0-9]{1,6}|[a-z][a-z0-9_-]{0,39}")

SpeechNow = Callable[[], Conversation]
"""EngineError where the program is not connected."""


class ProgramMessages:
    """Without `messages` in its declaration it sends nothing and keeps nothing."""

    def __init__(self, reporter: Reporter, program: ProgramDeclaration | None) -> None:
        self._wanted = program is not None and program.messages
        self._keeping = Keeping(reporter)

    def told(self, program: ProgramDeclaration) -> dict[str, str]:
        """For the program's environment."""
        if not program.messages:
            return {}
        return {WANTED: "send keep" if self._keeping.keeps else "send"}

    def take(self, event: Mapping[str, Any], speech: Conversation) -> None:
        if self._wanted:
            self._keeping.take(event, speech)

    async def send(self, message: Mapping[str, Any], speech: SpeechNow) -> Mapping[str, Any]:
        outgoing = {**message, "to": receiver_of(message.get("to"))}
        now = speech()
        self._must_send(now, str(message.get("type", "text")), outgoing)
        try:
            answer = await now.call("send", SENDING, seconds=ANSWER, message=outgoing)
        except EngineError as error:
            if error.code in _NOT_BEGUN:
                raise _without_text(error, outgoing) from error
            return {**UNKNOWN, "cause": _why_unknown(error)}
        id = answer.get("id")
        sent = {"id": id[:200] if isinstance(id, str) else "", "outcome": answer.get("outcome")}
        if sent["outcome"] == "refused":
            raise EngineError(
                "cannot send: WhatsApp refused the message with error"
                f" {_code_of(answer.get('error'))}",
                code="refused",
            )
        if sent["outcome"] != "sent":
            cause = f"WhatsApp did not confirm it within {ANSWER:.0f} s"
            return {**sent, "outcome": "unknown", "cause": cause}
        return sent

    async def tell(
        self, do: str, feature: str, asked: Mapping[str, Any], speech: Conversation
    ) -> None:
        self._must_send(speech, feature, {})
        await speech.call(do, TELLING, asked=dict(asked))

    async def take_part(self, part: Mapping[str, Any], speech: Conversation) -> Mapping[str, Any]:
        """Of a file that is too long for one message."""
        self._must_send(speech, "media", {})
        return await speech.call("file_part", ANSWER, part=dict(part))

    def _must_send(self, speech: Conversation, kind: str, message: Mapping[str, Any]) -> None:
        if not self._wanted:
            raise EngineError(
                "cannot send: the program itself sends its messages; messages = true in its"
                " [[program]] lets the agent send by it",
                code="not_supported",
            )
        sends = _ready(speech).get("sends")
        can = [str(each) for each in sends] if isinstance(sends, list) else ["text"]
        for feature in (kind, *(name for name in ("quote", "mentions") if name in message)):
            if feature not in can:
                sent = ", ".join(sorted(can)) or "nothing for the agent"
                words = f"cannot send {feature}: this program sends {sent}"
                raise EngineError(words[:300], code="not_supported")


def _why_unknown(error: EngineError) -> str:
    """The words of a program may hold the message, or its receiver."""
    if error.code in ("timeout", "interrupted"):
        return str(error)
    return f"the program failed while it sent the message ({_code_of(error.code)})"


def _without_text(error: EngineError, message: Mapping[str, Any]) -> EngineError:
    """The same error, in words that do not hold what was to be sent."""
    words, held = str(error), (str(message.get("text") or ""), str(message["to"]).partition("@")[0])
    if not any(part and part in words for part in held):
        return error
    return EngineError(f"cannot send: the program says {error.code}", code=error.code)


def _code_of(told: object) -> str:
    """A code of WhatsApp's or the program's: no words of its own."""
    code = str(told) if isinstance(told, (str, int)) else ""
    return code if _ERROR_OF_WHATSAPP.fullmatch(code) else "that has no code"


def _ready(speech: Conversation) -> Mapping[str, Any]:
    """What the program said of itself when it was ready."""
    return speech.ready.result() if speech.ready.done() and not speech.ready.cancelled() else {}
