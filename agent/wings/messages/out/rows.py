"""The statements of the outbox: what is done with its rows inside one transaction."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from sqlite_utils import Database

from agent.core.model import InstanceId
from agent.errors import Refused
from agent.wings.messages.out.message import OutMessage
from agent.wings.messages.out.states import State, after_ack

_COLUMNS = ", ".join(field.name for field in fields(OutMessage))
CUT = 64
"""Characters that an event has of WhatsApp's id."""


@dataclass(frozen=True, slots=True)
class NewMessage:
    """As it is taken: the row without its number, and what it says."""

    row: OutMessage
    content: str
    """JSON; what is in the row's file is not in it."""


@dataclass(frozen=True, slots=True)
class Ack:
    instance: InstanceId
    message_id: str
    word: str
    wall: float


def take_row(db: Database, new: NewMessage) -> tuple[OutMessage, bool]:
    row = new.row
    if row.repeats:
        found = find_rows(db, "select {} from messages where repeats = ?", row.repeats)
        if found:
            if found[0].digest != row.digest:
                raise Refused(
                    "cannot use this Idempotency-Key again: it was sent with another request",
                    field="Idempotency-Key",
                    code="idempotency_key_reused",
                )
            return found[0], True
    return _insert(db, new), False


def _insert(db: Database, new: NewMessage) -> OutMessage:
    row = new.row
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    del values["number"]
    values |= {
        "state": row.state.value,
        "repeats": row.repeats or None,
        "answer": json.dumps(dict(row.answer)),
        "content": new.content,
    }
    marks = ", ".join("?" * len(values))
    made = db.execute(
        f"insert into messages ({', '.join(values)}) values ({marks})", list(values.values())
    )
    number = made.lastrowid
    assert number is not None
    return find_rows(db, "select {} from messages where number = ?", number)[0]


def change_row(db: Database, number: int, columns: Mapping[str, Any]) -> bool:
    stored = {
        name: json.dumps(dict(value)) if isinstance(value, Mapping) else value
        for name, value in columns.items()
    }
    if stored.get("repeats") == "":
        stored["repeats"] = None  # unique, and only null may stand twice
    names = ", ".join(f"{name} = ?" for name in stored)
    done = db.execute(
        f"update messages set {names} where number = ? and state = 'accepted'",
        [*stored.values(), number],
    )
    return done.rowcount > 0


def note_ack(db: Database, ack: Ack) -> int:
    rows = "select {} from messages where message_id = ? and instance = ?"
    found = find_rows(db, rows, ack.message_id, ack.instance)
    if not found and len(ack.message_id) == CUT:
        longer = "select {} from messages where message_id between ? and ? and instance = ?"
        found = find_rows(db, longer, ack.message_id, ack.message_id + "\x7f", ack.instance)
    for row in found:
        state = after_ack(row.state, ack.word)
        if state is row.state:
            continue
        why = ("refused", "WhatsApp refused it afterwards") if state is State.FAILED else ("", "")
        db.execute(
            "update messages set state = ?, changed_wall = ?, reason = ?, sentence = ?"
            " where number = ?",
            [state.value, ack.wall, *why, row.number],
        )
        return 1
    return 0


def forget_rows(db: Database, before_wall: float, most: int) -> int:
    old = "delete from messages where state <> 'accepted' and changed_wall < ?"
    gone = db.execute(old, [before_wall]).rowcount
    over = (
        "delete from messages where number in (select number from messages"
        " where state <> 'accepted' order by changed_wall desc limit -1 offset ?)"
    )
    return gone + db.execute(over, [most]).rowcount


def find_rows(db: Database, sql: str, *given: Any) -> list[OutMessage]:
    found = db.execute(sql.format(_COLUMNS), list(given)).fetchall()
    names = [field.name for field in fields(OutMessage)]
    return [_message(dict(zip(names, row, strict=True))) for row in found]


def _message(row: dict[str, Any]) -> OutMessage:
    answer: Any = {}
    with contextlib.suppress(ValueError):
        answer = json.loads(row["answer"])
    return OutMessage(
        **{
            **row,
            "instance": InstanceId(row["instance"]),
            "state": State(row["state"]),
            "repeats": row["repeats"] or "",
            "answer": answer if isinstance(answer, dict) else {},
        }
    )
