"""Requests that an engine answers at once: a QR, a message to send, a logout. Orders that end a
pairing are refused without a person's word, and say what to type."""

import asyncio
import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec

from agent.core.reasons import reason_of
from agent.core.recovery.pairing import CONFIRM_PASSKEY, WOULD_UNPAIR, may_person_end_it
from agent.core.recovery.repair import Consent, Kept
from agent.core.session import Session
from agent.core.words import OTHER_ACCOUNT, ConnectionStatus, InstanceId
from agent.engines.base import Qr
from agent.errors import EngineError, InvalidRequest, LinkError, Refused, TooLarge, TryLater
from agent.files import open_plain
from agent.supervise.facts import Facts, WorkerLink
from agent.supervise.registry import Registry
from agent.supervise.snapshots import Snapshots


def must_be_confirmed(facts: Session, doing: str, *, confirmed: bool, passkey: str) -> Consent:
    """The caller's word. `confirmed`: that a pairing may end; `passkey`: the id, where it
    may be lost for good."""
    id = facts.id
    if not confirmed and not facts.no_pairing_to_lose:
        there, chats = facts.instance, ""
        if doing == "clean up" and there.engine == "evolution":
            chats = f" and delete {there.remote} on {there.backend} with its chats to make it again"
        how = 'confirm with --yes (in a request: "confirm": true)'
        words = f"cannot {doing} {id} without a confirmation: it would end a pairing{chats}; {how}"
        raise Refused(words, field="confirm", code=WOULD_UNPAIR)
    consent = Consent.PAIRING if confirmed else Consent.NONE
    if passkey == id:
        consent = Consent.PASSKEY
    kept = may_person_end_it(facts, consent)
    if isinstance(kept, Kept) and kept.code == CONFIRM_PASSKEY:
        how = f'confirm with --confirm-passkey {id} (in a request: {CONFIRM_PASSKEY} = "{id}")'
        words = f"cannot {doing} {id}: {kept.why}; {how}"
        raise Refused(words, field=CONFIRM_PASSKEY, code=CONFIRM_PASSKEY)
    if isinstance(kept, Kept) and doing != "delete":  # a backend keeps its session
        raise Refused(f"cannot {doing} {id}: {kept.sentence}", code=kept.code)
    return consent


AT_ONCE = 200
"""Messages of one call to an engine."""
MARKING = "mark messages as read"

LOGOUT_TIMEOUT, COMMAND_TIMEOUT = 30.0, 10.0
SEND_TIMEOUT = 80.0
"""Seconds for a message, longer than any engine takes: a file has to travel."""
PAIRING_CODE = "pairing_code"
"""The command that begins another login."""

_MAY_BE_DONE = frozenset({"timeout", "internal", "interrupted"})
"""Codes of an engine that cannot tell whether it sent the message."""


