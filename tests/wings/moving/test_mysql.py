"""Sessions in a real MariaDB, and in what its dump program writes."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent.errors import WaError
from agent.vault.archives.found import FoundSession
from agent.wings.moving.mysql import MysqlTables
from agent.wings.moving.recognise import Hints, find_sessions, shown
from agent.wings.moving.session import normal
from tests.wings.moving.conftest import (
    Mariadb,
    creds,
    keys_of,
    whaticket_sql,
)

NAME = 'Owner\'s \\ "shop" ção 🙂; NULL'
KEYS = {**keys_of(creds(me={"id": "5511900000001:3@x", "name": NAME})), "session-551.0": b'{"v":1}'}


def find(source: object, **hints: Any) -> list[FoundSession]:
    return find_sessions(str(source), Hints(**hints))


def holds_all(session: FoundSession) -> None:
    assert (session.problem, session.account) == ("", "5511900000001")
    assert session.keys == {key: normal(key, raw) for key, raw in KEYS.items()}


@pytest.mark.parametrize("beside", [False, True], ids=["column session", "table BaileysKeys"])
def test_whaticket_is_read_from_mysql_and_its_dump(
    tmp_path: Path, mariadb: Mariadb, beside: bool
) -> None:
    name = f"whaticket{beside:d}"
    url = mariadb.make(name, whaticket_sql(KEYS, beside=beside))
    for source in (url, mariadb.dump(name, tmp_path / "dump.sql")):
        [session] = find(source)
        assert (session.program, session.name) == ("whaticket", "Support")
        holds_all(session)


def test_no_question_can_write(mariadb: Mariadb) -> None:
    tables = MysqlTables(mariadb.make("kept", "CREATE TABLE t (a int)"))
    with pytest.raises(WaError, match=r"ERROR 1792 .*READ ONLY"):
        tables._ask("INSERT INTO t VALUES (1)")
    assert tables.rows("t") == []


def test_a_refused_login_and_a_missing_tls_are_named_without_the_password(mariadb: Mariadb) -> None:
    url = mariadb.url("mysql")
    for wrong in (url.replace("cret", "cure"), url + "&ssl=true"):
        with pytest.raises(WaError) as caught:
            find(wrong)
        assert (caught.value.code, "se cure" in str(caught.value)) == ("unreadable", False)
    assert shown(url) == "mysql://localhost/mysql"


def test_a_dump_that_was_cut_off_is_damaged(tmp_path: Path, mariadb: Mariadb) -> None:
    mariadb.make("cut", whaticket_sql(KEYS, beside=True))
    whole = mariadb.dump("cut", tmp_path / "dump.sql").read_bytes()
    places = [whole.index(mark) for mark in (b"INSERT INTO", b"`Whatsapps` (", b"-- Dump compl")]
    for place in (*places, places[0] + 300, len(whole) // 2):
        path = tmp_path / "cut.sql"
        path.write_bytes(whole[:place])
        with pytest.raises(WaError) as caught:
            find(path)
        assert caught.value.code == "damaged", whole[place - 40 : place]
    assert json.loads(find(tmp_path / "dump.sql")[0].keys["creds"])["me"]["name"] == NAME
