"""Findings of a log's lines, files that grow and rotate, and the session of an error."""

import json
import os
import re
import time
from pathlib import Path

import pytest

from agent.backends.whaticket.calls import Owners
from agent.backends.whaticket.logs import Found, LineReader, LogFiles, Turn
from agent.core import crypto_patterns as crypto
from agent.engines.baileys.session_state import PATTERN_WORDS
from tests.backends.whaticket.conftest import OTHER, PEER, OpenBench
from tests.standin.whaticket import words

JID, SAID = f"{PEER}@s.whatsapp.net", "Session error:Error: Bad MAC Error: Bad MAC"
PRINTED = "[ERROR] Erro de criptografia: {\n  sessionId: 123,\n  %s,\n  at: 'x'\n}\nnext"
STACK = f"error: Error: Bad MAC\n      at async {PEER}.3 [as awaitable] (q.js)"
AT = "[20-11-2026 12:00:00]"
BEFORE = ["", "0|a | ", "2026-11-20T12:00:00: ", "2026-11-20 12:00 -03:00: "]
BEFORE += ["Nov 20 12:00:00 host node[7]: ", "2026-11-20T12:00:00.123456789Z "]


def heard(*texts: str, reader: LineReader | None = None) -> list[Found]:
    reader = reader or LineReader()
    lines = "\n".join(texts).encode().split(b"\n")
    return [it for line in lines for it in reader.feed(line, 0.0)] + reader.flush()


def errors(*texts: str, reader: LineReader | None = None) -> list[str]:
    found = [(it.it, it.session) for it in heard(*texts, reader=reader)]
    return [f"{it.name} {it.peer} {by}" for it, by in found if not isinstance(it, Turn)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (words.bad_mac(f"{PEER}.3", tried=4), f"bad_mac {PEER} "),
        (words.bad_mac("55111_1.3"), "bad_mac 55111_1 "),
        (words.pino(JID, sessionId="7"), f"no_matching_session {PEER} 7"),
        (words.pino(JID, "Bad MAC", "Error", from_me=True), "bad_mac  "),
        (words.pretty(JID, "Invalid PreKey ID", "PreKeyError", sessionId="7"), f"prekey {PEER} 7"),
        (PRINTED % STACK, f"bad_mac {PEER} 123"),
        (PRINTED % "error: {\n    name: 'Error',\n    message: 'Bad MAC'\n  }", "bad_mac  123"),
        ("Erro de criptografia: Bad MAC", "bad_mac  "),
        # benign, or the words of a contact
        (words.duplicate(f"{PEER}.3") + "\n" + words.pino(JID, sessionId="7"), ""),
        (words.info(f"from {JID}: {SAID}"), ""),
        (f'INFO {AT}: message\n    body: "{SAID}"\n    error: "{SAID}"', ""),
        (f'{{"level":30,"err":{{"message":"{SAID}"}},"msg":"{SAID}"}}', ""),
        (f'ERROR {AT}: cannot send "{SAID}"', ""),
        (f"[ERROR] cannot send: {{\n  body: '{SAID}',\n  message: '{SAID}'\n}}\nx", ""),
    ],
)  # fmt: skip
def test_errors_in_lines(text: str, expected: str) -> None:
    for each in (*(re.sub("^", it, text, flags=re.M) for it in BEFORE), words.of_pm2(text)):
        assert errors(each) == ([expected] if expected else []), each


TURNS = {
    "Socket  wa 7 Connection Update open undefined": Found(Turn(True), "wa 7"),
    "Socket  wa 7 Connection Update close Intentional Logout": Found(Turn(False, "logout"), "wa 7"),
    "Disconnected session: wa 7, reason: CONFLICT": Found(Turn(False, "conflict"), "wa 7"),
    'DESCONECTOU REASON: 403 --> {"statusCode":403}': Found(Turn(False, "banned"), ""),
}


@pytest.mark.parametrize("line", TURNS)
def test_connections_that_begin_and_end(line: str) -> None:
    for shown in (line, words.info(line), json.dumps({"level": 30, "msg": line})):
        assert heard(shown, "next") == [TURNS[line]]
    assert heard(f'INFO: "{line}"') == []


