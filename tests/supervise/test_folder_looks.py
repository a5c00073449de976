"""Looks at the folders of many sessions: one call of a thread for all that are asked together."""

import asyncio

import pytest

from agent.core.model import InstanceId
from agent.supervise.passes import lost_folder
from agent.supervise.passes.lost_folder import FolderLooks

IDS = [InstanceId(f"s{number}") for number in range(50)]


async def test_folders_that_are_asked_for_together_are_looked_at_in_one_call(tmp_path, monkeypatch):
    for id in IDS[1:]:
        (tmp_path / id / "session").mkdir(parents=True)
    calls = []

    def looked(root, ids):
        calls.append(list(ids))
        return inodes_of_all(root, ids)

    inodes_of_all = lost_folder._inodes_of_all
    monkeypatch.setattr(lost_folder, "_inodes_of_all", looked)
    looks = FolderLooks(tmp_path)

    async def ask(id):
        return await looks.ask(id)

    found = await asyncio.gather(*(ask(id) for id in IDS))
    assert calls == [IDS]
    assert found[0] == {}
    assert found[1] == {
        "folder": (tmp_path / "s1").stat().st_ino,
        "session": (tmp_path / "s1" / "session").stat().st_ino,
    }
    (tmp_path / "s1" / "session").rmdir()
    assert "session" not in await looks.ask(IDS[1]), "each question is a look of its own"
    assert len(calls) == 2


async def test_a_caller_gets_the_reason_why_a_folder_cannot_be_checked(tmp_path, monkeypatch):
    def broken(_root, _ids):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(lost_folder, "_inodes_of_all", broken)
    looks = FolderLooks(tmp_path)
    given_up = looks.ask(IDS[0])
    given_up.cancel()
    with pytest.raises(RuntimeError, match="thread"):
        await looks.ask(IDS[1])
    assert given_up.cancelled()
