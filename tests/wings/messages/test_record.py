"""A record: whoever wrote to the session chose what is in it, and it is kept as well as can be."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.link.wire import LINE_LIMIT, encode
from agent.wings.messages import record as records
from agent.wings.messages.spool.line import BEYOND, Line, entry_of, read_line, write_line
from tests.wings.messages.spools import message

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
names = sorted({name for own in records._BY_KIND.values() for name in own} | {"_media", "x"})


@example({"id": "1", "kind": "message"}, {"_media": {"": float("inf")}})
@given(
    st.fixed_dictionaries(
        {"id": st.text(min_size=1, max_size=200), "kind": st.sampled_from(records.KINDS)}
    ),
    st.dictionaries(st.sampled_from(names), plain),
)
def test_whatever_a_field_holds_the_record_is_kept_and_read_as_it_was(
    fixed: dict[str, Any], fields: dict[str, Any]
) -> None:
    clean = records.clean({**fields, **fixed})
    assert records.clean(clean) == clean
    entry = entry_of(clean)
    raw = write_line(7, 1.5, entry)
    assert raw.count(b"\n") == 1
    line = read_line(raw)
    assert line == Line(7, 1.5, entry.id, entry.body)
    given_out = line.record()
    json.dumps(given_out, allow_nan=False)
    encode({"records": [given_out]})
    assert "_media" not in given_out and "x" not in given_out
    assert (given_out["cursor"], given_out["kept"]) == (7, 1.5)
    for name, value in clean.items():
        if not name.startswith("_"):
            assert given_out[name] == value or "\\ud" in json.dumps(value)


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"id": "", "kind": "message"},
        {"id": "x" * 201, "kind": "message"},
        {"id": "x", "kind": "message_gap"},
        {"id": "x"},
    ],
)
def test_a_record_without_an_id_or_a_kind_is_none(raw: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="record"):
        records.clean(raw)


@pytest.mark.parametrize("sign", ["x", "🙂", "\0", "\ud800"])
def test_a_text_is_whole_up_to_its_limit_and_fits_into_an_answer(sign: str) -> None:
    text = sign * records.LONGEST_TEXT
    entry = entry_of(records.clean(message(1, text)))
    assert len(entry.body) <= records.LONGEST
    line = read_line(write_line(BEYOND - 1, 1.79e9, entry))
    assert line is not None
    given_out = line.record()
    if len(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace")) < 255 * 1024:
        assert given_out["text"] == text.replace("\ud800", "?")
        assert "cut" not in given_out
    else:
        assert given_out["cut"] is True and given_out["text"] == text[: len(given_out["text"])]
    assert len(encode({"records": [given_out]})) < LINE_LIMIT
    assert len(json.dumps(given_out)) <= line.wire_size


def test_a_record_names_persons_not_their_devices() -> None:
    jid = "4915112345678:12@s.whatsapp.net"
    told = {**message(1), "sender": jid, "alias": "777:3@lid"}
    found = records.clean(told)
    assert found["sender"] == "4915112345678@s.whatsapp.net"
    assert (found["alias"], found["id"]) == ("777@lid", told["id"])
