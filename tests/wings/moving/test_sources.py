"""Each source is recognised, shown as what it is, and refused where it cannot be moved."""

import base64
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
from agent.wings.moving.whatsmeow import public_key
from tests.wings.moving.conftest import (
    Postgres,
    Redis,
    age,
    creds,
    evolution_sql,
    keys_of,
    read_folder,
    whaticket_sql,
    write_folder,
    write_whatsmeow,
)

ACCOUNT = "5511900000001"


def find(source: object, **hints: Any) -> list[FoundSession]:
    return find_sessions(str(source), Hints(**hints))


def whole(session: FoundSession, program: str, name: str) -> FoundSession:
    assert (session.program, session.name, session.problem) == (program, name, "")
    assert (session.account, session.pre_keys) == (ACCOUNT, 2)
    return session


def test_the_public_key_is_the_one_that_node_makes() -> None:
    script = (
        "for (let i = 0; i < 8; i++) { const k = crypto.generateKeyPairSync('x25519')"
        ".privateKey.export({format: 'jwk'}); console.log(k.d, k.x); }"
    )
    told = subprocess.run(["node", "-e", script], check=True, capture_output=True, text=True).stdout
    pairs = [line.split() for line in told.splitlines()]
    assert len(pairs) == 8
    for private, public in pairs:
        made = public_key(base64.urlsafe_b64decode(private + "="))
        assert made == base64.urlsafe_b64decode(public + "=")


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


def test_a_whatsmeow_file_is_read_from_a_copy(tmp_path: Path) -> None:
    path = write_whatsmeow(tmp_path / "store.db", keys_of())
    before = path.read_bytes()
    [session] = find(path)
    whole(session, "whatsmeow", ACCOUNT)
    told = json.loads(session.keys["creds"])
    wanted = creds()
    for name in ("noiseKey", "signedIdentityKey", "signedPreKey", "advSecretKey", "account"):
        assert told[name] == wanted[name], name
    assert (told["nextPreKeyId"], told["firstUnuploadedPreKeyId"]) == (3, 3)
    assert json.loads(session.keys["pre-key-2"]) == json.loads(keys_of()["pre-key-2"])
    state = json.loads(session.keys["app-state-sync-key-AAAAAQ=="])
    assert state["fingerprint"] == {"rawId": 5, "currentIndex": 1, "deviceIndexes": [0, 1]}
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["store.db"]


def test_a_whatsmeow_file_that_is_open_is_refused(tmp_path: Path) -> None:
    path = write_whatsmeow(tmp_path / "store.db", keys_of())
    with (
        path.open("rb") as held,
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[held.fileno()]) as program,
    ):
        [session] = find(path)
        program.communicate()
    assert (session.code, "cat" in session.problem) == ("in_use", True)


def test_a_whatsmeow_file_is_read_with_what_lies_in_its_journal(tmp_path: Path) -> None:
    """As its program leaves it that was killed: the newest rows are beside the file only."""
    script = (
        "import sqlite3, sys, os, signal; db = sqlite3.connect(sys.argv[1]);"
        "db.execute('PRAGMA journal_mode=WAL');"
        "db.execute('DELETE FROM whatsmeow_pre_keys WHERE key_id = 2'); db.commit();"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = write_whatsmeow(tmp_path / "store.db", keys_of())
    subprocess.run([sys.executable, "-c", script, path], check=False)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert len(before["store.db-wal"]) > 0
    [session] = find(path)
    assert (session.pre_keys, session.problem) == (1, "")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def a_sparse_file(path: Path, head: bytes) -> None:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(3 << 30)


@pytest.mark.parametrize("journal", ["", "-wal"])
def test_a_huge_file_that_begins_as_sqlite_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: str
) -> None:
    a_sparse_file(tmp_path / "store.db", b"SQLite format 3\0")
    if journal:
        (tmp_path / f"store.db{journal}").write_bytes(b"x")

    def copy(*_: object) -> None:
        raise AssertionError("3 GiB were copied")

    monkeypatch.setattr("agent.wings.moving.program_tables.shutil.copyfile", copy)
    with pytest.raises(WaError) as caught:
        find(tmp_path / "store.db")
    assert caught.value.code == ("too_large" if journal else "damaged"), caught.value


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


def test_sessions_in_redis_are_found_by_their_keys(redis_server: Redis) -> None:
    def write(client: Any) -> None:
        for key, value in keys_of().items():
            client.set(f"sessions:7:{key}", value)
            client.hset("evolution:instance:abc", key, value)
        client.set("sessions:8:creds", json.dumps(creds(me=None)))

    redis_server.fill(write)
    evolution, support, unpaired = find(redis_server.url)
    whole(evolution, "Evolution API", "abc")
    whole(support, "whaticket", "7")
    assert (unpaired.name, unpaired.code) == ("8", "not_paired")
    client = redis_server.client()
    client.ping()
    assert {session.code for session in find(redis_server.url)} == {"in_use", "not_paired"}
    client.close()


def test_evolution_2_is_read_from_its_database_and_where_its_keys_lie(
    tmp_path: Path, postgres: Postgres, redis_server: Redis
) -> None:
    keys = keys_of()
    postgres.sql(evolution_sql("abc", "shop", keys))
    beside = {key: value for key, value in keys.items() if key != "creds"}
    write_folder(tmp_path / "instances" / "abc", beside)
    redis_server.fill(
        lambda client: [client.hset("x:instance:abc", *item) for item in beside.items()] and None
    )
    dump = postgres.dump(tmp_path / "evolution.sql")
    for source in (postgres.url, dump):
        [alone] = find(source)
        assert (alone.name, alone.code) == ("shop", "keys_elsewhere")
        for place in (tmp_path / "instances", redis_server.url):
            [session] = find(source, keys=str(place))
            whole(session, "Evolution API 2", "shop")


@pytest.mark.parametrize("beside", [False, True], ids=["column session", "table BaileysKeys"])
def test_whatickets_database_is_read(tmp_path: Path, postgres: Postgres, beside: bool) -> None:
    postgres.sql(whaticket_sql(keys_of(), beside=beside))
    for source in (postgres.url, postgres.dump(tmp_path / "dump.sql")):
        [session] = find(source)
        whole(session, "whaticket", "Support")
        assert json.loads(session.keys["pre-key-1"]) == json.loads(keys_of()["pre-key-1"])


def test_a_database_that_a_server_uses_is_refused(postgres: Postgres) -> None:
    postgres.sql(whaticket_sql(keys_of(), beside=False))
    environment = {**os.environ, "PGAPPNAME": "whaticket"}
    command = ["psql", "-X", "-q", "-h", postgres.folder, "-U", "owner", "whatsapp"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write("SELECT 1;\n")
        server.stdin.flush()
        server.stdout.readline()
        [session] = find(postgres.url)
        server.communicate()
    assert (session.code, "whaticket uses it" in session.problem) == ("in_use", True)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(b"anything", "no_session", id="a foreign file"),
        pytest.param(b"SQLite format 3\0 and no more", "damaged", id="a broken SQLite file"),
        pytest.param(
            b"-- PostgreSQL database dump\nCOPY public.t (a) FROM stdin;\nx\n",
            "damaged",
            id="a dump that was cut off",
        ),
    ],
)
def test_a_foreign_file_is_named(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "what"
    path.write_bytes(content)
    with pytest.raises(WaError) as caught:
        find(path)
    assert (caught.value.code, str(path) in str(caught.value)) == (code, True)
