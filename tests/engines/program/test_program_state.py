"""Claims of what a program tells; programs that cannot be started, and why. Without a worker."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.core.crypto_patterns import PATTERNS, CryptoFinding, Effect, read_line
from agent.engines.program.declaration import (
    ProgramDeclaration,
    find_command,
    own_environment,
    read_environment_file,
    refuse_other_user,
)
from agent.engines.program.state import Output, ProgramState
from agent.errors import EngineError
from tests.engines.heard import Heard


@pytest.mark.parametrize(
    ("told", "status", "reason"),
    [
        ({"code": 401}, "DISCONNECTED", "logout"),
        ({"code": 403}, "DISCONNECTED", "banned"),
        ({"code": 515}, "RECONNECTING", "restart_required"),
        ({"reason": "qr_idle"}, "QR_REQUIRED", "qr_idle"),
        ({"code": 777}, "RECONNECTING", "unknown"),
        ({}, "RECONNECTING", "connection_lost"),
        # A program cannot give a reason that only the agent gives.
        ({"reason": "session_damaged", "code": 503}, "RECONNECTING", "service_unavailable"),
        ({"reason": ["x"], "code": "503", "raw": 7}, "RECONNECTING", "connection_lost"),
    ],
)
def test_why_a_session_ended_is_in_the_reasons_of_all_engines(
    told: dict[str, Any], status: str, reason: str
) -> None:
    heard = Heard()
    state = ProgramState(heard)
    state.hear({"event": "open", "account": "1"})
    state.hear({"event": "close", **told})
    claim = heard.claims[-1]
    assert (str(claim.status), claim.reason) == (status, reason)
    assert claim.paired is (reason not in ("logout", "qr_idle"))


def test_a_program_that_was_paired_is_so_until_a_logout() -> None:
    state = ProgramState(Heard())
    state.begun()
    assert state.current().pairing_unknown
    state.hear({"event": "open", "account": "1"})
    state.ended("program_ended", "it ended")
    state.begun()
    assert (state.current().paired, state.current().account) == (True, "1")


def test_failing_keys_are_counted_for_the_contact_that_a_line_names() -> None:
    heard = Heard()
    output = Output(ProgramState(heard).found_crypto, ())
    output.feed(b"Session error:Error: Bad MAC Error: Bad MAC\n")
    output.feed(b"    at async 5511999990000.0 [as awaitable] (/x/session_cipher.js:1:2)\n")
    output.feed(b"Key used already or never filled\n")
    output.close()
    (error,) = heard.happenings
    told = (error.kind, error.detail["pattern"], error.detail["peer"])
    assert told == ("crypto_error", "bad_mac", "5511999990000")


BOT = ProgramDeclaration(name="bot", command=("sh", "-c", "true"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"command": ("no-such-bot",)}, "cannot start no-such-bot: it is in no folder of its PATH"),
        ({"folder": "/nowhere"}, "cannot run in /nowhere: there is no such folder"),
        ({"user": "sync"}, "cannot run it as sync"),
        ({"environment_file": "/nowhere/env"}, "cannot read /nowhere/env"),
    ],
)
def test_what_cannot_be_started_says_why(change: dict[str, Any], words: str) -> None:
    program = replace(BOT, **change)
    with pytest.raises(EngineError) as caught:
        refuse_other_user(program)
        of_file = read_environment_file(program.environment_file)
        find_command(program, own_environment(program, of_file, {}))
    assert str(caught.value).startswith(words)
    assert caught.value.code == "program_missing"


def test_a_wrong_line_of_an_environment_file_is_named_without_its_value(tmp_path: Path) -> None:
    file = tmp_path / "env"
    for line in ("TOKEN hidden", "WA_SESSION=hidden", "2=hidden"):
        file.write_text(f"GOOD=1\n{line}\n")
        with pytest.raises(EngineError, match="line 2") as caught:
            read_environment_file(str(file))
        assert "hidden" not in str(caught.value)


SAID = (
    ("A=1\r\nB='q'\r\n", {"A": "1", "B": "q"}),
    ('A="two\nlines"\nB=2\n', {"A": "two\nlines", "B": "2"}),
    ("A='one $x\n# no comment'  # one\nB=2", {"A": "one $x\n# no comment", "B": "2"}),
    ('A="un\nB="x"y"\n', {"A": '"un', "B": '"x"y"'}),
    (r'A="say \"hi\" for $5 \n"', {"A": r'say "hi" for $5 \n'}),
    ("A=\n B = 2 \n\n; none\n  # none\nexport C=3", {"A": "", "B": "2", "C": "3"}),
)
"""As systemd reads it, and dotenv, where the two agree."""


@pytest.mark.parametrize(("text", "wanted"), SAID)
def test_an_environment_file_is_read_as_systemd_and_dotenv_do(
    tmp_path: Path, text: str, wanted: dict[str, str]
) -> None:
    (tmp_path / "env").write_bytes(text.encode())
    assert read_environment_file(str(tmp_path / "env")) == wanted


def test_a_failing_key_that_it_printed_is_told_as_what_it_was() -> None:
    heard = Heard()
    for it in (pattern for pattern in PATTERNS if pattern.effect is not Effect.BENIGN):
        ProgramState(heard).found_crypto(CryptoFinding(it.name, it.effect))
        read = read_line(heard.happenings[-1].detail["text"])
        assert read is not None and read.name == it.name
