"""What the stand-in keeps of messages, and how both versions show it: 2.x by pages and by time, 1.8
so many of a folder, in no order."""

import time
import uuid
from datetime import datetime
from typing import Any

from tests.standin.evolution.instances import Instance

OWNER_JID = "5511777776666@s.whatsapp.net"
LID = "15511777776666@lid"


def new_id() -> str:
    return "3EB0" + uuid.uuid4().hex[:18].upper()


def incoming(
    instance: Instance, message: dict[str, Any], *, old: bool, id: str = "", at: float = 0.0
) -> dict[str, Any]:
    """As the server tells and stores it. People are known to 2.x by WhatsApp's other name."""
    key: dict[str, Any] = {"remoteJid": OWNER_JID, "fromMe": False, "id": id or new_id()}
    if not old:
        key |= {"remoteJid": LID, "remoteJidAlt": OWNER_JID, "participant": ""}
        key["addressingMode"] = "lid"
    kind = next(name for name in message if name != "messageContextInfo")
    told = {"key": key, "pushName": "Eve", "message": message, "messageType": kind}
    told |= {"messageTimestamp": int(at or time.time()), "source": "web"}
    if old:
        return {**told, "contextInfo": None, "owner": instance.name}
    return {**told, "status": "DELIVERY_ACK", "instanceId": instance.id}


def find(instance: Instance, asked: dict[str, Any], *, old: bool) -> Any:
    rows = instance.stored
    key = asked.get("where", {}).get("key", {})
    if old:
        if key.get("id"):
            return [row for row in rows if row["key"]["id"] == key["id"]]
        every = sorted(rows, key=lambda row: row["key"]["id"])  # as its files lie in the folder
        return every[: asked.get("limit") or len(every)]
    rows = [row for row in rows if all(row["key"].get(name) == key[name] for name in key)]
    span = asked.get("where", {}).get("messageTimestamp") or {}
    if span.get("gte") and span.get("lte"):
        first, last = (datetime.fromisoformat(span[name]).timestamp() for name in ("gte", "lte"))
        rows = [row for row in rows if int(first) <= row["messageTimestamp"] <= int(last)]
    rows = sorted(rows, key=lambda row: row["messageTimestamp"], reverse=True)
    size, page = asked.get("offset") or 50, asked.get("page") or 1
    shown = [{"MessageUpdate": [], **row} for row in rows[size * (page - 1) : size * page]]
    pages = -(-len(rows) // size)
    told = {"total": len(rows), "pages": pages, "currentPage": page, "records": shown}
    return {"messages": told}


def update(instance: Instance, id: str, status: str) -> None:
    """2.x notes what became of a message beside it."""
    for row in instance.stored:
        if row["key"]["id"] == id:
            row.setdefault("MessageUpdate", []).append({"status": status})
