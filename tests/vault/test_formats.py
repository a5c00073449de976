"""Each engine's files must have its form and the right owner."""

import json
import os
import subprocess

import pytest

from agent.core.model import Instance, InstanceId, SessionFiles
from agent.engines.catalog import CATALOG, file_rules
from agent.vault.folders import LEAST_FREE, has_room, lacks_room, why_no_start
from agent.vault.identity import create
from agent.vault.tree import inspect, is_left_out
from tests.vault.conftest import sandbox_file

UNPAIRED, WHOLE, DAMAGED = SessionFiles.UNPAIRED, SessionFiles.WHOLE, SessionFiles.DAMAGED
ABSENT = SessionFiles.ABSENT

STORE = "profile/Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.leveldb"
PAIR = {"private": {"data": "x"}, "public": {"data": "y"}}
CREDS = {"noiseKey": PAIR, "signedIdentityKey": PAIR, "me": {"id": "49151:1@s.whatsapp.net"}}


@pytest.fixture
def make(root):
    """An instance of an engine with these files."""

    def making(engine, files):
        folder = create(root, Instance(InstanceId("one"), engine, True))
        for name, raw in files.items():
            path = folder / "session" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw)
        return folder

    return making


LEVELDB = {f"{STORE}/CURRENT": b"MANIFEST-000001\n", f"{STORE}/MANIFEST-000001": b"x"}


@pytest.mark.parametrize(
    ("files", "paired", "found", "named"),
    [
        pytest.param({}, True, UNPAIRED, "", id="nothing"),
        pytest.param(LEVELDB, True, WHOLE, "", id="paired"),
        pytest.param(LEVELDB, False, UNPAIRED, "", id="only looked at"),
        pytest.param(
            {**LEVELDB, "web.json": b'{"paired": true}'}, False, WHOLE, "", id="its note knows"
        ),
        pytest.param(
            {**LEVELDB, f"{STORE}/CURRENT": b""}, True, DAMAGED, "CURRENT: it is empty",
            id="half written",
        ),
        pytest.param(
            {f"{STORE}/MANIFEST-000001": b"x"}, True, DAMAGED, "CURRENT: it is missing",
            id="no CURRENT",
        ),
        pytest.param(
            {**LEVELDB, f"{STORE}/000005.ldb": b""}, True, DAMAGED, "000005.ldb",
            id="an empty table",
        ),
    ],
)  # fmt: skip
def test_a_browsers_profile(make, files, paired, found, named):
    report = inspect(make("web", files), "web", paired)
    assert report.files is found
    assert named in report.problem
    if named:
        assert STORE in report.problem


@pytest.mark.parametrize(
    ("files", "found", "words"),
    [
        pytest.param({}, UNPAIRED, "", id="nothing"),
        pytest.param({"creds.json": CREDS}, WHOLE, "", id="paired"),
        pytest.param(
            {"creds.json": {**CREDS, "me": None}}, UNPAIRED, "", id="not yet paired"
        ),
        pytest.param({"creds.json": b""}, DAMAGED, "it is empty", id="empty"),
        pytest.param({"creds.json": bytes(900)}, DAMAGED, "zeros", id="zeroed"),
        # Node reads these otherwise than Python does.
        *(
            pytest.param({"creds.json": raw}, DAMAGED, "", id=id)
            for id, raw in {
                "not a number": json.dumps({**CREDS, "nextPreKeyId": float("nan")}).encode(),
                "a mark in front": b"\xef\xbb\xbf" + json.dumps(CREDS).encode(),
                "UTF-16": json.dumps(CREDS).encode("utf-16"),
                "null": b"null",
            }.items()
        ),
        pytest.param(
            {"creds.json": json.dumps(CREDS).encode()[:40]}, DAMAGED, "no session file",
            id="half written",
        ),
        pytest.param(
            {"creds.json": {"me": CREDS["me"]}}, DAMAGED, "noiseKey", id="no keys"
        ),
        pytest.param(
            {"pre-key-1.json": PAIR}, ABSENT, "creds.json: it is missing",
            id="keys without creds",
        ),
        pytest.param(
            {"creds.json": CREDS, "session-49.0.json": b"", "pre-key-1.json": b""},
            WHOLE, "pre-key-1.json and 1 more: empty", id="two peers' keys broken",
        ),
    ],
)  # fmt: skip
def test_an_auth_folder(make, files, found, words):
    raw = {
        name: content if isinstance(content, bytes) else json.dumps(content).encode()
        for name, content in files.items()
    }
    folder = make("baileys", raw)
    report = inspect(folder, "baileys")
    assert report.files is found
    assert words in report.problem
    if found is DAMAGED:
        assert str(folder / "session" / "creds.json") in report.problem


@pytest.mark.parametrize(
    ("engine", "place"),
    [
        *((engine, "profile/Default/link") for engine in ("web", "baileys", "unknown")),
        *(("sandbox", place) for place in ("sandbox.json", "")),
    ],
)
def test_a_link_anywhere_in_a_session_is_named(make, tmp_path, engine, place):
    folder = make(engine, {"sandbox.json": sandbox_file(), "profile/Default/x": b"x"})
    link = folder / "session" / place
    if link.exists():
        link.rename(tmp_path / "elsewhere")
    link.symlink_to(tmp_path)
    report = inspect(folder, engine)
    assert report.files is SessionFiles.UNREADABLE
    assert f"{link}: it is a symbolic link" in report.problem