@dataclass(frozen=True, slots=True)
class Calls:
    """Talks to workers over their links; Refused where there is none."""

    registry: Registry
    keeping: Snapshots

    async def qr(self, id: InstanceId) -> Qr | None:
        facts, link = self._linked(id, "show the QR code of")
        try:
            return msgspec.convert((await link.call("qr")).get("qr"), Qr | None)
        except EngineError as error:
            raise _because(facts, error) from error
        except msgspec.ValidationError as error:
            raise LinkError(f"cannot read the QR code: {error}") from error

    async def logout(self, id: InstanceId) -> None:
        facts, _ = self._linked(id, "log out")
        async with facts.busy:  # a restart under way would lose the engine's word
            _, link = self._linked(id, "log out")
            facts.note("operator", "an operator asked for a logout")
            await self.registry.save(facts)
            facts.asked.logout = True
            async with self.keeping.ending(facts):
                await link.call("logout", {}, timeout=LOGOUT_TIMEOUT)
            if not facts.instance.backend:  # a server tells by its list
                facts.run.claim = None  # one of before would take that back
                facts.record = replace(facts.record, reason="logout")
                await self.registry.save(facts)
        self.registry.gate.wake(id)

    async def command(
        self,
        id: InstanceId,
        name: str,
        arguments: Mapping[str, Any],
        *,
        timeout: float = COMMAND_TIMEOUT,
        alone: bool = False,
    ) -> Mapping[str, Any]:
        """Call an engine. `alone`: outside of a pass, which would start again what this ends."""
        facts = self.registry.get(id)
        if name == PAIRING_CODE and not facts.no_pairing_to_lose:
            why = "it has a pairing, or may have one; the pairing is kept"
            how = f"To end it and get a new code: `wa-agent cleanup {id} --yes`"
            raise Refused(f"cannot get a pairing code for {id}: {why}. {how}", code="not_waiting")
        if name == "delete":  # on its server
            _refuse_other_account(facts, "delete the session of")
        if not alone:
            arguments = await in_parts(self._linked(id, "do this with")[1], id, arguments)
        call = {"name": name, "arguments": dict(arguments)}
        try:
            async with facts.busy if alone else nullcontext():
                _, link = self._linked(id, "do this with")
                if alone:
                    facts.note("operator", f"an operator asked its engine for: {name}")
                    await self.registry.save(facts)
                return await link.call("command", call, timeout=timeout)
        finally:
            if alone:
                self.registry.gate.wake(id)

    async def send(
        self, id: InstanceId, message: Mapping[str, Any], file: Path | None = None
    ) -> Mapping[str, Any]:
        """Send a message. `file`: the message's content as a file on the disk."""
        facts, link = self._linked(id, "send with")
        _refuse_other_account(facts, "send with")
        message = await in_parts(link, id, message, file)
        try:
            answer = await link.call("send", {"message": dict(message)}, timeout=SEND_TIMEOUT)
        except (LinkError, EngineError) as error:
            facts.counters.messages["failed"] += 1
            raise _unsent(facts, error) from error
        if answer.get("outcome") == "unknown":
            raise _unknown(id, answer.get("cause") or "WhatsApp did not confirm it")
        return answer

    async def ask(
        self, id: InstanceId, do: str, arguments: Mapping[str, Any], doing: str
    ) -> Mapping[str, Any]:
        """A call that is of the moment: nothing keeps it for later, and to repeat it is harmless.
        EngineError is the worker's own refusal."""
        facts, link = self._linked(id, f"{doing} with")
        _refuse_other_account(facts, f"{doing} with")
        try:
            return await link.call(do, arguments, timeout=COMMAND_TIMEOUT)
        except LinkError as error:
            raise TryLater(f"cannot {doing} with {id}: {error}", code="slow") from error
        except EngineError as error:
            if (error.code, error.field) == ("invalid_request", "do"):
                why = "its worker runs an older version; restart it"
                raise Refused(f"cannot {doing} with {id}: {why}", code="not_supported") from error
            raise _because(facts, error) from error

    async def find(
        self, id: InstanceId, chat: str, message_ids: Sequence[str]
    ) -> Mapping[str, Mapping[str, Any]]:
        """Return `sender`, `from_me`, `type`, `text` of those messages that the worker has kept."""
        try:
            args = {"chat": chat, "message_ids": list(message_ids)}
            raw = await self.ask(id, "messages_find", args, "look for messages")
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
        if message_ids:
            found = {} if sender else await self.find(id, chat, message_ids)
            missing = sorted(set(message_ids) - set(found))
            # In a chat of two the writer is known; in a group the worker or the caller names it.
            if missing and not sender and chat.endswith("@g.us"):
                why = "its writer is not known here; give `sender`"
                words = f"cannot mark {missing[0]!r:.80} as read: {why}"
                raise Refused(words, field="sender", code="message_not_found")
            kept = [(each, found.get(each, {})) for each in message_ids]
            named = [(it, row.get("chat", chat), row.get("sender", sender)) for it, row in kept]
            await self._mark(id, named)
            return len(message_ids)
        try:
            raw = await self.ask(id, "messages_unread", {"chat": chat}, MARKING)
        except Refused as error:
            if error.code != "not_supported":
                raise
            words = f"cannot mark all messages of a chat of {id}: its worker keeps none; name them"
            raise InvalidRequest(words, field="message_ids") from error
        unread = raw.get("messages", ())
        await self._mark(id, unread)
        marked = {"chat": chat, "cursor": raw.get("newest", 0)}
        await self.ask(id, "messages_marked", marked, MARKING)
        return len(unread)

    async def presence(self, id: InstanceId, state: str, chat: str = "", seconds: int = 0) -> None:
        asked = {"state": state, "chat": chat, "seconds": seconds}
        await self.ask(id, "presence", {"asked": asked}, "show a presence")

    async def _mark(self, id: InstanceId, named: Sequence[tuple[str, str, str]]) -> None:
        """Mark messages as read. `named`: each message's id, chat and writer, as WhatsApp named
        them."""
        whose: dict[tuple[str, str], list[str]] = {}
        for message_id, its_chat, its_sender in named:
            whose.setdefault((str(its_chat), str(its_sender)), []).append(str(message_id))
        for (chat, sender), ids in whose.items():
            for start in range(0, len(ids), AT_ONCE):
                some = ids[start : start + AT_ONCE]
                asked = {"chat": chat, "message_ids": some, "sender": sender}
                await self.ask(id, "mark_read", {"asked": asked}, MARKING)

    def _linked(self, id: InstanceId, doing: str) -> tuple[Facts, WorkerLink]:
        facts = self.registry.get(id)
        if facts.link is None:  # it just ended: the last sentence may still say "connected"
            why = "" if facts.unit.runs else f" ({facts.sentence or 'not checked yet'})"
            words = f"cannot {doing} {id}: its worker does not run or cannot be reached{why}"
            raise Refused(words, code="not_running")
        return facts, facts.link


