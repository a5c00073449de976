"""Snapshots: whole or not there at all, whatever happens while they are made."""

import os
import shutil
import stat
from dataclasses import replace

import pytest

from agent.core.model import SessionFiles
from agent.errors import NotFound, Refused, VaultError
from agent.vault.identity import read_identity, replace_identity
from agent.vault.snapshots import (
    find_snapshot,
    list_snapshots,
    newest_good,
    open_files,
    prune_snapshots,
    sweep_snapshots,
    take_snapshot,
)
from agent.vault.tree import read_back
from tests.refused import refused
from tests.vault.conftest import contents

AT = 1_767_225_600.0  # 2026-01-01 00:00:00 UTC


def read_again(root, snapshot):
    """VaultError `damaged` when a file is not what it was."""
    with open_files(root, snapshot) as (files, manifest):
        read_back(files, manifest.listing)
        return manifest


def test_a_snapshot_holds_every_file_and_says_whose_it_is(root, sales, session, subject):
    taken = take_snapshot(root, subject, now_wall=AT)
    assert taken.name == "20260101T000000Z-1"
    assert contents(taken.path / "files") == contents(session)
    assert (taken.path / "files" / "keys" / "empty").is_dir()
    assert list_snapshots(root, sales.id) == [taken]
    manifest = taken.manifest
    assert (manifest.id, manifest.engine) == ("sales", "sandbox")
    assert (manifest.account, manifest.why) == ("49151", "a test")
    assert (manifest.state, taken.good) == (SessionFiles.WHOLE, True)
    assert read_again(root, taken) == manifest
    assert newest_good(root, sales.id) == taken


def test_a_session_of_a_senseless_size_is_refused_with_its_largest_file(
    root, session, subject, monkeypatch
):
    monkeypatch.setattr("agent.vault.snapshots.LARGEST", 1 << 20)
    for name, size in (("stray", 900 << 10), ("other", 200 << 10)):
        (session / name).touch()
        os.truncate(session / name, size)
    with refused(VaultError, "too_large", match="the largest is stray"):
        take_snapshot(root, subject)
    assert list_snapshots(root, subject.instance.id) == []


def test_only_the_agent_can_read_a_snapshot(root, session, subject):
    root.chmod(0o770)  # agent and workers are two users of one group
    taken = take_snapshot(root, subject)
    assert {stat.S_IMODE(it.stat().st_mode) for it in taken.path.rglob("*")} == {0o600, 0o700}
    assert stat.S_IMODE((root / ".snapshots").stat().st_mode) == 0o700


def test_files_of_this_run_alone_are_left_out(root, session, subject):
    (session / "SingletonLock").symlink_to("another-host-4711")
    (session / "SingletonSocket").symlink_to("/tmp/x/SingletonSocket")
    for name in ("lock", "LOCK", "store.lock", ".sandbox.json.tmp", "store.db-shm"):
        (session / name).write_bytes(b"x")
    taken = take_snapshot(root, subject)
    assert sorted(contents(taken.path / "files")) == ["keys/none", "keys/one", "sandbox.json"]


@pytest.mark.parametrize("name", ["creds", "keys/empty/folder"])
def test_f80_a_planted_link_is_refused_and_named(root, session, subject, tmp_path, name):
    (outside := tmp_path / "outside").mkdir()
    (outside / "secret").write_text("precious")
    (session / name).symlink_to(outside if "folder" in name else outside / "secret")
    with refused(VaultError, "symlink", match=f"{session / name}: it is a symbolic link"):
        take_snapshot(root, subject)
    assert list_snapshots(root, "sales") == []
    assert b"precious" not in contents(root / ".snapshots").values()


def change_in_place(session):
    with (session / "keys" / "one").open("r+b") as file:
        file.write(b"changed")


def replace_whole(session):
    (session / "new").write_bytes((session / "sandbox.json").read_bytes())
    (session / "new").rename(session / "sandbox.json")


def delete_all(session):
    for path in sorted(session.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    session.rmdir()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(change_in_place, id="written in place"),
        pytest.param(replace_whole, id="replaced by an equal one"),
        pytest.param(lambda s: (s / "keys" / "more").write_bytes(b"x"), id="a new one"),
        pytest.param(delete_all, id="F42 the folder deleted"),
    ],
)
def test_a_session_that_changes_meanwhile_is_not_copied(root, sales, session, subject, change):
    changed = []

    def tick(_bytes):
        if not changed:
            changed.append(True)
            change(session)

    with refused(VaultError, "changing"):
        take_snapshot(root, subject, tick=tick)
    assert list_snapshots(root, sales.id) == []
    assert list((root / ".snapshots" / "sales").iterdir()) == []


def test_a_write_in_the_same_tick_of_the_clock_does_not_slip_through(root, session, subject):
    """Just written, and written again with the same size while it is copied."""
    for number in range(5):
        (session / "keys" / "one").write_bytes(b"a" * 4096)
        done = []

        def tick(_bytes, done=done):
            if not done:
                done.append(True)
                (session / "keys" / "one").write_bytes(b"b" * 4096)

        with pytest.raises(VaultError, match="changed meanwhile"):
            take_snapshot(root, subject, now_wall=AT + number, tick=tick)


