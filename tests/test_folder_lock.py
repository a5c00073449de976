"""A folder that a process uses is its alone, also after a cleaner deleted the file `lock` in it."""

import os
from contextlib import contextmanager

import pytest

from agent.core.model import InstanceId
from agent.errors import ConfigError, Refused, TryLater
from agent.files import folder_locked
from agent.host.choose import only_agent
from agent.vault import restore
from agent.worker.identity import lock_held


@contextmanager
def cleaned(folder, holding):
    with holding(folder):
        (folder / "lock").unlink()
        yield


def test_a_second_agent_does_not_start_when_the_firsts_lock_was_deleted(tmp_path):
    refused = pytest.raises(TryLater, match="another agent runs on it")
    with cleaned(tmp_path, only_agent), refused, only_agent(tmp_path):
        pass
    with only_agent(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_second_worker_does_not_begin_when_the_firsts_lock_was_deleted(tmp_path):
    (folder := tmp_path / "shop").mkdir()
    with cleaned(folder, lock_held):
        with pytest.raises(TryLater, match="another worker holds"), lock_held(folder):
            pass
        held = restore._no_worker(tmp_path, InstanceId("shop"))
        with pytest.raises(Refused, match="a worker still holds it"), held:
            pass
    with lock_held(folder):
        assert (folder / "lock").exists()


def test_the_file_alone_tells_where_folders_cannot_be_locked(tmp_path, monkeypatch):
    """As on some network file systems."""
    monkeypatch.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError(9, "no lock")))
    with folder_locked(tmp_path), folder_locked(tmp_path):
        assert tmp_path.is_dir()


def test_a_lock_that_leads_elsewhere_is_not_written_through(tmp_path):
    (precious := tmp_path / "precious").write_text("kept")
    (tmp_path / "lock").symlink_to(precious)
    with pytest.raises(ConfigError, match="what is in its way"), only_agent(tmp_path):
        pass
    assert precious.read_text() == "kept"


def test_a_disk_that_is_read_only_now_needs_no_person(tmp_path, monkeypatch):
    monkeypatch.setattr("os.open", lambda *_: (_ for _ in ()).throw(OSError(30, "read-only")))
    with pytest.raises(TryLater), only_agent(tmp_path):
        pass