def test_settings_name_the_session_and_more_errors() -> None:
    reader = LineReader(re.compile(r"\[id (\w+)\]"), (crypto.own_pattern("counts: Ratchet odd"),))
    named = re.sub("^", "[id shop] ", words.bad_mac(f"{PEER}.3"), flags=re.M)
    found = errors(named, "[id 9] Bad MAC", "ratchet ODD", reader=reader)
    assert found == [f"bad_mac {PEER} shop", "bad_mac  9", "own: Ratchet odd  "]


def test_no_key_of_a_dump_leaves_a_line() -> None:
    private, reader = words.secret_buffer(32), LineReader()
    shown = repr(heard(words.closing_session(private), words.bad_mac(f"{PEER}.3"), reader=reader))
    assert private not in shown + repr(reader) and "Buffer" not in shown
    for it in crypto.PATTERNS:
        read = crypto.read_line(PATTERN_WORDS.get(it.name, it.name))
        assert it.effect is crypto.Effect.BENIGN or (read and read.name == it.name)


# files


def error(peer: str) -> str:
    return words.pino(f"{peer}@s.whatsapp.net", "No session record") + "\n"


def follow(*patterns: object, marks: dict[str, object] | None = None, history: int = 0) -> LogFiles:
    files = LogFiles([str(it) for it in patterns], marks or {}, history)
    if not marks and not history:
        assert files.read(1 << 20) == []
    return files


def peers(files: LogFiles, *, ends: bool = False) -> list[str]:
    found = files.read(1 << 20, ends=ends)
    return [it.it.peer for it in found if isinstance(it.it, crypto.CryptoFinding)]


def again(files: LogFiles) -> LogFiles:
    """As after a restart of the agent."""
    marks = json.loads(json.dumps(files.positions()))
    files.close()
    return follow(*files.patterns, marks=marks)


