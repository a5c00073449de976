"""What a log's lines say, files that grow and rotate, and the session that an error counts for."""

import json
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backends.whaticket.calls import Row
from agent.backends.whaticket.log_files import Found, LogFiles, Owners
from agent.backends.whaticket.log_lines import LineReader, LogError, Turn, words_of
from agent.core.findings.crypto_patterns import PATTERNS, Effect, own_pattern, read_line
from tests.backends.whaticket.conftest import OTHER, PEER, OpenBench
from tests.standin.whaticket import words

LID = "123456789012345_1"
JID = f"{PEER}@s.whatsapp.net"
SAID = "Session error:Error: Bad MAC Error: Bad MAC"
OBJECT = "[ERROR] Erro de criptografia WhatsApp: {\n  sessionId: 123,\n  %s,\n  at: 'x'\n}\nnext"


def heard(*texts: str, reader: LineReader | None = None) -> list[LogError | Turn]:
    reader = reader or LineReader()
    lines = "\n".join(texts).encode().split(b"\n")
    return [it for line in lines for it in reader.feed(line)] + reader.flush()


def errors(*texts: str, reader: LineReader | None = None) -> list[tuple[str, str, str]]:
    found = [it for it in heard(*texts, reader=reader) if isinstance(it, LogError)]
    return [(it.finding.name, it.finding.peer, it.session) for it in found]


def stamped(text: str) -> str:
    return "\n".join(f"2026-11-20T12:00:00: {line}" for line in text.split("\n"))