def _refuse_other_account(facts: Facts, doing: str) -> None:
    """Refuse a session of another account, by the last claim: no pass may have judged it yet."""
    if facts.run.claim is None and facts.instance.backend and facts.record.account:
        why = "its backend has not said yet whose session it has"
        raise TryLater(f"cannot {doing} {facts.id}: {why}", code="not_sent")
    if facts.is_other_account:
        why = reason_of(OTHER_ACCOUNT).in_full(facts.id)
        raise Refused(f"cannot {doing} {facts.id}: {why}", code=OTHER_ACCOUNT)


def _because(facts: Facts, error: EngineError) -> EngineError:
    """Return the engine's refusal with the cause that the session's state shows everywhere."""
    if facts.record.status is ConnectionStatus.CONNECTED or not facts.sentence:
        return error
    return EngineError(f"{error} ({facts.sentence})", code=error.code)


def _unsent(facts: Facts, error: LinkError | EngineError) -> TooLarge | TryLater | EngineError:
    """Return the error of a failed send: surely not sent, or unknown."""
    if error.code == "oversized":
        return TooLarge(f"cannot send with {facts.id}: the message is too long", field="body")
    if error.code == "busy":
        return TryLater(f"cannot send with {facts.id}: {error}", code="busy")
    if isinstance(error, EngineError) and error.code not in _MAY_BE_DONE:
        return _because(facts, error)
    return _unknown(facts.id, error)


def _unknown(id: InstanceId, cause: object) -> TryLater:
    """The message may have gone out: the caller gets one code for that, and must not guess."""
    return TryLater(f"cannot tell whether {id} sent the message: {cause}", code="unknown_outcome")


PART = 192 * 1024
"""Bytes of one part: as base64 well below a frame of the link."""


async def in_parts(
    link: WorkerLink, id: InstanceId, message: Mapping[str, Any], file: Path | None = None
) -> Mapping[str, Any]:
    """The message with the file's name in place of its content; a short one as it is. The engine
    takes a long file in parts by its command `file_part`, each after the one before. A failure here
    comes before the message: it was surely not sent."""
    text = content if isinstance(content := message.get("content"), str) else ""
    if file is None and len(text) <= PART:
        return message
    upload, index, size = secrets.token_hex(16), 0, 0
    try:
        source = await asyncio.to_thread(open_plain, file) if file else BytesIO(b64decode(text))
        with source:
            while raw := await asyncio.to_thread(source.read, PART):
                part = {"upload": upload, "index": index, "data": b64encode(raw).decode()}
                await link.call("command", {"name": "file_part", "arguments": part}, timeout=15.0)
                index, size = index + 1, size + len(raw)
    except OSError as error:
        cause = f"the file of the message cannot be read: {error.strerror}"
        raise TryLater(f"cannot send with {id}: {cause}", code="file_unreadable") from error
    except (LinkError, EngineError) as error:
        may_pass = ("timeout", "internal", "busy", "file_lost")
        if isinstance(error, LinkError) or error.code in may_pass:
            cause = f"cannot hand the file over to {id}: {error}"
            raise TryLater(cause, code="not_sent") from error
        if error.code == "invalid_request":
            cause = f"cannot send this file with {id}: its engine sends none of this size"
            raise Refused(cause, code="not_supported") from error
        raise
    rest = {name: value for name, value in message.items() if name != "content"}
    return {**rest, "upload": upload, "size": size}
