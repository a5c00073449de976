"""What the lines of a log say, and that no key of a dump ever leaves them."""

import dataclasses
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.findings.crypto_patterns import PATTERNS, Effect, own_pattern, read_line
from agent.engines.whaticket.logs.lines import WORDS, LineReader, is_of_interest
from agent.engines.whaticket.logs.stream import Splitter
from agent.engines.whaticket.turns import Turn
from tests.standin.whaticket import words

PEER = "5511999990001"
LID = "123456789012345_1"
PRINTED = """[ERROR] Erro de criptografia WhatsApp: {
  sessionId: 123,
  %s,
  timestamp: '2026-01-01T00:00:00.000Z'
}
another line"""


def read(*texts: str, reader: LineReader | None = None) -> LineReader:
    reader = reader or LineReader()
    for text in texts:
        for line in text.encode().split(b"\n"):
            reader.feed(line, 1.0)
    reader.settle(10.0, quiet=True, wait=0.0)
    return reader


def told(*texts: str, **how: object) -> list[tuple[str, str, str]]:
    reader = LineReader(**how)  # type: ignore[arg-type]
    return [(f.name, f.peer, f.session) for f in read(*texts, reader=reader).errors]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        pytest.param([words.bad_mac(f"{PEER}.3")], [("bad_mac", PEER, "")], id="libsignal alone"),
        pytest.param(
            [words.bad_mac(f"{PEER}.3", tried=4)], [("bad_mac", PEER, "")], id="four sessions tried"
        ),
        pytest.param([words.duplicate(f"{PEER}.3")], [], id="a duplicate is benign"),
        pytest.param(
            [words.bad_mac(f"{PEER}.3"), words.pino(f"{PEER}@s.whatsapp.net", sessionId="7")],
            [("bad_mac", PEER, "7")],
            id="the server's line names the session of libsignal's",
        ),
        pytest.param(
            [words.bad_mac(f"{LID}.0"), words.pino(f"{PEER}@s.whatsapp.net", whatsappId=7)],
            [("bad_mac", LID, "7")],
            id="number and LID of one peer are one error",
        ),
        pytest.param(
            [words.duplicate(f"{PEER}.3"), words.pino(f"{PEER}@s.whatsapp.net", sessionId="7")],
            [],
            id="the summary of a duplicate is benign as well",
        ),
        pytest.param(
            [
                words.bad_mac(f"{PEER}.0"),
                words.bad_mac("5521888.0"),
                words.pino(f"{PEER}@s.whatsapp.net", sessionId="7"),
                words.pino("5521888@s.whatsapp.net", sessionId="8"),
            ],
            [("bad_mac", PEER, "7"), ("bad_mac", "5521888", "8")],
            id="two messages at once, matched by their peer",
        ),
        pytest.param(
            [PRINTED % f"error: Error: Bad MAC\n      at async {PEER}.3 [as awaitable] (q.js)"],
            [("bad_mac", PEER, "123")],
            id="an object with a stack",
        ),
        pytest.param(
            [PRINTED % "error: 'Key used already or never filled'"], [], id="a benign object"
        ),
        pytest.param(
            [words.bad_mac(f"{PEER}.3"), PRINTED % "error: 'failed to decrypt message'"],
            [("bad_mac", PEER, "123")],
            id="an object names the session of libsignal's error before it",
        ),
        pytest.param(
            [
                words.pino(
                    "120363@g.us",
                    "No SenderKeyRecord found for decryption",
                    "Error",
                    participant=f"{PEER}:12@s.whatsapp.net",
                )
            ],
            [("sender_key", PEER, "")],
            id="a group: the participant is the peer",
        ),
        pytest.param(
            [words.pino(f"{PEER}@s.whatsapp.net", "Bad MAC", "Error", from_me=True)],
            [("bad_mac", "", "")],
            id="of one's own message the chat is not the peer",
        ),
        pytest.param(
            [words.pretty(f"{PEER}@s.whatsapp.net", sessionId="7"), "INFO [x]: next"],
            [("no_matching_session", PEER, "7")],
            id="pretty",
        ),
        pytest.param([words.closing_session()], [], id="a dump"),
        pytest.param(
            ["\x1b[31mERROR\x1b[39m: failed to decrypt message\x1b[0m", "x"],
            [("decrypt_failed", "", "")],
            id="colours",
        ),
        pytest.param(
            [
                "\n".join(
                    f"2026-11-20T12:00:00: {line}"
                    for line in words.bad_mac(f"{PEER}.3").split("\n")
                )
            ],
            [("bad_mac", PEER, "")],
            id="pm2 with times",
        ),
    ],
)
def test_errors_in_lines(texts, expected):
    assert told(*texts) == expected