def test_what_is_there_at_first_is_old_and_what_comes_is_read_once(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text(error(PEER))
    files = follow(tmp_path / "*.log")
    head, _, stack = words.bad_mac(f"{PEER}.3").partition("    at async 55")
    with log.open("a") as file:
        file.write(error(OTHER) + error(PEER)[:60])
        file.flush()
        assert peers(files) == [OTHER]
        files = again(files)
        file.write(error(PEER)[60:] + head)
        file.flush()
        assert peers(files) == [PEER]
        files = again(files)  # an error waits for its stack
        file.write(f"    at async 55{stack}\n")
    assert peers(files, ends=True) == [PEER] and peers(files) == []
    log.write_text(log.read_text() + ("x" * 999 + "\n") * 2000 + error(PEER))
    assert peers(files) == [] and "count late" in files.trouble  # a look reads only a part
    assert peers(files) == [PEER] and files.trouble == ""
    log.unlink()
    files = again(files)
    assert peers(files) == [] and "app.log" in files.lost[0] and "no such file" in files.trouble


def test_a_closed_folder_is_a_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_file(_: Path) -> bool:  # as where its folder may be listed and not entered
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", is_file)
    assert follow(Path(__file__)).trouble.endswith("Permission denied")


def test_rotation_and_cutting(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("x" * 5000 + "\n")
    files = follow(tmp_path / "*.log")
    with log.open("a") as old:
        log.rename(tmp_path / "app.log.1")
        log.write_text(error(OTHER))
        assert peers(files) == [OTHER]
        old.write(error(PEER))  # its writer has not heard of the rotation yet
    assert peers(files) == [PEER]
    log.write_text("z" * 5000 + "\n" + error(OTHER))  # written over while the agent was away
    assert peers(again(files)) == [OTHER]


def test_a_log_that_is_copied_or_put_back_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, copy = tmp_path / "app.log", tmp_path / "app.log.1"
    log.write_text("x")
    files = follow(log, f"{copy}*")
    log.write_text("x\n" + error(PEER))
    assert peers(files) == [PEER]
    for restarts in (False, True):
        copy.write_text(log.read_text())
        copy.rename(log)  # another inode, and all of it was read
        files = again(files) if restarts else files
        assert (peers(files), files.lost) == ([], [])
    with log.open("a") as file:
        file.write(error(OTHER))
    assert peers(files) == [OTHER]
    copy.write_text(log.read_text() + error(PEER))
    log.write_text("")  # logrotate's copytruncate
    assert peers(files) == [PEER]
    monkeypatch.setattr("agent.backends.whaticket.logs.GRACE", -1.0)
    copy.rename(tmp_path / "away")
    assert peers(files) == []
    (tmp_path / "away").rename(copy)
    assert peers(files) == []


@pytest.mark.parametrize("shift", [-10800, 0, 7200])
@pytest.mark.parametrize("form", ["%Y-%m-%dT%H:%M:%S", "[%d-%m-%Y %H:%M:%S]", "[%H:%M:%S]"])
def test_a_line_has_its_own_time_in_any_zone(tmp_path: Path, form: str, shift: int) -> None:
    log, now = tmp_path / "app.log", time.time() // 86400 * 86400 - 86100  # after midnight
    for age in (1000, 200, 5):
        at = time.strftime(form, time.gmtime(now - age + shift))
        with log.open("a") as file:  # more than one reading takes
            file.write(f"{at} INFO: {'x' * 300}\n" * 900 + f"{at} ERROR: Bad MAC\n")
            told = time.strftime("%Y-%m-%dT%H:%M:%S.123Z", time.gmtime(now - age))
            record = {"level": "error", "err": {"message": "Bad MAC"}}  # Baileys' own, in UTC
            for its in (told, int((now - age) * 1000)):
                file.write(json.dumps({"time": its} | record, separators=(",", ":")) + "\n")
    os.utime(log, (now - 5, now - 5))
    found = follow(log, history=1 << 20).read(1 << 20, ends=True)
    assert [now - it.at for it in found] == pytest.approx([1000] * 3 + [200] * 3 + [5] * 3, abs=2)


CASES = [("Shop", "8", "7"), ("Twin", "", ""), ("", "whatsapp-8", "8"), ("", "app-out", "")]


@pytest.mark.parametrize(("named", "hint", "whose"), CASES)
def test_whose_an_error_is(named: str, hint: str, whose: str) -> None:
    owners, finding = Owners(), crypto.CryptoFinding("bad_mac", crypto.Effect.COUNTS)
    owners.know({"7": "Shop", "8": "Office", "9": "Twin", "10": "Twin"})
    found = Found(finding, named, 1000.0, hint)
    assert owners.whose(found) == whose
    owners.whose(Found(Turn(True), "9", 980.0))
    assert owners.whose(found) == (whose or "9")  # the one that reconnects
    owners.know({"7": "Shop"})
    assert owners.whose(found) == "7"


# through the server's task


async def test_errors_reach_their_session_also_after_a_restart(
    bench: OpenBench, tmp_path: Path
) -> None:
    log = tmp_path / "logs/app.log"
    at = await bench(logs=(f"file:{log.parent}/*.log", "command:/nowhere/program"))
    theirs = await at.paired()
    await at.paired("8")
    await at.until(lambda: "/nowhere/program" in at.server.sentence, 20)
    await theirs.damage(PEER)
    for _ in range(300):
        theirs.receive(PEER)
    await at.until(at.errors, 5)
    assert set(at.errors()) == {("no_matching_session", PEER)} and at.errors("8") == []
    await at.end()
    at.happened.clear()
    theirs.receive(PEER)
    os.utime(log, (time.time(), time.time()))
    at.begin()
    await at.hold("7")
    await at.until(at.errors, 10)
    assert len(at.errors()) == 1
    await at.until(lambda: at.status() == "CONNECTED", 10)
    at.standin.log(f"Disconnected session: {theirs.name}, reason: CONFLICT")
    await at.until(lambda: (at.claim("7").proof_age or 0.0) > 9.0, 30)
    await theirs.end()
    theirs.status = "DISCONNECTED"
    await at.until(lambda: at.claim("7").reason == "conflict", 6)
