"""Every source that cannot be moved has a code of its own, whatever kind of source it is."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.errors import WaError
from agent.wings.moving.program_tables import lasting_user
from agent.wings.moving.recognise import Hints, find_sessions
from agent.wings.moving.session import write_folder as write_session
from tests.wings.moving.conftest import (
    SCHEMA,
    Keys,
    Mariadb,
    Redis,
    creds,
    evolution_sql,
    keys_of,
    whaticket_sql,
    write_folder,
    write_whatsmeow,
)

BROKEN: dict[str, Keys] = {
    "no_pre_keys": keys_of(pre_keys=0),
    "not_paired": keys_of(creds(me=None)),
    "incomplete": keys_of(creds(noiseKey=None)),
    "damaged": {**keys_of(), "creds": keys_of()["creds"][:99]},
}
BROKEN_TABLES = {
    "no_pre_keys": "DELETE FROM whatsmeow_pre_keys",
    "not_paired": "UPDATE whatsmeow_device SET jid = ''",
    "incomplete": "UPDATE whatsmeow_device SET adv_key = x''",
    "damaged": "UPDATE whatsmeow_device SET noise_key = x'00'",
}


@dataclass
class Places:
    """Where sources lie, each made once."""

    folder: Path
    mariadb: Mariadb
    redis: Redis

    @property
    def name(self) -> str:
        """Of this test's own database."""
        return f"d{abs(hash(self.folder))}"

    def database(self, sql: str) -> str:
        return self.mariadb.make(self.name, sql)

    def dump(self, sql: str) -> str:
        self.database(sql)
        return str(self.mariadb.dump(self.name, self.folder / "dump.sql"))


@pytest.fixture
def places(tmp_path: Path, mariadb: Mariadb, redis_server: Redis) -> Iterator[Places]:
    yield Places(tmp_path, mariadb, redis_server)


def in_folder(below: str) -> Callable[[Places, Keys], tuple[str, Hints]]:
    def make(places: Places, keys: Keys) -> tuple[str, Hints]:
        write_folder(places.folder / below, keys)
        return str(places.folder), Hints()

    return make


def in_strings(places: Places, keys: Keys) -> tuple[str, Hints]:
    places.redis.fill(
        lambda client: [client.set(f"sessions:7:{key}", keys[key]) for key in keys] and None
    )
    return places.redis.url, Hints()


def in_evolutions_database(places: Places, keys: Keys) -> tuple[str, Hints]:
    beside = {key: value for key, value in keys.items() if key != "creds"}
    write_folder(places.folder / "instances" / "abc", beside)
    address = places.database(evolution_sql("abc", "shop", keys))
    return address, Hints(keys=str(places.folder / "instances"))


def whatickets_column(keys: Keys) -> str:
    damaged = keys == BROKEN["damaged"]
    sql = whaticket_sql(keys_of() if damaged else keys, beside=False)
    cut = 'UPDATE "Whatsapps" SET session = substr(session, 1, 99) WHERE id = 7;'
    return sql + cut if damaged else sql


def in_whatickets_dump(places: Places, keys: Keys) -> tuple[str, Hints]:
    return places.dump(whatickets_column(keys)), Hints()


@pytest.mark.parametrize("code", BROKEN)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(in_folder("bot"), id="Baileys folder"),
        pytest.param(in_strings, id="whaticket in Redis"),
        pytest.param(in_evolutions_database, id="Evolution API 2"),
        pytest.param(in_whatickets_dump, id="a dump of whaticket"),
    ],
)
def test_an_incomplete_source_has_its_code(places: Places, make: Any, code: str) -> None:
    source, hints = make(places, BROKEN[code])
    [session] = find_sessions(source, hints)
    assert (session.code, bool(session.problem)) == (code, True), session


@pytest.mark.parametrize("code", BROKEN_TABLES)
def test_an_incomplete_whatsmeow_store_has_its_code(tmp_path: Path, code: str) -> None:
    path = write_whatsmeow(tmp_path / "store.db", keys_of())
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(BROKEN_TABLES[code])
    [session] = find_sessions(str(path), Hints())
    assert (session.code, bool(session.problem)) == (code, True), session


