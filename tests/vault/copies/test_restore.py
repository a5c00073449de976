"""Going back to a snapshot: the old session stays in the trash, and no kill loses either."""

import fcntl
import json
import os
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest

from agent.core.model import InstanceId, SessionFiles, SessionRecord
from agent.errors import Refused, VaultError
from agent.supervise.facts import Facts
from agent.supervise.snapshots import Snapshots
from agent.vault.folders import list_trash, restore_trash, retire
from agent.vault.identity import Identity, create, read_identity, replace_identity
from agent.vault.restore import put_in_place, refuse_roll_back, restore_snapshot, staged
from agent.vault.snapshots import find_snapshot, newest_good, take_snapshot
from agent.vault.tree import inspect
from tests.refused import refused
from tests.vault.conftest import contents, sandbox_file
from tests.vault.test_formats import CREDS


@pytest.fixture
def taken(root, session, subject):
    return take_snapshot(root, subject)


@pytest.fixture
def changed(session, taken):
    """The session has moved on since the snapshot."""
    (session / "sandbox.json").write_bytes(sandbox_file(account="49152"))
    (session / "keys" / "newer").write_bytes(b"newer")
    return contents(session)


def test_the_session_is_as_it_was_and_what_was_there_is_in_the_trash(
    root, sales, session, taken, changed
):
    changed_settings = replace(sales, settings={"scan": "manual"}, enabled=False)
    replace_identity(root, Identity(changed_settings, True, "49151"))
    lineage = read_identity(root / "sales").lineage
    done = restore_snapshot(root, changed_settings, taken, "by hand")
    assert contents(session) == contents(taken.path / "files")
    assert (session / "keys" / "empty").is_dir()
    assert contents(done.retired.path / "session") == changed
    assert [one.why for one in list_trash(root)] == ["by hand"]
    assert read_identity(root / "sales") == Identity(changed_settings, True, "49151", lineage)
    assert list((root / ".staging").iterdir()) == []


async def test_a_repair_puts_the_snapshot_back_and_no_backup(root, sales, taken, subject):
    take_snapshot(root, replace(subject, backup=True))
    parts = SimpleNamespace(root=root, stopping=False, store=SimpleNamespace(note=AsyncMock()))
    facts = Facts(sales, SessionRecord(paired=True))
    assert await Snapshots(parts, None).restore_newest(facts) == taken.name


def test_a_snapshot_stays_one_of_its_session_when_a_damaged_identity_file_is_written_again(
    root, sales, session, subject
):
    """The lineage goes with the damaged file, and a snapshot that is restored brings a new one."""
    (root / "sales" / "instance.json").write_bytes(b"")
    replace_identity(root, Identity(sales, True, "49151"))
    taken = take_snapshot(root, subject)
    restore_snapshot(root, sales, taken, "by hand")
    assert newest_good(root, sales.id).name == taken.name


def test_a_session_that_is_gone_comes_back(root, sales, session, taken):
    """F42: the folder was deleted."""
    lineage = read_identity(root / "sales").lineage
    (root / "sales").rename(root / "lost")
    refuse_roll_back(root, sales, taken)
    assert restore_snapshot(root, sales, taken, "").retired is None
    assert contents(session) == contents(taken.path / "files")
    assert inspect(root / "sales", "sandbox").files is SessionFiles.WHOLE
    assert read_identity(root / "sales").lineage == lineage


def test_a_damaged_snapshot_replaces_nothing(root, sales, session, taken, changed):
    (taken.path / "files" / "keys" / "one").write_bytes(b"rotten")
    with refused(VaultError, "damaged"):
        restore_snapshot(root, sales, taken, "")
    assert contents(session) == changed
    assert list_trash(root) == []
    assert list((root / ".staging").iterdir()) == []


def test_a_running_worker_keeps_its_session(root, sales, session, taken, changed):
    lock = os.open(root / "sales" / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with refused(Refused, "still_running"):
        restore_snapshot(root, sales, taken, "")
    assert contents(session) == changed
    assert list_trash(root) == []
    os.close(lock)
    (root / "sales" / "lock").unlink()
    os.mkfifo(root / "sales" / "lock")
    restore_snapshot(root, sales, taken, "")
    assert contents(session) == contents(taken.path / "files")


def test_a_folder_that_came_in_between_is_not_replaced(root, sales):
    with staged(root, sales.id, "import") as target:
        (target.path / "file").write_bytes(b"x")
    create(root, sales)
    with refused(Refused, "exists"):
        put_in_place(root, "import", Identity(sales), lineage="x", why="", replace=False)
    assert contents(root / "sales" / "session") == {}
    assert list_trash(root) == []


# what must not go back


def key_based(root, subject):
    keys = replace(subject, instance=replace(subject.instance, engine="baileys"))
    replace_identity(root, Identity(keys.instance, True, "49151"))
    (root / "sales" / "session" / "creds.json").write_text(json.dumps(CREDS), encoding="utf-8")
    return keys.instance, take_snapshot(root, keys)


def test_keys_never_go_back_in_time_unasked(root, session, subject):
    instance, taken = key_based(root, subject)
    refuse_roll_back(root, instance, taken)  # nothing has changed: nothing goes back
    (session / "keys" / "one").write_bytes(b"moved on")
    with refused(Refused, "newer_session", match="keys that go back in time cost"):
        refuse_roll_back(root, instance, taken)
    (session / "keys" / "one").unlink()
    with pytest.raises(Refused, match="go back in time"):
        refuse_roll_back(root, instance, taken)


def test_keys_come_back_where_there_is_no_session_at_all(root, session, subject):
    instance, taken = key_based(root, subject)
    session.rename(root / "lost")
    refuse_roll_back(root, instance, taken)


def test_a_profile_may_go_back(root, session, subject, taken, changed):
    refuse_roll_back(root, subject.instance, taken)


def test_a_session_begun_afresh_does_not_get_an_older_ones_files(root, sales, session, taken):
    retire(root, sales.id, "logged out")
    create(root, sales)
    with refused(Refused, "other_session", match="an earlier session of that name"):
        refuse_roll_back(root, sales, taken)
    retire(root, sales.id, "not that one")
    newest, older = list_trash(root)
    restore_trash(root, older.name if older.why == "logged out" else newest.name)
    refuse_roll_back(root, sales, taken)


def test_a_copy_that_is_damaged_or_of_another_engine_is_refused(
    root, sales, session, subject, taken
):
    (session / "sandbox.json").write_bytes(b"broken")
    with refused(Refused, "not_good"):
        refuse_roll_back(root, sales, take_snapshot(root, subject))
    with refused(Refused, "other_engine"):
        refuse_roll_back(root, replace(sales, engine="web"), taken)
    (taken.path / "manifest.json").write_bytes(b"")
    with pytest.raises(VaultError):
        refuse_roll_back(root, sales, find_snapshot(root, InstanceId("sales"), taken.name))
