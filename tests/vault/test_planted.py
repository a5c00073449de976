"""Planted links, pipes and other things, and files without rights."""

import json
import os

import pytest

from agent.core.model import Instance, InstanceId, SessionFiles, SessionRecord
from agent.errors import VaultError
from agent.supervise import act
from agent.supervise.facts import Facts
from agent.vault import restore
from agent.vault.folders import list_trash, restore_trash, retire, sweep
from agent.vault.identity import Identity, create, read_identity, replace_identity
from agent.vault.snapshots import Subject, take_snapshot
from agent.vault.tree import inspect
from tests.moving.conftest import creds, keys_of, write_folder
from tests.refused import refused


@pytest.mark.parametrize(
    "call",
    [
        create,
        lambda root, sales: replace_identity(root, Identity(sales, True, "")),
        lambda root, sales: read_identity(root / sales.id),
        lambda root, sales: retire(root, sales.id, "test"),
    ],
)
def test_a_link_in_place_of_a_folder_is_refused_by_everything(root, sales, tmp_path, call):
    (outside := tmp_path / "outside").mkdir()
    (outside / "keep").write_text("x")
    (root / "sales").symlink_to(outside)
    with refused(VaultError, "symlink", match=f"{root / 'sales'}: it is a symbolic link"):
        call(root, sales)
    assert [part.name for part in outside.iterdir()] == ["keep"]


def test_a_planted_trash_is_refused(root, sales, tmp_path):
    create(root, sales)
    (outside := tmp_path / "outside").mkdir()
    (root / ".trash").symlink_to(outside)
    for call in (lambda: retire(root, sales.id, ""), lambda: list_trash(root)):
        with pytest.raises(VaultError, match=r"\.trash: it is a symbolic link"):
            call()
    with pytest.raises(VaultError, match="symbolic link"):
        sweep(root, 0.0, 0.0)
    assert (root / "sales" / "instance.json").exists()


def test_writing_replaces_a_planted_link_and_not_its_target(root, sales, tmp_path):
    folder = create(root, sales)
    (target := tmp_path / "target").write_text("precious")
    (folder / "instance.json").unlink()
    (folder / "instance.json").symlink_to(target)
    replace_identity(root, Identity(sales, True, ""))
    assert target.read_text() == "precious"
    assert read_identity(folder).paired


def test_a_session_that_is_a_link_is_not_retired(root, sales, tmp_path):
    folder = create(root, sales)
    elsewhere = (folder / "session").rename(tmp_path / "elsewhere")
    (folder / "session").symlink_to(elsewhere)
    words = r"cannot retire .*session: it is a symbolic link .*; move the link away \(mv "
    with pytest.raises(VaultError, match=words):
        retire(root, sales.id, "test")
    assert (folder / "session").is_symlink() and list_trash(root) == []
    (folder / "session").rename(tmp_path / "link")
    retire(root, sales.id, "test")
    assert elsewhere.is_dir() and len(list_trash(root)) == 1


def test_what_a_deleted_sessions_link_leads_to_stays(root, sales, tmp_path):
    folder = create(root, sales)
    elsewhere = (folder / "session").rename(tmp_path / "elsewhere")
    (elsewhere / "creds").write_text("kept")
    (folder / "session").symlink_to(elsewhere)
    retired = retire(root, sales.id, "deleted", follows=False)
    assert (retired.path / "session").is_symlink()
    assert restore_trash(root, retired.name) == sales.id
    assert (folder / "session" / "creds").read_text() == "kept"
    assert [retire(root, sales.id, "deleted", follows=False).name] == sweep(root, 0, 1)
    assert (elsewhere / "creds").read_text() == "kept"


@pytest.fixture
def keys(root):
    """A paired session of the baileys engine, whose contact has a record."""
    shop = Instance(InstanceId("shop"), "baileys", True)
    session = create(root, shop) / "session"
    write_folder(session, keys_of(creds()))
    return shop, session


