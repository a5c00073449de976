"""What was removed: kept for seven days, never outside its place, believed only when whole."""

import json
from dataclasses import replace

import pytest

from agent.engines.whaticket.keys.folder import AuthFolder
from agent.engines.whaticket.keys.removed import KEEP, RemovedKeys
from agent.errors import EngineError, InvalidRequest

NOW = 1_800_000_000.0


@pytest.fixture
def auth(tmp_path):
    folder = tmp_path / "auth" / "7"
    folder.mkdir(parents=True)
    for name in ("creds", "pre-key-1", "session-5511.0", "session-5512.0"):
        (folder / f"{name}.json").write_text(json.dumps({"name": name}))
    return AuthFolder(f"{tmp_path}/auth/{{id}}")


def remove(shelf, auth, *names):
    removal = shelf.begin("7", "a test")
    files = auth.measure("7", [f"{name}.json" for name in names])
    removal = shelf.write(replace(removal, files=files))
    return auth.take_out(shelf, removal, "7", whole=False)


def test_only_old_removals_of_the_agent_are_swept(tmp_path, auth):
    clock = [NOW]
    shelf = RemovedKeys(tmp_path, lambda: clock[0])
    remove(shelf, auth, "session-5511.0")
    clock[0] += KEEP
    young = remove(shelf, auth, "session-5512.0")
    foreign = tmp_path / "removed" / "7" / "20200101T000000Z"
    foreign.mkdir()
    (foreign / "precious").write_text("mine")
    clock[0] += 1.0
    assert shelf.sweep() == 1
    assert [each.name for each in shelf.all("7")] == [young.name]
    assert (foreign / "precious").exists()


@pytest.mark.parametrize("remote", ["../7", "", "/etc", "a\0b", "x" * 200])
def test_a_sessions_name_is_no_way_out(tmp_path, auth, remote):
    shelf = RemovedKeys(tmp_path)
    for asked in (lambda: shelf.begin(remote, "x"), lambda: auth.path(remote)):
        with pytest.raises(EngineError) as caught:
            asked()
        assert caught.value.code == "remote_name"
    assert auth.look(remote) == "unreadable"
    assert not (tmp_path.parent / "7").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"files": [{"name": "../x", "size": 1, "sha256": "0", "mode": 0, "uid": 0, "gid": 0}]},
        {"files": 7},
        {"version": 2},
        {"remote": "8"},
    ],
)
def test_a_manifest_that_was_changed_is_not_believed(tmp_path, auth, change):
    shelf = RemovedKeys(tmp_path)
    removal = remove(shelf, auth, "session-5511.0")
    place = removal.path / "manifest.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), **change}))
    with pytest.raises(InvalidRequest, match="there is no such removal"):
        shelf.find_to_put_back("7", removal.name)


def test_a_kept_file_that_was_changed_is_not_put_back(tmp_path, auth):
    shelf = RemovedKeys(tmp_path)
    removal = remove(shelf, auth, "session-5511.0")
    (removal.path / "files" / "session-5511.0.json").write_text("{}")
    with pytest.raises(EngineError, match="missing or has changed since it was kept"):
        auth.put_back(shelf, removal, "7")
    assert not (auth.path("7") / "session-5511.0.json").exists()


def test_nothing_is_written_over_when_it_is_put_back(tmp_path, auth):
    shelf = RemovedKeys(tmp_path)
    removal = remove(shelf, auth, "session-5511.0")
    (auth.path("7") / "session-5511.0.json").write_text("newer")
    with pytest.raises(EngineError, match="it exists again"):
        auth.put_back(shelf, removal, "7")
    assert (auth.path("7") / "session-5511.0.json").read_text() == "newer"


def test_creds_that_are_being_written_are_not_called_damaged(auth):
    creds = auth.path("7") / "creds.json"
    for content, found in (
        ('{"me":{"id":"5511:1@s.whatsapp.net"}}', "paired"),
        ('{"me":null}', "unpaired"),
        ("", "damaged"),
        ('{"me":{"id":"55', "damaged"),
    ):
        creds.write_text(content)
        assert auth.look("7") == found
    creds.unlink()
    assert auth.look("7") == "absent"
    creds.mkdir()
    assert auth.look("7") == "unreadable"