def test_there_is_nothing_to_copy_of_an_empty_session(root, sales, session, subject):
    delete_all(session)
    with refused(Refused, "no_session"):
        take_snapshot(root, subject)
    session.mkdir()
    (session / "SingletonLock").symlink_to("x")
    with pytest.raises(Refused):
        take_snapshot(root, subject)


def test_evidence_is_kept_and_never_called_good(root, sales, session, subject):
    good = take_snapshot(root, subject, now_wall=AT)
    backup = take_snapshot(root, replace(subject, backup=True), now_wall=AT + 1)
    (session / "sandbox.json").write_bytes(b"")
    broken = take_snapshot(root, subject, now_wall=AT + 2)
    assert (broken.manifest.state, broken.good) == (SessionFiles.DAMAGED, False)
    assert (backup.manifest.state, backup.good) == (SessionFiles.WHOLE, False)
    assert newest_good(root, sales.id) == good


def test_few_are_kept_and_the_last_good_one_always(root, sales, session, subject):
    for second in range(5):
        take_snapshot(root, subject, now_wall=AT + second)
    names = [one.name for one in list_snapshots(root, sales.id)]
    assert prune_snapshots(root, sales.id, 3) == names[:2:-1]
    (session / "sandbox.json").write_bytes(b"broken")
    for second in range(5, 10):
        take_snapshot(root, subject, now_wall=AT + second)
        prune_snapshots(root, sales.id, 3)
    kept = list_snapshots(root, sales.id)
    assert [one.good for one in kept] == [False, False, False, True]
    assert kept[-1].name == "20260101T000004Z-5"


AHEAD = AT + 3650 * 86_400


def test_a_clock_that_was_ahead_makes_no_snapshot_the_newest(root, sales, session, subject):
    """Neither what a repair restores nor what its backup prunes goes by the clock."""
    take_snapshot(root, subject, now_wall=AHEAD)
    (session / "keys/one").write_bytes(b"newer")
    fresh = take_snapshot(root, subject, now_wall=AT)
    newest = newest_good(root, sales.id)
    assert newest is not None and newest.name == fresh.name
    (session / "sandbox.json").write_bytes(b"damaged")
    for keep in (2, 1, 1):
        take_snapshot(root, replace(subject, backup=True), now_wall=AT + 60)
        prune_snapshots(root, sales.id, keep)
        newest = newest_good(root, sales.id)
        assert newest is not None and newest.name == fresh.name
    assert [one.name[-2:] for one in list_snapshots(root, sales.id)] == ["-5", "-2"]


def test_the_good_one_of_the_present_session_is_kept_before_one_of_an_earlier_session(
    root, sales, session, subject
):
    present = read_identity(session.parent)
    own = take_snapshot(root, subject)
    replace_identity(root, present, lineage="an earlier one")
    take_snapshot(root, subject)
    replace_identity(root, present, lineage=present.lineage)
    prune_snapshots(root, sales.id, 1)
    assert newest_good(root, sales.id) == own


def test_snapshots_of_deleted_sessions_are_swept_when_they_are_old(root, sales, session, subject):
    take_snapshot(root, subject, now_wall=AT)
    assert sweep_snapshots(root, set(), 9.0, 10.0) == [], "its folder is there"
    shutil.rmtree(root / sales.id)
    assert sweep_snapshots(root, {sales.id}, 9.0, 10.0) == []
    assert sweep_snapshots(root, set(), 9.0, 10.0) == [], "it is gone from now on"
    assert sweep_snapshots(root, set(), 9.0, 5.0) == []
    assert sweep_snapshots(root, set(), 9.0, 5.0) == ["sales/20260101T000000Z-1"]
    assert sweep_snapshots(root, set(), 9.0, 5.0) == []
    assert list((root / ".snapshots").iterdir()) == []


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        pytest.param(lambda p: flip(p / "files/keys/one"), "checksum", id="a flipped bit"),
        pytest.param(lambda p: (p / "files/keys/one").unlink(), "not exist", id="a lost file"),
        pytest.param(lambda p: (p / "manifest.json").write_bytes(b"{}"), "manifest", id="manifest"),
    ],
)
def test_a_rotten_snapshot_is_found_out(root, session, subject, harm, words):
    taken = take_snapshot(root, subject)
    harm(taken.path)
    with pytest.raises(VaultError, match=words):
        read_again(root, taken)


@pytest.mark.parametrize("name", ["20250101T000000Z", "../sales"])
def test_a_snapshot_that_is_not_there_is_not_found(root, sales, session, subject, name):
    with pytest.raises(NotFound):
        find_snapshot(root, sales.id, name)
    take_snapshot(root, subject)
    with pytest.raises(NotFound):
        find_snapshot(root, sales.id, name)