PEERS: dict[str, Keys] = {
    "empty": {"session-5511900000002.0": b""},
    "cut": {"session-5511900000002.0": b'{"private": '},
    "not a number": {"session-5511900000002.0": b'{"a": NaN}'},
    "nested too deep": {"session-5511900000002.0": b"[" * 100_000},
    "two keys with one file name": {"sender-key-a:b": b"{}", "sender-key-a-b": b"{}"},
    "a NUL in a name": {"sender-key-a\0b": b"{}"},
    "half a character in a name": {"sender-key-\udcff": b"{}"},
    "a name too long for a file": {f"sender-key-{'g' * 300}": b"{}"},
    "a name that climbs out": {"sender-key-/../../x": b"{}"},
    "a damaged pre-key": {"pre-key-9": b"\xff"},
}
"""Records that a contact or a power cut left, by what is wrong with them."""


@pytest.mark.parametrize("case", PEERS)
def test_a_record_that_cannot_be_used_stays_behind_and_the_session_moves(
    tmp_path: Path, redis_server: Redis, case: str
) -> None:
    keys = keys_of() | PEERS[case]
    redis_server.fill(
        lambda client: (
            [
                client.set(f"sessions:7:{key}".encode("utf-8", "surrogateescape"), keys[key])
                for key in keys
            ]
            and None
        )
    )
    [session] = find_sessions(redis_server.url, Hints())
    write_session(session, tmp_path)
    written = {path.name for path in tmp_path.iterdir()} - {"sender-key-__..__..__x.json"}
    assert (session.problem, written) == ("", {f"{key}.json" for key in keys_of()})
    if case != "a name that climbs out":
        assert sum(session.left_out.values()) == len(PEERS[case])
        assert "left out" in session.left_out_sentence
        assert "5511900000002" not in session.left_out_sentence, "no contact's number is told"


def test_a_session_that_cannot_be_read_at_all_is_named_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("good", "odd"):
        write_folder(tmp_path / name, keys_of())

    def read(folder: Path) -> Keys:
        if folder.name == "odd":
            raise ZeroDivisionError("SECRET")
        return keys_of()

    monkeypatch.setattr("agent.wings.moving.folders.read_folder", read)
    good, odd = find_sessions(str(tmp_path), Hints())
    assert (good.problem, odd.code) == ("", "unreadable")
    assert odd.problem == "it cannot be read: ZeroDivisionError"


def nothing_in_a_store(places: Places) -> str:
    with closing(sqlite3.connect(places.folder / "store.db")) as database, database:
        database.executescript(SCHEMA)
    return str(places.folder / "store.db")


def a_link_to_itself(places: Places) -> str:
    (places.folder / "store.db").symlink_to("store.db")
    return str(places.folder / "store.db")


@pytest.mark.parametrize(
    ("make", "code"),
    [
        pytest.param(lambda places: str(places.folder), "no_session", id="an empty folder"),
        pytest.param(nothing_in_a_store, "no_session", id="whatsmeow without a device"),
        pytest.param(
            lambda places: places.database("CREATE TABLE t (a int)"),
            "no_session",
            id="another program's database",
        ),
        pytest.param(lambda places: places.redis.url, "no_session", id="an empty Redis"),
        pytest.param(lambda _: "oracle://db/x", "unknown", id="an unknown address"),
        pytest.param(lambda _: "/no/such/file", "unreadable", id="no file"),
        pytest.param(a_link_to_itself, "unreadable", id="a file that cannot be opened"),
        pytest.param(lambda _: "postgresql:///x?host=/no/s", "unreadable", id="no PostgreSQL"),
    ],
)
def test_an_unreadable_source_or_one_without_a_session_has_its_code(
    places: Places, make: Callable[[Places], str], code: str
) -> None:
    with pytest.raises(WaError) as caught:
        find_sessions(make(places), Hints())
    assert caught.value.code == code, caught.value


def test_a_store_that_its_program_is_writing_is_in_use_and_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "bot", BROKEN["damaged"])
    monkeypatch.setattr("agent.wings.moving.folders.user_of_folder", lambda _: "node (process 7)")
    [session] = find_sessions(str(tmp_path), Hints())
    assert (session.code, "node (process 7) uses it" in session.problem) == ("in_use", True)
    [session] = find_sessions(str(tmp_path), Hints(stopped=True))
    assert (session.code, dict(session.keys)) == ("damaged", {}), "nothing half-read is moved"


def test_a_client_that_has_just_ended_uses_nothing() -> None:
    seen = ["psql", "psql", ""]
    assert lasting_user(lambda: seen.pop(0)) == ""
    assert lasting_user(lambda: "whaticket") == "whaticket"
