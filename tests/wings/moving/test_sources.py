"""Each source is recognised, shown as what it is, and refused where it cannot be moved."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.errors import WaError
from agent.vault.archives.found import FoundSession
from agent.wings.moving.recognise import Hints, find_sessions
from agent.wings.moving.session import look_at
from agent.wings.moving.session import write_folder as write_session
from tests.wings.moving.conftest import (
    age,
    as_whaticket,
    creds,
    keys_of,
    read_folder,
    write_folder,
    write_json,
)

ACCOUNT = "5511900000001"


def find(source: object, **hints: Any) -> list[FoundSession]:
    return find_sessions(str(source), Hints(**hints))


def whole(session: FoundSession, program: str, name: str) -> FoundSession:
    assert (session.program, session.name, session.problem) == (program, name, "")
    assert (session.account, session.pre_keys) == (ACCOUNT, 2)
    return session


@pytest.mark.parametrize(
    ("below", "program", "name"),
    [
        pytest.param("auth_info_baileys", "Baileys", "auth_info_baileys", id="a plain bot"),
        pytest.param("instances/shop", "Evolution API 1.8", "shop", id="Evolution API 1.8"),
        pytest.param(".sessions/noweb/shop/auth", "WAHA", "shop", id="WAHA"),
    ],
)
def test_a_folder_of_keys_is_found_from_above_and_by_itself(
    tmp_path: Path, below: str, program: str, name: str
) -> None:
    folder = write_folder(tmp_path / below, keys_of())
    (folder / "notes.txt").write_text("of the bot")
    for source in (tmp_path, folder):
        [session] = find(source)
        whole(session, program, name)
    target = tmp_path / "target"
    target.mkdir()
    write_session(session, target)
    assert read_folder(target).keys() == keys_of().keys()


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        pytest.param(keys_of(pre_keys=0), "no_pre_keys", id="credentials alone"),
        pytest.param(keys_of(creds(me=None)), "not_paired", id="never paired"),
        pytest.param(
            keys_of(creds(pairingCode="ABCD1234", account=None)),
            "not_paired",
            id="only a pairing code was asked for",
        ),
        pytest.param(keys_of(creds(noiseKey=None)), "incomplete", id="half of the credentials"),
        pytest.param({**keys_of(), "creds": b'{"me": {'}, "damaged", id="cut off"),
        pytest.param(
            {**keys_of(), "creds": b"[" * 900 + b"]" * 900}, "damaged", id="nested too deep"
        ),
        pytest.param(
            {"creds": keys_of()["creds"], "pre-key-1": b""}, "no_pre_keys", id="no whole pre-key"
        ),
    ],
)
def test_a_session_that_cannot_be_moved_has_a_reason(tmp_path: Path, keys: Any, code: str) -> None:
    [session] = find(write_folder(tmp_path / "bot", keys))
    assert (session.code, bool(session.problem)) == (code, True)


def test_a_source_that_cannot_be_read_is_named() -> None:
    def read() -> dict[str, bytes]:
        raise PermissionError(13, "Permission denied")

    session = look_at("Baileys", "shop", read, written=None)
    assert (session.code, "Permission denied" in session.problem) == ("unreadable", True)


def test_a_folder_whose_bot_runs_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "bot" / "auth", keys_of())
    script = "console.log(1); setInterval(() => {}, 1000)"
    with subprocess.Popen(
        ["node", "-e", script], cwd=tmp_path / "bot", stdout=subprocess.PIPE
    ) as bot:
        assert bot.stdout is not None
        bot.stdout.readline()
        [session] = find(folder)
        bot.kill()
    assert (session.code, f"process {bot.pid}" in session.problem) == ("in_use", True)
    [session] = find(folder)
    assert not session.problem


def a_sparse_file(path: Path, head: bytes) -> None:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(3 << 30)


def test_a_huge_key_is_not_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "bot", keys_of())
    a_sparse_file(folder / "session-1.0.json", b"{")
    age(folder)
    [session] = find(folder)
    assert session.code == "too_large", session.problem


@pytest.mark.parametrize("program", ["auto", "wa-agent"])
def test_a_pipe_is_no_source(tmp_path: Path, program: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-m", "agent", "import", tmp_path / "pipe", "x", "--dry-run"]
    done = subprocess.run(
        [*command, "--from", program], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, "it is no regular file" in done.stderr) == (2, True), done.stderr


JSON = {
    "whaticket's column": as_whaticket(keys_of()),
    "Evolution's hash in Redis": {key: raw.decode() for key, raw in keys_of().items()},
    "whaticket's keys in Redis": {f"sessions:7:{k}": raw.decode() for k, raw in keys_of().items()},
    "a text of a text": {key: json.dumps(raw.decode()) for key, raw in keys_of().items()},
}


@pytest.mark.parametrize("kind", JSON)
def test_one_session_is_read_from_json(tmp_path: Path, kind: str) -> None:
    path = write_json(tmp_path / "shop.json", JSON[kind])
    [session] = find(path)
    assert session.code == "in_use", "nobody can see whether its program runs"
    [session] = find(path, stopped=True)
    whole(session, "JSON", "shop")
    assert json.loads(session.keys["pre-key-1"]) == json.loads(keys_of()["pre-key-1"])


@pytest.mark.parametrize("in_a_folder", [True, False])
def test_keys_that_lie_elsewhere_are_added(tmp_path: Path, *, in_a_folder: bool) -> None:
    keys = keys_of()
    path = write_json(tmp_path / "shop.json", {"creds": json.dumps(keys.pop("creds").decode())})
    [alone] = find(path, stopped=True)
    assert alone.code == "no_pre_keys"
    if in_a_folder:
        place = write_folder(tmp_path / "abc", keys)
    else:
        place = write_json(tmp_path / "keys.json", {k: raw.decode() for k, raw in keys.items()})
    [session] = find(path, stopped=True, keys=str(place))
    whole(session, "JSON", "shop")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(b"anything", "no_session", id="a foreign file"),
        pytest.param(b"SQLite format 3\0", "no_session", id="a database"),
    ],
)
def test_a_foreign_file_is_named(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "what"
    path.write_bytes(content)
    with pytest.raises(WaError) as caught:
        find(path)
    assert (caught.value.code, str(path) in str(caught.value)) == (code, True)


def test_a_json_file_that_was_cut_off_is_damaged(tmp_path: Path) -> None:
    path = write_json(tmp_path / "shop.json", as_whaticket(keys_of()))
    path.write_bytes(path.read_bytes()[:-9])
    [session] = find(path, stopped=True)
    assert session.code == "damaged"
