"""Finding what a message to send is about, and what of a chat was not marked as read yet."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InvalidRequest
from agent.wings.messages import lookup
from agent.wings.messages.lookup import Lookup, mark_of, set_mark
from agent.wings.messages.record import clean
from agent.wings.messages.spool.line import entry_of
from agent.wings.messages.spool.spool import Spool
from tests.wings.messages.spools import message, segments, spool_at

ANN, BOB = "5511900000002@s.whatsapp.net", "5511900000003@s.whatsapp.net"
LID = "123456789012345@lid"
GROUP = "120363041234567890@g.us"


async def at_once(work: Callable[..., Any], *args: Any) -> Any:
    return work(*args)


def keep(spool: Spool, *records: dict[str, Any]) -> None:
    spool.append([entry_of(clean(record)) for record in records])


def ask(spool: Spool, call: str, **args: Any) -> Any:
    return asyncio.run(Lookup(spool, at_once).works[call](args))  # type: ignore[arg-type]


def find(spool: Spool, chat: str, *ids: str) -> Any:
    return ask(spool, "messages_find", chat=chat, message_ids=list(ids))["found"]


def test_a_message_is_found_in_its_own_chat_only(tmp_path: Path) -> None:
    spool = spool_at(tmp_path, most=32)
    keep(spool, message(1, "a “secret” of Ann", alias=LID), message(2, from_me=True, sender=""))
    keep(spool, message(3, chat=GROUP, sender=BOB, alias=LID, type="image", text="look"))
    for number in range(10, 20):
        keep(spool, message(number))
    assert len(segments(tmp_path)) > 3, "it looks into several files"
    ann = {
        "chat": ANN,
        "sender": ANN,
        "from_me": False,
        "type": "text",
        "text": "a “secret” of Ann",
    }
    assert find(spool, ANN, "000001", "000002", "none") == {
        "000001": ann,
        "000002": {"chat": ANN, "sender": "", "from_me": True, "type": "text", "text": "message 2"},
    }
    assert find(spool, LID, "000001") == {"000001": ann}, "her other name"
    assert find(spool, BOB, "000001") == {}
    assert find(spool, LID, "000003") == {}, "a group is no chat with one who writes in it"
    assert find(spool, GROUP, "000003")["000003"]["sender"] == BOB
    with pytest.raises(InvalidRequest):
        ask(spool, "messages_find", chat=ANN, message_ids="000001")
    with pytest.raises(InvalidRequest):
        ask(spool, "messages_find", message_ids=[])


def test_whom_whatsapp_named_otherwise_is_named_so_again(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    keep(spool, {**message(1), "_raw": {"chat": LID, "sender": LID}})
    assert find(spool, ANN, "000001")["000001"]["sender"] == LID
    assert ask(spool, "messages_unread", chat=ANN)["messages"] == [("000001", LID, LID)]
    assert not any("_raw" in record for record in spool.page(0, 10).records)


def test_a_reaction_with_the_same_id_is_not_the_message(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    record = {**message(1), "id": "r:1", "kind": "message_reaction", "emoji": "!"}
    keep(spool, record)
    assert find(spool, ANN, "000001") == {}


def test_what_came_since_the_last_mark_is_unread(tmp_path: Path) -> None:
    spool = spool_at(tmp_path, most=64)
    keep(spool, *(message(number) for number in range(30)))
    keep(spool, message(40, from_me=True), message(41, chat=BOB, sender=BOB))
    first = ask(spool, "messages_unread", chat=ANN)
    assert sorted(first["messages"]) == [(f"{number:06d}", ANN, ANN) for number in range(30)]
    assert first["newest"] == spool.newest
    keep(spool, message(50))
    ask(spool, "messages_marked", chat=ANN, cursor=first["newest"])
    again = spool_at(tmp_path, most=64)
    assert ask(again, "messages_unread", chat=ANN)["messages"] == [("000050", ANN, ANN)]
    assert ask(again, "messages_unread", chat=BOB)["messages"] == [("000041", BOB, BOB)]


def test_marks_are_bounded_and_a_damaged_file_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = spool_at(tmp_path)
    ask(spool, "messages_marked", chat=ANN, cursor=1)
    assert not (tmp_path / "messages").exists(), "nothing is kept, nothing is marked"
    keep(spool, message(1))
    monkeypatch.setattr(lookup, "MOST_MARKED", 3)
    for number in range(5):
        set_mark(spool.folder, f"chat {number}", 7 + number)
    set_mark(spool.folder, "chat 4", 2)
    marked = [mark_of(spool.folder, f"chat {number}") for number in range(5)]
    assert marked == [0, 0, 9, 10, 11]
    file = tmp_path / "messages" / "read.json"
    assert file.stat().st_mode & 0o777 == 0o600
    for rubbish in (b"{", b"[1]", b'{"chat 4": "x"}', b"\xff"):
        file.write_bytes(rubbish)
        assert mark_of(spool.folder, "chat 4") == 0
    set_mark(spool.folder, "chat 4", 2)
    assert mark_of(spool.folder, "chat 4") == 2
