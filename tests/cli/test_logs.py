"""`wa-agent logs`: the worker's lines by the agent, or by the journal where that has them."""

import os
from pathlib import Path

import pytest

from agent.api.handlers.events import read_lines
from tests.cli.conftest import Cli


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the words that a journalctl got."""
    program, found = tmp_path / "journalctl", tmp_path / "asked"
    program.write_text(f'#!/bin/sh\necho "$*" > {found}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return found


async def test_on_systemd_the_journal_is_asked_as_the_caller(cli: Cli, asked: Path) -> None:
    await cli("create", "sales", "--engine", "sandbox")
    assert (await cli("logs", "sales", "-f")).status == 0
    wanted = (
        "--no-pager -q -f -n 60 -o short-iso _SYSTEMD_UNIT=wa-instance@sales.service"
        " + _PID=1 UNIT=wa-instance@sales.service"
        " + _SYSTEMD_SLICE=wa-instances.slice WA_INSTANCE=sales\n"
    )
    assert asked.read_text() == wanted


async def test_a_stack_has_a_word_before_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    await cli("create", "sales", "--engine", "sandbox")
    found = {"lines": ["Fatal Python error: Aborted"], "cut": False, "next": 1}
    monkeypatch.setattr("agent.cli.views.follow", lambda *_: [found])
    assert "the worker hung, and its watchdog" in (await cli("logs", "sales")).err


def test_lines_go_on_where_the_last_look_ended(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_bytes(b"one\ntwo\nhal")
    lines, after, cut = read_lines(log, None)
    assert (lines, cut) == (["one", "two"], False)
    with log.open("ab") as file:
        file.write(b"f\nBearer wak_abcdefgh_0123456789abcdef\n")
    lines, after, cut = read_lines(log, after)
    assert lines[0] == "half"
    assert "0123456789abcdef" not in lines[1]
    log.write_bytes(b"anew\n")  # it was full, and began again
    assert read_lines(log, after) == (["anew"], 5, True)
    assert read_lines(log, 5) == ([], 5, False)
    assert read_lines(tmp_path / "none", None) == ([], 0, False)


def test_of_a_packs_lines_only_those_of_one_session_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    head = "[2026-11-23 14:13:35]"
    lines = [
        f"{head} [INFO] [SESSION] [baileys-1] listening",
        f"{head} [INFO] [SESSION] [shop] INITIALIZING -> CONNECTED",
        f"{head} [ERROR] [SESSION] [till] it failed",
        "Traceback (most recent call last):",
        f"{head} [ERROR] [SESSION] [shop] it failed, too",
        "Traceback of the shop's",
    ]
    log.write_text("".join(f"{line}\n" for line in lines))
    assert read_lines(log, None, "shop")[0] == [lines[1], *lines[4:]]
    assert len(read_lines(log, None)[0]) == 6