def plant(path, kind, tmp_path):
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "huge":
        path.touch()
        os.truncate(path, 50 << 30)
    else:
        path.symlink_to(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("kind", "cause"), [("link", "a symbolic link"), ("pipe", "neither a plain file nor a folder")]
)
def test_what_is_no_file_in_place_of_an_identity_is_not_read(root, sales, tmp_path, kind, cause):
    folder = create(root, sales)
    plant(folder / "instance.json", kind, tmp_path)
    with pytest.raises(VaultError, match=cause):
        read_identity(folder)


@pytest.mark.parametrize("kind", ["pipe", "huge"])
def test_a_link_or_pipe_in_place_of_a_contacts_record_keeps_no_session_down(
    root, keys, tmp_path, kind
):
    shop, session = keys
    plant(session / "session-5511900000007.0.json", kind, tmp_path)
    report = inspect(session.parent, "baileys")
    assert report.files is SessionFiles.WHOLE
    if kind != "huge":
        assert "session-5511900000007.0.json: empty or no file; the engine" in report.problem
    copied = take_snapshot(root, Subject(shop, True, "5511900000001", "test")).manifest.listing
    assert "creds.json" in [file.path for file in copied.files]
    assert "session-5511900000007.0.json" not in [file.path for file in copied.files]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_in_place_of_the_credentials_proves_no_damage(keys, tmp_path, kind):
    _, session = keys
    plant(session / "creds.json", kind, tmp_path)
    report = inspect(session.parent, "baileys")
    assert report.files is SessionFiles.UNREADABLE
    assert str(session / "creds.json") in report.problem


def test_a_folder_in_place_of_the_lock_is_named(keys):
    _, session = keys
    (session.parent / "lock").mkdir()
    report = inspect(session.parent, "baileys")
    assert report.files is SessionFiles.UNREADABLE
    assert f"{session.parent / 'lock'}: it is a folder" in report.problem


def test_a_file_of_a_senseless_size_keeps_no_session_down(keys, tmp_path):
    _, session = keys
    plant(session / "stray", "huge", tmp_path)
    assert inspect(session.parent, "baileys").files is SessionFiles.WHOLE


def test_a_link_in_a_retired_session_is_removed_and_its_target_stays(root, sales, tmp_path):
    (precious := tmp_path / "precious").mkdir()
    (precious / "file").write_text("x")
    (create(root, sales) / "session" / "link").symlink_to(precious)
    assert [retire(root, sales.id, "test").name] == sweep(root, 0.0, 0.0)
    assert (precious / "file").exists()


def told(root):
    """A bot's session with orders beside its store."""
    shop = Instance(InstanceId("shop"), "program", True, {"program": "bot"}, 1.0)
    session = create(root, shop) / "session"
    write_folder(session / "auth_info_baileys", keys_of())
    (session / "orders.sqlite").write_text("orders")
    (session / "media").mkdir()
    return Facts(shop, SessionRecord(paired=True, account=creds()["me"]["id"].split(":")[0]))


def test_no_name_in_the_trash_leads_out_of_it(tmp_path):
    retired = act.set_aside(tmp_path, told(tmp_path), "logout")
    (tmp_path / "secret").write_text("mine")
    folder = tmp_path / ".trash" / retired
    (folder / restore.MARK).write_text(json.dumps(["../../../secret", "..", "", "/etc", 5]))
    assert restore.give_back(tmp_path, InstanceId("shop")) == []
    assert (tmp_path / "secret").read_text() == "mine"


CREATE = """
import sys
from pathlib import Path
from agent.core.model import Instance, InstanceId
from agent.errors import VaultError
from agent.vault.identity import create
try:
    create(Path(sys.argv[1]), Instance(InstanceId("sales"), "sandbox", True))
except VaultError as error:
    print(error.code, error)
"""


def test_missing_rights_name_path_and_owner(open_root, as_nobody):
    said = as_nobody(CREATE, open_root)
    assert said.startswith(f"permissions cannot create {open_root}/sales: permission denied;")
    assert f"{open_root} belongs to root:root mode 0755" in said
    assert said.rstrip().endswith("this process is uid 65534 gid 65534: chown or chmod it")
