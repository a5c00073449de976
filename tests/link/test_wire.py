"""Lines and messages against hostile bytes: only messages or `LinkError` ever come out."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.words import Claim, ConnectionStatus, Happening, InstanceId
from agent.errors import EngineError, LinkError
from agent.link.client import Claimed, Event, Reply, read_hello, read_workers, sound
from agent.link.wire import LINE_LIMIT, Call, Hello, Lines, encode, read_call, reply
from tests.refused import refused

numbers = st.floats(0, 1e9, allow_nan=False)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc\u20ac"), inner),
    max_leaves=10,
)
objects = st.dictionaries(st.text("xyz\u00e9"), plain, max_size=4)
codes = st.from_regex(r"[a-z0-9_]{1,20}", fullmatch=True)
words = st.text(st.characters(categories=["L", "N"]), max_size=60)
claims = st.builds(
    Claim,
    status=st.sampled_from(ConnectionStatus),
    reason=codes | st.just(""),
    phase=codes | st.just(""),
    progress=st.none() | st.floats(0, 1),
    proof_age=st.none() | numbers,
    still_for=numbers,
    paired=st.booleans(),
    account=words,
    until_wall=st.none() | numbers,
    raw=words,
    version=words,
    useless=st.lists(codes, max_size=3).map(tuple),
)
happenings = st.builds(Happening, codes, objects)


def told(what: Claim | Happening) -> Mapping[str, Any]:
    """As a worker tells it."""
    if isinstance(what, Claim):
        line = encode({"t": "claim", "claim": asdict(what)})
    else:
        line = encode({"t": "event", "kind": what.kind, "detail": what.detail})
    message: Mapping[str, Any] = json.loads(line)
    return message


def lines_in(*chunks: bytes) -> list[bytes]:
    lines = Lines()
    return [line for chunk in chunks for line in lines.feed(chunk)]


@given(st.lists(claims | happenings, max_size=5), st.integers(1, 40))
def test_a_workers_messages_arrive_as_they_were_however_they_are_cut(
    said: list[Any], size: int
) -> None:
    stream = b"".join(encode(told(each)) for each in said)
    chunks = (stream[start : start + size] for start in range(0, len(stream), size))
    heard = [read_workers(line) for line in lines_in(*chunks)]
    for each, message in zip(said, heard, strict=True):
        if isinstance(each, Claim):
            assert message == Claimed(each) and sound(each) == each
        else:
            assert message == Event(each.kind, dict(each.detail))


@given(st.integers(0, 2**50), objects, words, codes)
def test_calls_and_replies_arrive_as_they_were(
    number: int, value: dict[str, Any], text: str, code: str
) -> None:
    def heard(message: Mapping[str, Any]) -> Any:
        return read_workers(encode(message)[:-1])

    assert heard(reply(number, value)) == Reply(number, value)
    error = EngineError(text, field=text, code=code)
    assert heard(reply(number, error)) == Reply(number, {}, text, code, text)
    line = encode({"t": "call", "n": number, "do": code, "args": value})[:-1]
    assert read_call(line) == Call(number, code, value)


def test_f83_control_characters_never_reach_a_person() -> None:
    hello = Hello(InstanceId("a"), "\x1b[2J", "x\ny", 1)
    assert read_hello(asdict(hello), hello.id) == Hello(hello.id, " [2J", "x y", 1)


def read_all(lines: Iterable[bytes]) -> None:
    for line in lines:
        for read in (read_workers, read_call):
            try:
                read(line)
            except LinkError as error:
                assert error.code == "malformed"
                assert len(str(error)) < 500 and str(error).isprintable()


@given(st.binary(max_size=300))
def test_f59_f86_any_bytes_are_messages_or_an_error(rubbish: bytes) -> None:
    read_all(lines_in(rubbish, b"\n"))


@given(claims | happenings, st.sampled_from(["t", "claim", "kind", "detail", "n", "do"]), plain)
def test_a_message_with_any_wrong_field_is_read_or_refused(
    what: Any, key: str, value: object
) -> None:
    read_all(lines_in(encode({**told(what), key: value})))


@given(st.dictionaries(st.sampled_from(Claim.__slots__), plain))
def test_a_claim_of_anything_is_sound_or_refused(fields: dict[str, Any]) -> None:
    wire = {"t": "claim", "claim": {"status": "CONNECTED", **fields}}
    try:
        message = read_workers(encode(wire)[:-1])
        assert isinstance(message, Claimed)
        claim = sound(message.claim)
    except LinkError:
        return
    assert claim.progress is None or 0 <= claim.progress <= 1
    assert claim.proof_age is None or (claim.proof_age >= 0 and math.isfinite(claim.proof_age))
    assert claim.still_for >= 0 and math.isfinite(claim.still_for)
    assert claim.account.isprintable() and claim.raw.isprintable()
    assert len(claim.raw) <= 500 and len(claim.account) <= 128


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * 500_000, id="depth bomb"),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, id="deep objects"),
        pytest.param(b'{"t": "reply", "n": NaN}', id="NaN"),
        pytest.param(b'{"t": "event", "kind": "x", "detail": 1e999}', id="too large"),
        pytest.param(b'{"t": "reply", "n": ' + b"9" * 100_000 + b"}", id="of many digits"),
        pytest.param(b'{"t": "reply", "n": 1, "error": "\\ud800"}', id="half a surrogate pair"),
        pytest.param(b'{"t": "reply", "n": 1, "error": "\xff"}', id="not UTF-8"),
        pytest.param(b'{"t": "reply", "n": 1} {}', id="two at once"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_f59_what_is_no_message_is_refused(body: bytes) -> None:
    for read in (read_workers, read_call):
        with refused(LinkError, "malformed"):
            read(body)


def test_the_longest_message_passes_and_one_byte_more_is_neither_sent_nor_kept() -> None:
    rest = LINE_LIMIT - len('{"t":""}')
    line = encode({"t": "x" * rest})
    assert [json.loads(each) for each in lines_in(line[:50], line[50:])] == [{"t": "x" * rest}]
    for work in (
        lambda: encode({"t": "x" * (rest + 1)}),
        lambda: lines_in(b"x" * (LINE_LIMIT + 1)),
    ):
        with refused(LinkError, "oversized"):
            work()


@pytest.mark.parametrize("value", [math.nan, object(), ["\udfff"], {"\ud800": 1}])
def test_a_message_that_cannot_be_written_is_an_error_of_the_sender(value: object) -> None:
    with pytest.raises(LinkError):
        encode({"t": value})
