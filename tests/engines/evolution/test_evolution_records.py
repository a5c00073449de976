"""What real servers told of messages (tests/standin/evolution/messages-*.json), as it is kept."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.engines.evolution.chat.content import hex_of, number_of
from agent.engines.evolution.chat.records import records_of, stored_records
from agent.engines.evolution.webhook.hooks import read_event
from agent.wings.messages.record import clean, encode
from tests.standin.evolution import __file__ as _STAND_IN

TOLD = {
    version: json.loads(Path(_STAND_IN).with_name(f"messages-{version}.json").read_text())
    for version in ("1.8.6", "2.3.6")
}
PEER, LID = "5511888880001@s.whatsapp.net", "15511888880001@lid"
ME = "5511900000000@s.whatsapp.net"
BOTH = pytest.mark.parametrize("version", ["1.8.6", "2.3.6"])


def kept(version: str, what: str) -> list[dict[str, Any]]:
    """As the spool keeps it."""
    events = [
        read_event({"event": name, "instance": "sales", "data": content})
        for name, content in TOLD[version][what].get("events", ())
    ]
    found = [event for event in events if event is not None]
    return [clean(one) for event in found for one in records_of(event.kind, event.content)]


def the(version: str, what: str) -> dict[str, Any]:
    (record,) = kept(version, what)
    return record


@BOTH
def test_a_text_and_who_wrote_it(version: str) -> None:
    record = the(version, "in text")
    id = TOLD[version]["in text"]["id"]
    assert record.pop("at") > 1_700_000_000
    assert record == {
        "v": 1,
        "kind": "message",
        "id": f"m:{PEER}:{PEER}:{id}",
        "chat": PEER,
        "from_me": False,
        "sender": PEER,
        "alias": "" if version == "1.8.6" else LID,
        "message_id": id,
        "type": "text",
        "text": "hello one",
        "name": "5511888880001",
        "fresh": True,
    }


@BOTH
def test_what_a_message_brings(version: str) -> None:
    told = TOLD[version]["in text"]["id"]
    reply = the(version, "in reply")
    assert reply["text"] == "a reply"
    assert reply["quote"] == {"message_id": told, "sender": ME, "text": "what it was"}
    assert reply["mentions"] == [ME]
    image = the(version, "in image")
    assert (image["type"], image["text"]) == ("image", "look")
    assert image["media"] == {
        "mimetype": "image/jpeg",
        "size": 1234,
        "sha256": "73" * 32,
        "width": 4,
        "height": 3,
    }
    assert image["_media"]["chat"] == (PEER if version == "1.8.6" else LID)
    place = the(version, "in location")["location"]
    assert place == {"latitude": 1.5, "longitude": -2.5, "name": "here"}
    assert the(version, "in contact")["contacts"][0]["name"] == "Eve"
    poll = {"question": "which", "options": ["a", "b"], "several": False}
    assert the(version, "in poll")["poll"] == poll


@BOTH
def test_what_is_about_another_message(version: str) -> None:
    told = TOLD[version]["in text"]["id"]
    reaction = the(version, "in reaction")
    assert (reaction["kind"], reaction["message_id"]) == ("message_reaction", told)
    assert (reaction["emoji"], reaction["sender"]) == ("\N{THUMBS UP SIGN}", PEER)
    deletion = the(version, "in delete")
    assert (deletion["kind"], deletion["message_id"]) == ("message_delete", told)
    assert (deletion["chat"], deletion["from_me"]) == (PEER, False)


def test_an_edit_as_far_as_each_version_tells_it() -> None:
    """1.8 says that something changed, and not what."""
    assert kept("1.8.6", "in edit") == []
    edit = the("2.3.6", "in edit")
    assert (edit["kind"], edit["text"]) == ("message_edit", "hello two")
    assert edit["message_id"] == TOLD["2.3.6"]["in text"]["id"]


def test_a_message_of_a_group_has_its_author() -> None:
    record = the("2.3.6", "in group")
    assert (record["chat"], record["sender"]) == ("120363000000000001@g.us", PEER)
    assert record["alias"] == LID


@BOTH
def test_what_the_session_sent_and_what_became_of_it(version: str) -> None:
    message, ack = sorted(kept(version, "text"), key=lambda it: it["kind"])
    id = TOLD[version]["text"]["answer"][1]["key"]["id"]
    assert (message["from_me"], message["sender"], message["text"]) == (True, "", "out one")
    assert message["id"] == f"m:{PEER}:me:{id}"
    assert (ack["kind"], ack["state"], ack["message_id"]) == ("message_ack", "delivered", id)
    assert ack["id"] == f"a:{id}:{PEER}:delivered"


def test_the_servers_store_tells_the_same_with_the_same_ids() -> None:
    rows = TOLD["2.3.6"]["find time"]["answer"][1]["messages"]["records"]
    stored = {one["id"]: clean(one) for row in rows for one in stored_records(row)}
    for what in ("in reply", "in image", "in location", "in contact", "in poll", "in reaction"):
        record = the("2.3.6", what)
        twin = stored[record["id"]]
        assert {**twin, "fresh": True} == {"fresh": True, **record}, what
    told = [one for what in ("reply", "contact") for one in kept("2.3.6", what)]
    assert {one["id"] for one in told} <= set(stored)
    deleted = TOLD["2.3.6"]["in text"]["id"]
    assert f"d:{PEER}:{PEER}:{deleted}" in stored


def test_the_older_store_tells_the_same_with_the_same_ids() -> None:
    rows = TOLD["1.8.6"]["find where"]["answer"][1]
    stored = [clean(one) for row in rows for one in stored_records(row)]
    assert [{**one, "fresh": True} for one in stored] == kept("1.8.6", "in text")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=12,
)
_KEYS = st.fixed_dictionaries(
    {"remoteJid": st.text(max_size=300), "id": st.text(max_size=300)},
    optional=dict.fromkeys(("fromMe", "participant", "remoteJidAlt"), _JSON),
)
_NAMES = st.sampled_from(
    ["conversation", "imageMessage", "pollCreationMessageV3", "reactionMessage", "locationMessage"]
)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["MESSAGES_UPSERT", "MESSAGES_UPDATE", "MESSAGES_EDITED", "CALL"]),
    st.fixed_dictionaries(
        {"key": _KEYS | _JSON}, optional={"message": st.dictionaries(_NAMES, _JSON)}
    )
    | _JSON,
)
def test_whatever_is_told_is_kept_or_left_out(kind: str, content: Any) -> None:
    found = records_of(kind, content)
    found += list(stored_records(content)) if isinstance(content, Mapping) else []
    for record in found:
        encode({**clean(record), "cursor": 1, "kept": 1.0})


@pytest.mark.parametrize(
    ("raw", "number"),
    [
        (7, 7),
        ("7", 7),
        ({"low": 1, "high": 1, "unsigned": True}, 2**32 + 1),
        ({"low": -1, "high": 0}, 2**32 - 1),
        ("x", None),
        (None, None),
        (1.5, None),
    ],
)
def test_numbers_as_javascript_writes_them(raw: Any, number: int | None) -> None:
    assert number_of(raw) == number


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ("c3M=", "7373"),
        ({"0": 115, "1": 115}, "7373"),
        ({"type": "Buffer", "data": [115, 115]}, "7373"),
        ("no base64!", ""),
        ({"0": "x"}, ""),
        (None, ""),
    ],
)
def test_bytes_as_javascript_writes_them(raw: Any, found: str) -> None:
    assert hex_of(raw) == found