SAID = "Session error:Error: Bad MAC Error: Bad MAC"


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(words.info(f"from {PEER}@s.whatsapp.net: {SAID}"), id="info, pretty"),
        pytest.param(f"2026-11-20 12:00:00 debug: {SAID}", id="debug with a time"),
        pytest.param(f'{{"level":30,"body":"{SAID}","msg":"{SAID}"}}', id="a record of info"),
        pytest.param(f'{{"level":30,"err":{{"message":"{SAID}"}},"msg":"x"}}', id="its error"),
        pytest.param(f'{{"level":50,"body":"{SAID}","msg":"cannot send"}}', id="another field"),
        pytest.param(f'ERROR [20-11-2026 12:00:00]: cannot send "{SAID}"', id="quoted, error"),
        pytest.param(f"{PEER}: {SAID}", id="no level, behind a number"),
        pytest.param(f"Received: {{\n  body: '{SAID}',\n  message: '{SAID}'\n}}\nx", id="object"),
        pytest.param(f"[ERROR] cannot send: {{\n  body: '{SAID}'\n}}\nx", id="object of an error"),
        pytest.param('INFO: "Socket  wa 7 Connection Update close x"', id="an end of a session"),
    ],
)
def test_the_words_of_a_contact_are_no_error(line):
    heard = read(line)
    assert (heard.errors, heard.turns) == ([], [])


@pytest.mark.parametrize(
    "line",
    [
        "[ERROR] wbot of shop: Bad MAC",
        "0|app  | Erro de criptografia: Bad MAC",
        "Unhandled rejection: Error: Bad MAC",
        "[ERROR] x: {\n  error: {\n    name: 'Error',\n    message: 'Bad MAC'\n  }\n}\nx",
    ],
)
def test_an_error_counts_by_its_level_or_its_place(line):
    assert [found.name for found in read(line).errors] == ["bad_mac"]


def test_a_setting_names_the_session_in_the_line():
    expression = re.compile(r"\[session (\w+)\]")
    lines = "\n".join(f"[session shop] {line}" for line in words.bad_mac(f"{PEER}.3").split("\n"))
    assert [session for _, _, session in told(lines, log_session=expression)] == ["shop"]
    line, expression = "whatsappId=9 Bad MAC", re.compile(r"whatsappId=(\w+)")
    assert told(line, log_session=expression) == [("bad_mac", "", "9")]


@pytest.mark.parametrize(
    ("line", "turn"),
    [
        ("Socket  wa 7 Connection Update open undefined", Turn("wa 7", True)),
        ("Socket  wa 7 Connection Update close Connection Failure", Turn("wa 7", False)),
        (
            "Socket  wa 7 Connection Update close Intentional Logout",
            Turn("wa 7", False, "logout"),
        ),
        ("Disconnected session: wa 7, reason: CONFLICT", Turn("wa 7", False, "conflict")),
        (
            'DESCONECTOU REASON: 402 --> {"session":"wa 7","statusCode":402}',
            Turn("wa 7", False, "temporary_ban"),
        ),
    ],
)
def test_connections_that_begin_and_end(line, turn):
    for shown in (line, words.info(line), json.dumps({"level": 30, "msg": line})):
        assert read(shown, "next").turns == [turn]


