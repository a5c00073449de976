"""`wa-agent import` and `export --to`: shown first, each moved or refused by name."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from agent.core.model import InstanceId
from agent.engines.web.rules import profile_path
from agent.errors import Refused, VaultError
from agent.moving.sources import copy_local_auth, export_folder
from agent.vault.archives import pack_session
from tests.cli.conftest import Cli, House
from tests.moving.conftest import creds, keys_of, pair_of, read_folder, write_folder

Sent = list[tuple[str, bytes]]
STORE = "Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.leveldb"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """Each archive that the agent got, which takes them all."""
    got: Sent = []

    def send(_options: Any, archive: Any, id: str, _name: str) -> dict[str, Any]:
        got.append((id, archive.read()))
        told = dict.fromkeys(("engine", "account", "trash", "sha256"), "")
        return {"id": id, "enabled": False, **told}

    monkeypatch.setattr("agent.moving.commands.upload", send)
    return got


@pytest.fixture
def three(elsewhere: Path) -> Path:
    """Two sessions that can be moved, two of the same ids, one without its pre-keys."""
    write_folder(elsewhere / "bots" / "old" / "sales", keys_of())
    for seed, name in enumerate(("Help Desk", "old/help-desk", "sales"), 7):
        other = creds(me={"id": "551188:1@x"}, noiseKey=pair_of(seed))
        write_folder(elsewhere / "bots" / name, keys_of(other))
    write_folder(elsewhere / "bots" / "deaf", keys_of(pre_keys=0))
    return elsewhere / "bots"


async def test_a_dry_run_shows_each_session_and_imports_none(
    house: House, cli: Cli, three: Path, sent: Sent
) -> None:
    answer = await cli("import", "bots", "--dry-run")
    heads = ["NAME", "PROGRAM", "ACCOUNT", "WRITTEN", "PRE-KEYS", "ID", "RESULT"]
    assert (answer.status, answer.out.splitlines()[0].split()) == (4, heads), "one cannot move"
    told = (await cli("import", "bots", "--dry-run", "--json")).json()
    assert [(one["id"], one["code"]) for one in told] == [
        *(("help-desk", ""), ("deaf", "no_pre_keys"), ("help-desk", "same_name")),
        *(("sales", ""), ("sales", "same_name")),
    ]
    assert "bots/sales and bots/old/sales" in told[-1]["problem"]
    assert "keys" not in told[0], "no key leaves the source"
    assert (await cli("import", "bots/sales", "--dry-run")).status == 0
    assert not sent


async def test_several_sessions_are_imported_only_when_that_is_said(
    house: House, cli: Cli, three: Path, sent: Sent
) -> None:
    for words, status, code in (
        ((), 4, "several_sessions"),
        (("--only", "nobody"), 2, "no_session"),
        (("--all", "--enable", "--wait", "1"), 2, "invalid_request"),
        (("--wait", "1"), 2, "invalid_request"),
        (("--only", "deaf"), 4, "no_pre_keys"),
    ):
        refused = await cli("import", "bots", *words, "--json")
        assert (refused.status, json.loads(refused.err)["error"]) == (status, code), refused
    answer = await cli("import", "bots", "--all", "--replace", "--json")
    results = [row["result"].partition(":")[0] for row in answer.json()]
    assert (answer.status, [id for id, _ in sent]) == (4, ["help-desk", "sales"])
    assert results == ["imported", "refused", "refused", "imported", "refused"]


NONE = {"a folder": "no_session", "a file": "no_session", "a pipe": "unreadable"}
NONE |= {"no file": "unreadable", "postgresql://u:s3cret@db/x": "unknown"}


@pytest.mark.parametrize("source", NONE)
async def test_what_holds_no_session_is_refused(cli: Cli, elsewhere: Path, source: str) -> None:
    (elsewhere / "a folder").mkdir()
    (elsewhere / "a file").write_text("SQLite format 3\0")
    os.mkfifo(elsewhere / "a pipe")
    answer = await cli("import", source, "x", "--dry-run", "--json")
    assert (answer.status, json.loads(answer.err)["error"]) == (2, NONE[source])
    assert "s3cret" not in answer.err


def local_auth(root: Path, name: str) -> Path:
    profile = root / name
    (profile / STORE).mkdir(parents=True)
    (profile / STORE / "CURRENT").write_bytes(b"keys")
    (profile / STORE / "MANIFEST-1").write_bytes(b"keys")
    os.mkfifo(profile / STORE / "LOCK")  # which a reader of it would wait for
    (profile / "Default" / "Cache").mkdir()
    (profile / "Default" / "Cache" / "big").write_bytes(b"x" * 1000)
    (profile / "SingletonLock").symlink_to("old-host-17")
    (profile / "evil").symlink_to("/etc/passwd")
    (profile / "evil-folder").symlink_to("/etc")
    return profile


def test_a_local_auth_folder_comes_in_and_goes_out_again(tmp_path: Path) -> None:
    source = local_auth(tmp_path / ".wwebjs_auth", "session-sales")
    before = {path.name for path in source.rglob("*")}
    (session := tmp_path / "session").mkdir()
    copy_local_auth(source, session)
    profile = profile_path(session)
    assert (profile / STORE / "CURRENT").read_bytes() == b"keys"
    there = {path.name for path in profile.rglob("*")}
    assert not there & {"Cache", "evil", "evil-folder", "SingletonLock"}
    for force in (False, True):
        out = export_folder(session, "web", InstanceId("sales"), tmp_path / "out", force=force)
    assert (out.name, (out / STORE / "CURRENT").read_bytes()) == ("session-sales", b"keys")
    old = [path for path in out.parent.iterdir() if path != out]
    assert len(old) == 1, "what was there is moved aside"
    assert {path.name for path in source.rglob("*")} == before, "no source is written to"
    os.truncate(profile / STORE / "CURRENT", 5 << 30)
    with pytest.raises(VaultError, match="more than"):
        export_folder(session, "web", InstanceId("other"), tmp_path / "out", force=False)
    assert len([*out.parent.iterdir()]) == 2, "nothing half-written stays"


async def test_a_local_auth_folder_is_recognised_and_packed(
    house: House, cli: Cli, elsewhere: Path, sent: Sent
) -> None:
    local_auth(elsewhere / ".wwebjs_auth", "session-sales")
    answer = await cli("import", ".wwebjs_auth", "sales", "--json")
    assert (answer.status, [id for id, _ in sent]) == (0, ["sales"]), answer.err
    (elsewhere / "sales.tar.gz").write_bytes(sent[0][1])
    [shown] = (await cli("import", "sales.tar.gz", "--dry-run", "--json")).json()
    assert (shown["program"], shown["problem"]) == ("wa-agent (web)", "")


async def test_a_bots_archive_becomes_a_session_of_baileys_and_goes_out_again(
    house: House, cli: Cli, elsewhere: Path, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(elsewhere / "bot" / "auth_info_baileys", keys_of())
    archive = elsewhere / "shop.tar.gz"
    with archive.open("wb") as out:
        pack_session(elsewhere / "bot", InstanceId("shop"), "program", out, wall=1.0)
    for words in ((), ("till",)):
        answer = await cli("import", archive, *words, "--engine", "baileys")
        assert answer.status == 0, answer.err
    assert [id for id, _ in sent] == ["shop", "till"]
    assert (await cli("import", "bot", "--engine", "baileys")).status == 2
    assert f"cannot import {archive}: it" in (await cli("import", archive, "--engine", "web")).err
    for words, why in (
        (("--set", "proxy=x"), "brings its settings"),
        (("--only", "x"), "one session"),
    ):
        refused = await cli("import", archive, *words)
        assert (refused.status, why in refused.err) == (2, True)
    archive.write_bytes(sent[0][1])
    monkeypatch.setattr(
        "agent.moving.commands._download", lambda _, target: target.write_bytes(sent[0][1])
    )
    assert (await cli("export", "shop", "bots", "--to", "wwebjs")).status == 4
    done = await cli("export", "shop", "bots", "--to", "baileys")
    assert (done.status, read_folder(elsewhere / "bots/shop").keys()) == (0, keys_of().keys())
    again = await cli("export", "shop", "bots", "--to", "baileys", "--json")
    assert (again.status, json.loads(again.err)["error"]) == (4, "exists")


def test_a_store_without_a_pairing_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot export a") as caught:
        export_folder(tmp_path, "baileys", InstanceId("a"), tmp_path / "out", force=False)
    assert caught.value.code == "no_session"