def test_the_browsers_own_links_are_no_finding(make):
    folder = make("web", LEVELDB)
    (folder / "session" / "profile" / "SingletonLock").symlink_to("host-1")
    assert inspect(folder, "web").files is WHOLE


LOOK = """
import sys
from pathlib import Path
from agent.vault.tree import inspect
report = inspect(Path(sys.argv[1]), "sandbox")
print(report.files, report.problem)
"""


def own(root, uid, gid):
    for path in [root, *root.rglob("*")]:
        os.chown(path, uid, gid)


def one_session(root):
    folder = create(root, Instance(InstanceId("one"), "sandbox", True))
    (folder / "session" / "keys").mkdir()
    (folder / "session" / "keys" / "one").write_bytes(b"x")
    (folder / "session" / "sandbox.json").write_bytes(sandbox_file())
    return folder


def test_f44_the_exact_path_and_owner_of_what_cannot_be_used(open_root, as_nobody):
    folder = one_session(open_root)
    own(open_root, 65534, 65534)
    assert as_nobody(LOOK, folder) == "whole"
    path = folder / "session/keys/one"
    os.chown(path, 0, 0)
    path.chmod(0o600)
    said = as_nobody(LOOK, folder)
    assert said.startswith("unreadable")
    assert f"{path}: it belongs to root:root mode 0600" in said
    os.chown(path, 65534, 65534)
    path.chmod(0)
    assert f"{path}: it belongs to nobody:nogroup mode 0000" in as_nobody(LOOK, folder)
    assert path.stat().st_mode & 0o777 == 0, "looking changes nothing"


def test_of_two_users_the_workers_own_files_are_not_a_finding(open_root, as_nobody):
    """Agent (nobody) and worker (another user) share a group; browsers make private files."""
    folder = one_session(open_root)
    own(open_root, 65534, 65534)
    open_root.chmod(0o770)
    for path in (folder, folder / "session"):
        path.chmod(0o770)
    keys = folder / "session" / "keys"
    for path, mode in ((keys, 0o700), (keys / "one", 0o600)):
        os.chown(path, 12345, 65534)
        path.chmod(mode)
    (folder / "session" / "sandbox.json").chmod(0o660)
    assert as_nobody(LOOK, folder) == "whole"
    (folder / "session" / "sandbox.json").chmod(0o600)  # ours, and the worker cannot read it
    assert "which its worker cannot read and write" in as_nobody(LOOK, folder)
    os.chown(keys, 0, 0)
    assert f"{keys}: it belongs to root:root" in as_nobody(LOOK, folder)


def test_engines_whose_files_may_not_go_back_in_time():
    assert [name for name in CATALOG if file_rules(name).key_based] == ["baileys", "program"]


def test_files_that_no_copy_needs():
    web, baileys = file_rules("web"), file_rules("baileys")
    assert is_left_out("Code Cache", web) and not is_left_out("CURRENT", web)
    assert is_left_out("store.db-shm", baileys) and not is_left_out("store.db-wal", baileys)


GIB = 1 << 30


@pytest.mark.parametrize(
    ("free", "total", "words"),
    [
        pytest.param(10 * GIB, 100 * GIB, "", id="room"),
        pytest.param(LEAST_FREE - 1, GIB, "are kept", id="200 MB"),
        pytest.param(GIB, 100 * GIB, "2048 MiB are kept", id="2 %"),
    ],
)
def test_room(monkeypatch, tmp_path, free, total, words):
    space = os.statvfs_result((1, 1, total, free, free, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _path: space)
    problem, _ = lacks_room(tmp_path)
    assert words in problem if words else not problem
    monkeypatch.setattr("agent.vault.folders.refuses_writes", (made := []).append)
    rooms = has_room(tmp_path, 0), has_room(tmp_path, 11 * GIB)
    assert (*rooms, len(made)) == (not words, False, 1), "it makes one file"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert not has_room(tmp_path, 0), "it is closed"


def test_why_no_session_may_start_on_a_disk(small_disk, root, tmp_path):
    assert why_no_start(root, 1) == ""
    small = small_disk("size=1m,mode=0700")
    words = f"no room in {small}: the disk has 1 MiB free, 200 MiB must be ([start] disk_free)"
    assert why_no_start(small, 200 << 20) == words
    assert why_no_start(small, 1 << 19) == ""
    assert why_no_start(small, 0) == ""
    assert why_no_start(tmp_path / "gone", 1) == "", "its files say that it is gone"
    (plain := tmp_path / "plain").touch()
    assert "cannot check the disk of" in why_no_start(plain / "below", 1)
    assert "more files only" in why_no_start(small_disk("size=1m,nr_inodes=50,mode=0700"), 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    assert "read-only" in why_no_start(small, 1)