def test_an_error_waits_for_the_servers_own_line_and_no_longer():
    reader = LineReader()
    for line in words.bad_mac(f"{PEER}.3").encode().split(b"\n"):
        reader.feed(line, 1.0)
    reader.settle(1.1, quiet=True)
    assert reader.errors == []
    reader.settle(2.0, quiet=True)
    assert reader.errors == []
    reader.settle(2.7, quiet=True)
    assert [found.address for found in reader.errors] == [f"{PEER}.3"]


def test_a_dump_leaves_nothing_behind():
    """Nothing of it is in what is found, nor in what the reader still holds."""
    private = words.secret_buffer(32)
    reader = read(
        words.closing_session(private), words.bad_mac(f"{PEER}.3"), words.closing_session(private)
    )
    shown = repr([dataclasses.asdict(found) for found in reader.errors]) + repr(reader)
    assert private not in shown
    assert "privKey" not in shown
    assert "Buffer" not in shown
    [found] = reader.errors
    assert found.text == "Bad MAC"


def test_our_words_are_read_by_the_agent_as_the_same_finding():
    for pattern in PATTERNS:
        if pattern.effect is Effect.BENIGN:
            continue
        found = read_line(WORDS[pattern.name])
        assert found is not None
        assert (found.name, found.peer) == (pattern.name, "")
        assert is_of_interest(WORDS[pattern.name].encode())


@given(st.lists(st.text(max_size=120), max_size=40))
def test_no_text_breaks_the_reader_and_none_of_it_is_reported(lines):
    reader = read(*lines)
    assert {found.text for found in reader.errors} <= set(WORDS.values())


fragments = st.sampled_from(
    [
        words.HEADER,
        *words.bad_mac(f"{PEER}.3").split("\n"),
        *words.duplicate(f"{LID}.3").split("\n"),
        words.pino(f"{PEER}@s.whatsapp.net", sessionId="7"),
        *words.pretty(f"{PEER}@s.whatsapp.net").split("\n"),
        *words.closing_session().split("\n"),
        "",
        "{",
        "{}",
        "[]",
    ]
)


@given(st.lists(fragments, max_size=200))
def test_any_order_of_real_lines_stays_bounded(lines):
    reader = LineReader()
    for line in lines:
        reader.feed(line.encode(), 1.0)
        assert len(reader._blocks) <= 50
        assert len(reader._pretty) <= 120
    reader.settle(100.0, quiet=True, wait=0.0)
    assert reader._blocks == []
    assert all(f.peer in ("", PEER, LID, "123456789012345") for f in reader.errors)


@given(st.binary(max_size=400), st.lists(st.integers(1, 60), max_size=20))
def test_lines_are_the_same_however_they_arrive(content, cuts):
    whole, pieces = Splitter(), Splitter()
    expected = whole.feed(content)
    found, at = [], 0
    for cut in [*cuts, len(content)]:
        found += pieces.feed(content[at : at + cut]) if content[at : at + cut] else []
        at += cut
    if at < len(content):
        found += pieces.feed(content[at:])
    assert (found, pieces.partial) == (expected, whole.partial)


def test_a_line_without_an_end_is_passed_over_within_bounds():
    splitter = Splitter()
    for _ in range(100):
        assert splitter.feed(b"x" * 65536) == []
        assert len(splitter.partial) <= 256 << 10
    assert splitter.feed(b"end\nnext\n") == [b"next"]


def test_the_settings_own_words_are_found_in_text_and_in_records():
    own = tuple(
        own_pattern(text) for text in ("counts: Ratchet Ünsinn odd", "benign: bad mac of a bot")
    )
    texts = (
        "a RATCHET ünsinn ODD came from 551199990001.0",
        '{"level":50,"key":{"participant":"551199990001@s.whatsapp.net"},'
        '"err":{"type":"Error","message":"ratchet ünsinn odd"},"msg":"x"}',
        "Bad MAC of a bot",
    )
    reader = read(*texts, reader=LineReader(own=own))
    reader.settle(99.0, quiet=True, wait=0.0)
    assert [found.name for found in reader.errors] == ["own: Ratchet Ünsinn odd"] * 2
    again = read_line(reader.errors[0].text, own)
    assert again is not None and again.effect is Effect.COUNTS
    assert read(*texts[:2]).errors == []
