"""The codec against hostile bytes: only messages or `LinkError` ever come out."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.model import Claim, ConnectionStatus, Happening, InstanceId, ServerClaim
from agent.errors import LinkError
from agent.link.messages import (
    AgentHello,
    Call,
    Claimed,
    Happened,
    Hello,
    Refused,
    Reply,
    ServerClaimed,
    parse_from_agent,
    parse_from_worker,
)
from agent.link.wire import FRAME_LIMIT, Decoder, decode_body, encode

ids = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,47}", fullmatch=True).map(InstanceId)
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
shown = st.text(st.characters(categories=["L", "N"]), max_size=60)
claims = st.builds(
    Claim,
    status=st.sampled_from(ConnectionStatus),
    reason=codes | st.just(""),
    phase=codes | st.just(""),
    progress=st.none() | st.floats(0, 1),
    proof_age=st.none() | numbers,
    still_for=numbers,
    paired=st.booleans(),
    account=shown,
    until_wall=st.none() | numbers,
    raw=shown,
    version=shown,
)
server_claims = st.builds(
    ServerClaim,
    up=st.booleans(),
    reason=codes | st.just(""),
    sentence=shown,
    version=shown,
    seconds=numbers,
    sessions=st.none() | st.integers(0, 2**50),
)
from_worker = st.one_of(
    st.builds(ServerClaimed, run=shown, claim=server_claims),
    st.builds(Hello, id=ids, run=shown, engine=shown, pid=st.integers(0, 2**31)),
    st.builds(Refused, why=shown),
    st.builds(Claimed, id=ids, run=shown, claim=claims),
    st.builds(Happened, id=ids, run=shown, happening=st.builds(Happening, codes, objects)),
    st.builds(Reply, number=st.integers(0, 2**50), value=objects),
    st.builds(Reply, number=st.integers(0, 2**50), error=shown, code=codes),
)
from_agent = st.one_of(
    st.just(AgentHello()),
    st.builds(Refused, why=shown),
    st.builds(Call, number=st.integers(0, 2**50), do=codes, id=ids, args=objects),
)


def all_messages(decoder: Decoder) -> list[dict[str, Any]]:
    found = []
    while (message := decoder.next_message()) is not None:
        found.append(message)
    return found


@given(st.lists(from_worker, max_size=5), st.integers(1, 40))
def test_a_workers_messages_arrive_as_they_were_however_they_are_cut(
    messages: list[Any], size: int
) -> None:
    stream = b"".join(encode(each.wire()) for each in messages)
    decoder, found = Decoder(), []
    for start in range(0, len(stream), size):
        decoder.feed(stream[start : start + size])
        found += [parse_from_worker(each) for each in all_messages(decoder)]
    assert found == messages


@given(from_agent)
def test_an_agents_messages_arrive_as_they_were(message: Any) -> None:
    decoder = Decoder()
    decoder.feed(encode(message.wire()))
    (found,) = all_messages(decoder)
    assert parse_from_agent(found) == message


@given(st.binary(max_size=300))
def test_f59_f86_any_bytes_are_messages_or_an_error(rubbish: bytes) -> None:
    decoder = Decoder()
    decoder.feed(rubbish)
    try:
        for message in all_messages(decoder):
            assert isinstance(message, dict)
    except LinkError as error:
        assert error.code in ("malformed", "oversized")
        decoder.feed(encode({"t": "hello"}))
        with pytest.raises(LinkError):
            decoder.next_message()


@given(st.binary(max_size=200))
def test_any_body_is_an_object_or_an_error(body: bytes) -> None:
    try:
        assert isinstance(decode_body(body), dict)
    except LinkError as error:
        assert error.code == "malformed"


@given(
    st.one_of(from_worker, from_agent),
    st.sampled_from(
        ["t", "id", "run", "claim", "kind", "detail", "n", "ok", "value", "error", "v"]
    ),
    plain,
)
def test_a_message_with_any_wrong_field_is_read_or_refused(
    message: Any, key: str, value: Any
) -> None:
    wire = {**message.wire(), key: value}
    for parse in (parse_from_worker, parse_from_agent):
        try:
            again = parse(wire)
        except LinkError as error:
            assert error.code in ("malformed", "version")
        else:
            assert parse(json.loads(json.dumps(again.wire()))) == again


@given(st.dictionaries(st.sampled_from(Claim.__slots__), plain))
def test_a_claim_of_anything_is_sound_or_refused(told: dict[str, Any]) -> None:
    wire = {"t": "claim", "id": "a", "run": "r", "claim": {"status": "CONNECTED", **told}}
    try:
        message = parse_from_worker(wire)
    except LinkError:
        return
    assert isinstance(message, Claimed)
    claim = message.claim
    assert claim.progress is None or 0 <= claim.progress <= 1
    assert claim.proof_age is None or (claim.proof_age >= 0 and math.isfinite(claim.proof_age))
    assert claim.still_for >= 0 and math.isfinite(claim.still_for)
    assert claim.account.isprintable() and claim.raw.isprintable()
    assert len(claim.raw) <= 500 and len(claim.account) <= 128


@given(st.dictionaries(st.sampled_from(ServerClaim.__slots__), plain))
def test_a_servers_claim_of_anything_is_sound_or_refused(told: dict[str, Any]) -> None:
    wire = {"t": "server", "run": "r", "claim": {"up": True, **told}}
    try:
        message = parse_from_worker(wire)
    except LinkError as error:
        assert error.code == "malformed"
        return
    assert isinstance(message, ServerClaimed)
    claim = message.claim
    assert claim.seconds >= 0 and math.isfinite(claim.seconds)
    assert claim.sessions is None or claim.sessions >= 0
    assert claim.sentence.isprintable() and len(claim.sentence) <= 500
    assert claim.version.isprintable() and len(claim.version) <= 64


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"up": True, "seconds": -1},
    ],
)
def test_a_server_that_is_neither_up_nor_down_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(LinkError):
        parse_from_worker({"t": "server", "run": "r", "claim": told})


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * 500_000, id="depth bomb"),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, id="deep objects"),
        pytest.param(b'{"a": NaN}', id="NaN"),
        pytest.param(b'{"a": 1e999}', id="a number that overflows"),
        pytest.param(b'{"a": ' + b"9" * 100_000 + b"}", id="a number of many digits"),
        pytest.param(b'{"a": "\\ud800"}', id="half a surrogate pair"),
        pytest.param(b'{"a": "\xff"}', id="not UTF-8"),
        pytest.param(b'{"a": 1} {"b": 2}', id="two at once"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_json_that_is_no_usable_message_is_refused(body: bytes) -> None:
    with pytest.raises(LinkError) as caught:
        decode_body(body)
    assert caught.value.code == "malformed"
    assert len(str(caught.value)) < 500


def test_too_long_a_message_is_refused_by_its_length_alone() -> None:
    decoder = Decoder()
    decoder.feed((FRAME_LIMIT + 1).to_bytes(4, "big"))
    with pytest.raises(LinkError) as caught:
        decoder.next_message()
    assert caught.value.code == "oversized"


def test_the_longest_message_passes_and_one_byte_more_is_never_sent() -> None:
    rest = FRAME_LIMIT - len('{"t":""}')
    decoder = Decoder()
    decoder.feed(encode({"t": "x" * rest}))
    assert decoder.next_message() == {"t": "x" * rest}
    with pytest.raises(LinkError) as caught:
        encode({"t": "x" * (rest + 1)})
    assert caught.value.code == "oversized"


@pytest.mark.parametrize(
    "value",
    [
        *(math.nan, object(), 2**70, ["\udfff"], {"\ud800": 1}),
    ],
)
def test_a_message_that_cannot_be_written_is_an_error_of_the_sender(value: object) -> None:
    with pytest.raises(LinkError):
        encode({"t": value})


@pytest.mark.parametrize(
    "version",
    [
        0,
        2,
        True,
    ],
)
def test_another_version_is_refused_by_name(version: object) -> None:
    for parse, more in ((parse_from_agent, {}), (parse_from_worker, {"id": "a"})):
        with pytest.raises(LinkError) as caught:
            parse({"t": "hello", "v": version, **more})
        assert caught.value.code == "version"


def test_f83_control_characters_never_reach_a_person() -> None:
    wire = {"t": "refused", "why": "\x1b[2Jgone\nnew line\u202e"}
    message = parse_from_worker(wire)
    assert isinstance(message, Refused) and message.why.isprintable()
