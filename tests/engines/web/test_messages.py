"""Messages in the bundle's words, and what its answer means."""

from typing import Any

import pytest

from agent.engines.web.page_calls import outcome, read_message
from agent.errors import EngineError, InvalidRequest


@pytest.mark.parametrize(
    ("to", "chat"),
    [
        ("+55 (11) 99999-9999", "5511999999999@c.us"),
        ("5511999999999@s.whatsapp.net", "5511999999999@c.us"),
        ("120363000000000000@g.us", "120363000000000000@g.us"),
        ("123456789@lid", "123456789@lid"),
    ],
)
def test_a_receiver_is_a_number_or_a_chat(to: str, chat: str) -> None:
    assert read_message({"to": to, "text": "hi"}).to == chat


def test_a_message_asks_for_no_link_preview_and_reads_nothing() -> None:
    asked = read_message({"to": "5511999999999", "text": "hi"})
    assert asked.options["linkPreview"] is False and asked.options["markIsRead"] is False
    assert "hi" not in repr(asked)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"text": ""}, "text"),
        ({"type": "fax"}, "type"),
        ({"type": "media", "content": "eA=="}, "mimetype"),
        ({"type": "media", "url": "file:///x", "mimetype": "a/b"}, "url"),
        ({"type": "location", "latitude": 90.1, "longitude": 0}, "latitude"),
        ({"type": "contact", "name": "Ann", "phone": "Bob"}, "phone"),
        ({"type": "reaction", "message_id": "a_b", "emoji": "x"}, "message_id"),
        ({"type": "edit", "message_id": "3EB0"}, "text"),
        ({"text": "x", "quote": "a_b"}, "quote"),
        *(({"text": "x", "to": to}, "to") for to in (None, "", "55'+alert(1)+'@c.us", "5" * 60)),
    ],
)
def test_a_message_that_cannot_be_sent_is_refused(message: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_message({"to": "5511999999999", **message})
    assert caught.value.field == field


ABOUT = {"message_id": "3EB0A1"}
FILE = {"upload": "0123456789abcdef", "size": 7}


@pytest.mark.parametrize(
    ("type", "message", "content"),
    [
        ("media", {"mimetype": "a/b", **FILE}, FILE),
        (
            "location",
            {"latitude": -33.4, "longitude": 151, "name": "here"},
            {"lat": -33.4, "lng": 151.0, "name": "here"},
        ),
        ("contact", {"name": "Ann", "phone": "+55 1 77-7"}, {"id": "551777@c.us", "name": "Ann"}),
        ("reaction", {**ABOUT, "emoji": ""}, {"id": "3EB0A1", "emoji": "", "by": ""}),
        ("edit", {**ABOUT, "text": "x"}, {"id": "3EB0A1", "text": "x"}),
        ("delete", {**ABOUT, "sender": "551@s.whatsapp.net"}, {"id": "3EB0A1", "by": "551@c.us"}),
    ],
)
def test_every_kind_of_message_becomes_a_call_of_the_bundle(
    type: str, message: dict[str, Any], content: dict[str, Any]
) -> None:
    asked = read_message({"to": "5511999999999", "type": type, **message})
    assert (asked.kind, asked.content) == ("file" if type == "media" else type, content)
    assert asked.about == ("3EB0A1" if type in ("reaction", "delete") else "")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"ok": {"ack": 1, "result": "OK"}}, "sent"),
        ({"ok": {"ack": 0, "result": "ERROR_NETWORK"}}, "unknown"),
        ({"error": "Error", "message": "timeout"}, "unknown"),
        (None, "unknown"),
    ],
)
def test_outcomes_of_answers(told: object, expected: str) -> None:
    assert outcome("X", told)["outcome"] == expected


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ({"ok": {"result": "ERROR_EXPIRED"}}, "not_sent"),
        ({"error": "chat_not_found", "message": "Chat not found"}, "chat_not_found"),
        ({"error": "TypeError", "message": "x is not a function"}, "page_error"),
    ],
)
def test_a_sure_failure_is_an_error(told: object, code: str) -> None:
    with pytest.raises(EngineError) as caught:
        outcome("X", told)
    assert caught.value.code == code
