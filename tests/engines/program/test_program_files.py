"""A program's session folder: what is known of it, and states on which no bot starts."""

import json
import os
import shutil
from pathlib import Path

import pytest

from agent.core.model import Instance, InstanceId
from agent.core.words import SessionFiles
from agent.engines.program.rules import NOTE, RULES, refuse_unusable, write_note
from agent.errors import EngineError
from agent.vault.folder import LARGEST
from agent.vault.identity import Identity, create, replace_identity
from agent.vault.restore import restore_snapshot
from agent.vault.snapshots import Subject, take_snapshot
from agent.vault.tree import inspect
from tests.refused import refused

KEY = {"private": {"type": "Buffer", "data": "a"}, "public": {"type": "Buffer", "data": "b"}}
CREDS = {"noiseKey": KEY, "signedIdentityKey": KEY, "me": {"id": "5511900000001:3@s.whatsapp.net"}}


@pytest.fixture
def session(tmp_path: Path) -> Path:
    shop = Instance(InstanceId("shop"), "program", True, {"program": "bot"})
    folder = create(tmp_path / "sessions", shop)
    replace_identity(tmp_path / "sessions", Identity(shop, True, "5511900000001"))
    return folder / "session"


def files_of(session: Path) -> SessionFiles:
    return inspect(session.parent, "program", paired=True).files


@pytest.mark.parametrize("inner", ["", "auth_info_baileys"])
def test_keys_of_baileys_are_found_and_judged(session: Path, inner: str) -> None:
    place = session / inner
    place.mkdir(exist_ok=True)
    (place / "creds.json").write_text(json.dumps(CREDS))
    (place / "pre-key-1.json").write_text("{}")
    assert files_of(session) is SessionFiles.WHOLE
    assert RULES.lacks([f"{inner}/creds.json"]) and not RULES.lacks(
        [f"{inner}/creds.json", f"{inner}/pre-key-1.json"]
    )
    for damaged in (b"", b"\0" * 90, b'{"noiseKey":', b"[]"):
        (place / "creds.json").write_bytes(damaged)
        assert files_of(session) is SessionFiles.DAMAGED
        with refused(EngineError, "session_damaged", match="would begin again over it"):
            RULES.check_login(session, "5511900000001")
        assert (place / "creds.json").read_bytes() == damaged


def test_credentials_of_a_bot_that_is_not_on_baileys_are_no_damage(session: Path) -> None:
    """The bot names them as Baileys does: a repair would put them aside, and end its pairing."""
    place = session / "own"
    place.mkdir()
    (place / "creds.json").write_text(json.dumps({"token": "of its own"}))
    (place / "session.db").write_bytes(b"of its own")
    assert files_of(session) is SessionFiles.WHOLE
    refuse_unusable(session, "5511900000001")
    # Keys of Baileys beside it, or nothing in it: those are Baileys' credentials, and damaged.
    (place / "creds.json").write_text("{}")
    assert files_of(session) is SessionFiles.DAMAGED
    (place / "creds.json").write_text(json.dumps({"token": "of its own"}))
    (place / "pre-key-1.json").write_text("{}")
    assert files_of(session) is SessionFiles.DAMAGED


def test_credentials_of_another_account_start_no_bot(session: Path) -> None:
    told = CREDS | {"account": {"details": "a"}, "me": {"id": "4915110000000:1@s.whatsapp.net"}}
    (session / "creds.json").write_text(json.dumps(told))
    with refused(EngineError, "session_foreign"):
        RULES.check_login(session, "5511900000001")


def test_a_session_that_lies_elsewhere_is_no_lost_one(session: Path) -> None:
    assert RULES.lost_store(session).endswith("is empty")
    write_note(session, "5511900000001")
    assert RULES.lost_store(session) == ""
    assert files_of(session) is SessionFiles.WHOLE
    (session / "kept").touch()
    write_note(session, "5511900000001")
    (session / "kept").unlink()
    assert RULES.lost_store(session).endswith("is empty")
    assert files_of(session) is SessionFiles.UNPAIRED
    (session / NOTE).write_bytes(b"{")
    assert RULES.lost_store(session).endswith("is empty")


STORE = "Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.leveldb"


def test_local_auth_is_found_copied_and_restored(session: Path) -> None:
    place = ".wwebjs_auth/session-shop"
    write_note(session, "5511900000001")
    store = session / place / STORE
    store.mkdir(parents=True)
    (session / place / "SingletonLock").symlink_to("host-1")
    (session / place / "Default" / "Cache").mkdir()
    (session / place / "Default" / "Cache" / "f_1").write_bytes(b"cached")
    content = {"CURRENT": b"MANIFEST-1", "MANIFEST-1": b"made", "000003.log": b"pairing"}
    for name, raw in content.items():
        (store / name).write_bytes(raw)
    assert files_of(session) is SessionFiles.WHOLE
    root, shop = session.parents[1], Instance(InstanceId("shop"), "program", True)
    copy = take_snapshot(root, Subject(shop, True, "5511900000001", "test"))

    # Damage by a power cut is seen, and the copy is whole without the browser's caches.
    (store / "CURRENT").write_bytes(b"")
    assert files_of(session) is SessionFiles.DAMAGED
    restore_snapshot(root, shop, copy, "a test")
    assert files_of(session) is SessionFiles.WHOLE
    assert {file.name: file.read_bytes() for file in store.iterdir()} == content
    assert not (session / place / "Default" / "Cache").exists()

    assert RULES.lost_store(session) == ""
    shutil.rmtree(session / place / "Default" / "IndexedDB")
    assert RULES.lost_store(session).endswith("holds nothing of WhatsApp")
    assert files_of(session) is SessionFiles.UNPAIRED
    (session / place / "Default" / "IndexedDB").symlink_to("IndexedDB")
    assert RULES.lost_store(session) == "", "what cannot be looked at may be there"


def test_keys_are_found_where_the_note_says(session: Path) -> None:
    place = session / "data" / "auth"
    place.mkdir(parents=True)
    (place / "creds.json").write_bytes(b"")
    assert files_of(session) is SessionFiles.WHOLE  # no note says that they are the session's
    write_note(session, "5511900000001", "data/auth")
    assert files_of(session) is SessionFiles.DAMAGED
    with pytest.raises(EngineError, match="would begin again over it"):
        RULES.check_login(session, "5511900000001")
    (place / "creds.json").write_text(json.dumps(CREDS))
    (place / "pre-key-1.json").write_text("{}")
    assert files_of(session) is SessionFiles.WHOLE


@pytest.mark.parametrize("kind", ["pipe", "large"])
def test_what_cannot_be_read_is_never_called_damage(session: Path, kind: str) -> None:
    """The repair retires what is damaged; what it could not read waits for a person."""
    keys = session / "creds.json"
    if kind == "pipe":
        os.mkfifo(keys)
    else:
        keys.touch()
        os.truncate(keys, LARGEST + 1)
    assert files_of(session) is SessionFiles.UNREADABLE


def test_of_several_stores_a_damaged_one_is_not_taken_for_the_one_in_use(session: Path) -> None:
    for name in ("a-old", "b-used"):
        (session / name).mkdir()
        (session / name / "creds.json").write_text(json.dumps(CREDS))
    (session / "a-old" / "creds.json").write_bytes(b"{")
    assert files_of(session) is SessionFiles.WHOLE
    refuse_unusable(session, "5511900000001")
    write_note(session, "5511900000001", "a-old")
    assert files_of(session) is SessionFiles.DAMAGED
    with pytest.raises(EngineError, match="a-old"):
        refuse_unusable(session, "5511900000001")
