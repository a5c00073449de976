"""What a webhook posts with `format = "evolution"`: events in the shape of Evolution API 2.3.6."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from agent.core.event_json import wall_text
from agent.core.model import ConnectionStatus, Instance, InstanceId, JournalEntry
from agent.daemon.wing_parts import Around, Posting
from agent.errors import NotFound, WaError
from agent.wings.compat.codes import CODE_KIND, show_code
from agent.wings.compat.names import ACKS, instance_uuid, jid_of, row_id, state_of
from agent.wings.compat.raw_message import key_of, own_id, raw_message

LOOK_EVERY = 2.0
"""Seconds between two looks for new codes to scan."""
_CODES = {"logout": 401, "temporary_ban": 402, "account_locked": 403, "banned": 406}
"""WhatsApp's numbers of reasons for which Evolution ends a session."""
_CLOSED = 428


def open_format(around: Around) -> "EvolutionFormat":
    return EvolutionFormat(around)


class EvolutionFormat:
    def __init__(self, around: Around) -> None:
        self._around = around
        api = around.config.api
        self._server = api.public_url or (f"http://{api.listen}" if api.listen else "")

    async def of_event(self, entry: JournalEntry, target: str) -> Sequence[Posting]:
        """Of the journal only changes of a session's status have a form there."""
        if entry.kind != "status" or entry.instance is None:
            return ()
        try:
            view = self._around.supervisor.view(entry.instance)
        except NotFound:
            return ()
        status, own = ConnectionStatus(entry.detail["status"]), self._account(entry.instance)
        data = {"instance": entry.instance, "state": state_of(status), "statusReason": 200}
        if data["state"] == "open":
            data["wuid"] = own
        posts = [("connection.update", data)]
        if data["state"] == "close":
            reason = str(entry.detail.get("reason", ""))
            data["statusReason"] = _CODES.get(reason, _CLOSED)
            if reason in _CODES:
                posts = [*_ending(view.instance, reason, entry.wall), *posts]
        return [
            self._post(entry.instance, event, data, entry.wall, target) for event, data in posts
        ]

    async def of_record(
        self, id: InstanceId, record: Mapping[str, Any], target: str
    ) -> Sequence[Posting]:
        instance = self._around.supervisor.view(id).instance
        made = _OF_KIND.get(str(record.get("kind")))
        if made is None:
            return ()
        outbox, own = self._around.outbox, record.get("from_me") is True
        # Evolution tells them apart: what it was asked to send, and what the phone sent.
        here = own and outbox is not None and await outbox.knows(id, own_id(record))
        event, data = made(instance, record, here)
        wall = float(record.get("kept") or time.time())
        return [self._post(id, event, data, wall, target)]

    async def passing(
        self, wants: Callable[[InstanceId, str], bool], target: str
    ) -> AsyncIterator[Posting]:
        """Each code to scan as it appears: it is a secret of a moment, and kept nowhere."""
        shown: dict[InstanceId, tuple[str, float]] = {}
        supervisor = self._around.supervisor
        while True:
            waiting = [
                id
                for id, view in supervisor.views().items()
                if view.status is ConnectionStatus.QR_REQUIRED and wants(id, CODE_KIND)
            ]
            shown = {id: shown[id] for id in waiting if id in shown}
            for id in waiting:
                text, until = shown.get(id, ("", 0.0))
                if time.monotonic() < until:
                    continue
                try:
                    code = await supervisor.asking.qr(id)
                except WaError:
                    continue  # its worker is away: a code comes when it is back
                if code is None or code.text == text:
                    continue
                shown[id] = code.text, time.monotonic() + max(code.expires_in, LOOK_EVERY)
                drawn = await asyncio.to_thread(show_code, code.text)
                data = {"qrcode": {"instance": id, "pairingCode": None, **drawn}}
                yield self._post(id, "qrcode.updated", data, time.time(), target)
            await asyncio.sleep(LOOK_EVERY)

    def _post(self, id: InstanceId, event: str, data: Any, wall: float, target: str) -> Posting:
        content = {
            "event": event,
            "instance": id,
            "data": data,
            "destination": target,
            "date_time": wall_text(wall),
            "server_url": self._server,
            "apikey": None,
        }
        if account := self._account(id):
            content["sender"] = account
        return Posting(event, content)

    def _account(self, id: InstanceId) -> str:
        try:
            return jid_of(self._around.supervisor.view(id).record.account)
        except NotFound:
            return ""


def _ending(instance: Instance, reason: str, wall: float) -> list[tuple[str, Any]]:
    code = _CODES[reason]
    output = {"statusCode": code, "payload": {"statusCode": code, "message": reason}}
    ended = {"error": {"output": output}, "date": wall_text(wall)}
    status = {
        "instance": instance.id,
        "status": "closed",
        "disconnectionAt": wall_text(wall),
        "disconnectionReasonCode": code,
        "disconnectionObject": json.dumps(ended, separators=(",", ":")),
    }
    return [("status.instance", status), ("logout.instance", None)]


def _message(instance: Instance, record: Mapping[str, Any], here: bool) -> tuple[str, Any]:
    event = "send.message" if here else "messages.upsert"
    return event, raw_message(instance, record, sent_here=here)


def _edit(_: Instance, record: Mapping[str, Any], here: bool) -> tuple[str, Any]:
    key = {name: key_of(record)[name] for name in ("remoteJid", "fromMe", "id")}
    edited = {"conversation": record.get("text", "")}
    data = {"key": key, "type": "MESSAGE_EDIT", "editedMessage": edited}
    return "send.message.update" if here else "messages.edited", data


def _delete(_: Instance, record: Mapping[str, Any], here: bool) -> tuple[str, Any]:
    return "messages.delete", key_of(record)


def _ack(instance: Instance, record: Mapping[str, Any], here: bool) -> tuple[str, Any]:
    id = record.get("message_id", "")
    data = {
        "keyId": id,
        "remoteJid": jid_of(record.get("chat", "")),
        "fromMe": True,
        "status": ACKS.get(record.get("state", ""), "PENDING"),
        "instanceId": instance_uuid(instance),
        "messageId": row_id(instance, id),
    }
    if participant := jid_of(record.get("participant", "")):
        data["participant"] = participant
    return "messages.update", data


_OF_KIND: Mapping[str, Callable[[Instance, Mapping[str, Any], bool], tuple[str, Any]]] = {
    "message": _message,
    "message_reaction": _message,
    "message_edit": _edit,
    "message_delete": _delete,
    "message_ack": _ack,
}
"""A call, a vote and a gap have no form there."""