MATCHED = "no_matching_session"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (words.bad_mac(f"{PEER}.3", tried=4), [("bad_mac", PEER, "")]),
        (stamped(words.bad_mac(f"{LID}.3")), [("bad_mac", LID, "")]),
        (words.duplicate(f"{PEER}.3"), []),
        (words.closing_session(), []),
        (words.pino(JID, sessionId="7"), [(MATCHED, PEER, "7")]),
        (words.pino(JID, "Bad MAC", "Error", from_me=True), [("bad_mac", "", "")]),
        (
            words.pino("1203@g.us", "No SenderKeyRecord found", participant=f"{PEER}:12@lid"),
            [("sender_key", PEER, "")],
        ),
        (words.pretty(JID, sessionId="7"), [(MATCHED, PEER, "7")]),
        (words.pretty(JID, "Invalid PreKey ID", "PreKeyError"), [("prekey", PEER, "")]),
        ("ERROR [20-11-2026 12:00:00]: Invalid PreKey ID", [("prekey", "", "")]),
        ("\x1b[31mERROR\x1b[39m: failed to decrypt message\x1b[0m", [("decrypt_failed", "", "")]),
        (
            OBJECT % f"error: Error: Bad MAC\n      at async {PEER}.3 [as awaitable] (q.js)",
            [("bad_mac", PEER, "123")],
        ),
        (
            OBJECT % "error: {\n    name: 'Error',\n    message: 'Bad MAC'\n  }",
            [("bad_mac", "", "123")],
        ),
        (OBJECT % "error: 'Key used already or never filled'", []),
        ("[ERROR] wbot of shop: Bad MAC", [("bad_mac", "", "")]),
        ("0|app  | Erro de criptografia: Bad MAC", [("bad_mac", "", "")]),
        ("Unhandled rejection: Error: Bad MAC", [("bad_mac", "", "")]),
    ],
)
def test_errors_in_lines(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert errors(text) == expected


@pytest.mark.parametrize(
    "line",
    [
        words.info(f"from {JID}: {SAID}"),
        f"2026-11-20 12:00:00 debug: {SAID}",
        f'INFO [20-11-2026 12:00:00]: message\n    body: "{SAID}"\n    error: "{SAID}"',
        f'{{"level":30,"body":"{SAID}","msg":"{SAID}"}}',
        f'{{"level":30,"err":{{"message":"{SAID}"}},"msg":"x"}}',
        f'{{"level":50,"body":"{SAID}","msg":"cannot send"}}',
        f'ERROR [20-11-2026 12:00:00]: cannot send "{SAID}"',
        f"{PEER}: {SAID}",
        f"Received: {{\n  body: '{SAID}',\n  message: '{SAID}'\n}}\nx",
        f"[ERROR] cannot send: {{\n  body: '{SAID}'\n}}\nx",
        'INFO: "Socket  wa 7 Connection Update close x"',
    ],
)
def test_the_words_of_a_contact_are_no_error(line: str) -> None:
    assert heard(line) == []


@pytest.mark.parametrize(
    ("line", "turn"),
    [
        ("Socket  wa 7 Connection Update open undefined", Turn("wa 7", True)),
        ("Socket  wa 7 Connection Update close Connection Failure", Turn("wa 7", False)),
        ("Socket  wa 7 Connection Update close Intentional Logout", Turn("wa 7", False, "logout")),
        ("Disconnected session: wa 7, reason: CONFLICT", Turn("wa 7", False, "conflict")),
        (
            'DESCONECTOU REASON: 402 --> {"session":"wa 7","statusCode":402}',
            Turn("wa 7", False, "temporary_ban"),
        ),
    ],
)
def test_connections_that_begin_and_end(line: str, turn: Turn) -> None:
    for shown in (line, words.info(line), json.dumps({"level": 30, "msg": line})):
        assert heard(shown, "next") == [turn]


def test_settings_name_the_session_and_more_errors() -> None:
    reader = LineReader(re.compile(r"\[session (\w+)\]"))
    named = "\n".join(f"[session shop] {it}" for it in words.bad_mac(f"{PEER}.3").split("\n"))
    assert errors(named, reader=reader) == [("bad_mac", PEER, "shop")]
    reader = LineReader(re.compile(r"id=(\w+)"), (own_pattern("counts: Ratchet odd"),))
    assert errors("id=9 Bad MAC", "ratchet ODD", reader=reader) == [
        ("bad_mac", "", "9"),
        ("own: Ratchet odd", "", ""),
    ]


def test_no_key_of_a_dump_leaves_a_line() -> None:
    private, reader = words.secret_buffer(32), LineReader()
    shown = repr(heard(words.closing_session(private), words.bad_mac(f"{PEER}.3"), reader=reader))
    assert private not in shown + repr(reader) and "Buffer" not in shown
    for pattern in PATTERNS:
        read = read_line(words_of(pattern.name))
        assert pattern.effect is Effect.BENIGN or (read and read.name == pattern.name)


@given(st.lists(st.text(max_size=120) | st.sampled_from(words.bad_mac("5511.1").split("\n"))))
def test_no_text_breaks_the_reader(lines: list[str]) -> None:
    heard(*lines)


# files


def error(peer: str) -> str:
    return words.pino(f"{peer}@s.whatsapp.net", "No session record") + "\n"


def follow(*patterns: object, marks: dict[str, object] | None = None, history: int = 0) -> LogFiles:
    return LogFiles([str(it) for it in patterns], LineReader, marks or {}, history)


def peers(found: list[Found]) -> list[str]:
    return [it.it.finding.peer for it in found if isinstance(it.it, LogError)]


def again(files: LogFiles) -> LogFiles:
    """As after a restart of the agent."""
    marks = json.loads(json.dumps(files.positions()))
    files.close()
    return follow(*files.patterns, marks=marks)


def test_what_is_there_at_first_is_old_and_what_comes_is_read_once(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text(error(PEER))
    files = follow(log)
    assert files.read(1 << 20) == []
    with log.open("a") as file:
        file.write(error(OTHER) + error(PEER)[:60])
        file.flush()
        assert peers(files.read(1 << 20)) == [OTHER]
        files = again(files)
        file.write(error(PEER)[60:])
    assert peers(files.read(1 << 20)) == [PEER] and files.read(1 << 20) == []
    (tmp_path / "b.log").write_text(error(OTHER))
    log.unlink()
    files = again(files)
    files.read(1 << 20)
    assert "app.log" in files.lost[0]


def test_rotation_and_cutting(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("x" * 5000 + "\n")
    files = follow(tmp_path / "*.log")
    files.read(1 << 20)
    with log.open("a") as old:
        log.rename(tmp_path / "app.log.1")
        log.write_text(error(OTHER))
        assert peers(files.read(1 << 20)) == [OTHER]
        old.write(error(PEER))  # its writer has not heard of the rotation yet
    assert peers(files.read(1 << 20)) == [PEER]
    with log.open("a") as file:
        file.write("y" * 5000 + "\n")
    files.read(1 << 20)
    os.truncate(log, 0)
    log.write_text(error(PEER))
    assert peers(files.read(1 << 20)) == [PEER]
    log.write_text("z" * 5000 + "\n" + error(OTHER))  # written over while the agent was away
    assert peers(again(files).read(1 << 20)) == [OTHER]


def test_an_error_that_waits_for_its_stack_is_not_lost_by_a_restart(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.touch()
    files = follow(log)
    files.read(1 << 20)
    head, _, stack = words.bad_mac(f"{PEER}.3").partition("    at async 55")
    with log.open("a") as file:
        file.write(head)
        file.flush()
        assert files.read(1 << 20) == []
        files = again(files)
        file.write(f"    at async 55{stack}\n")
    assert peers(files.read(1 << 20, ends=True)) == [PEER]


def test_reading_is_bounded_and_says_when_it_is_behind(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.touch()
    files = follow(log)
    files.read(1 << 20)
    line = "x" * 999 + "\n"
    log.write_text(line * 2000 + error(PEER))
    assert files.read(1 << 20) == [] and "not read yet" in files.trouble
    assert peers(files.read(1 << 20)) == [PEER] and files.trouble == ""
    assert "no such file" in (other := follow(tmp_path / "nothing")).read(1) or other.trouble


@pytest.mark.parametrize("zone", ["", "Z", "+02:00"])
@pytest.mark.parametrize("form", ["%Y-%m-%dT%H:%M:%S#", "[%d-%m-%Y %H:%M:%S#]", "[%H:%M:%S#]"])
def test_a_line_was_written_at_its_own_time_in_any_zone(
    tmp_path: Path, form: str, zone: str
) -> None:
    log, now = tmp_path / "app.log", time.time()
    shift = {"": -10800, "Z": 0, "+02:00": 7200}[zone]
    lines = [
        time.strftime(form, time.gmtime(now - age + shift)).replace("#", zone) + " ERROR: Bad MAC"
        for age in (1000, 200, 5)
    ]
    log.write_text("\n".join(lines) + "\n")
    os.utime(log, (now - 5, now - 5))
    found = follow(log, history=1 << 20).read(1 << 20, ends=True)
    assert [round(now - it.at, -1) for it in found] == pytest.approx([1000, 200, 10], abs=10)


# whose an error is

ROWS = [Row("7", "Shop"), Row("8", "Office"), Row("9", "Twin"), Row("10", "Twin")]


@pytest.mark.parametrize(
    ("named", "hint", "whose"),
    [
        ("7", "", "7"),
        ("Shop", "8", "7"),
        ("Twin", "", ""),
        ("", "whatsapp-8", "8"),
        ("", "app-out", ""),
    ],
)
def test_whose_an_error_is(named: str, hint: str, whose: str) -> None:
    owners = Owners()
    owners.know(ROWS)
    finding = heard(words.bad_mac(f"{PEER}.3"))[0].finding  # type: ignore[union-attr]
    found = Found(LogError(finding, named), 1000.0, hint)
    assert owners.whose(found) == whose
    owners.whose(Found(Turn("9", True), 980.0))
    assert owners.whose(found) == (whose or "9")  # the one that reconnects
    owners.whose(Found(Turn("10", True), 1010.0))
    assert owners.whose(found) == whose
    owners.know(ROWS[:1])
    assert owners.whose(found) == "7"


# through the server's task


async def test_errors_reach_the_session_also_after_a_restart(
    bench: OpenBench, tmp_path: Path
) -> None:
    at = await bench(logs=(f"file:{tmp_path}/logs/*.log",))
    theirs = await at.paired()
    await at.paired("8")
    await theirs.damage(PEER)
    at.happened.clear()
    for _ in range(3):
        theirs.receive(PEER)
    await at.until(lambda: (MATCHED, PEER) in at.errors(), 5)
    assert at.errors("8") == []
    await at.end()
    at.happened.clear()
    theirs.receive(PEER)
    os.utime(tmp_path / "logs/app.log", (time.time(), time.time()))
    at.begin()
    await at.hold("7")
    await at.until(at.errors, 10)
    assert len(at.errors()) == 1


async def test_a_flood_is_bounded_and_a_command_is_read(bench: OpenBench, tmp_path: Path) -> None:
    at = await bench(logs=(f"file:{tmp_path}/logs/app.log", "command:/nowhere/program"))
    await at.paired()
    await at.until(lambda: "/nowhere/program" in at.server.sentence, 20)
    for _ in range(500):
        at.standin.log("ERROR: Bad MAC")
    await at.until(lambda: len(at.errors()) == 60, 5)


async def test_the_end_of_a_connection_and_its_reason_come_from_the_log(
    bench: OpenBench, tmp_path: Path
) -> None:
    at = await bench(logs=(f"file:{tmp_path}/logs/app.log",))
    theirs = await at.paired()
    at.standin.log(words.info(f"Socket  {theirs.name} Connection Update close Connection Closed"))
    await at.until(lambda: (at.claim().proof_age or 0.0) > 9.0, 30)
    theirs.turn("open undefined")
    await at.until(lambda: at.claim().proof_age == 0.0, 6)
    await theirs.end()
    theirs.status = "DISCONNECTED"
    at.standin.log(f"Disconnected session: {theirs.name}, reason: CONFLICT")
    await at.until(lambda: at.claim().reason == "conflict", 6)
