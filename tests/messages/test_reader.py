"""Messages read by cursor: pages, polls and streams give the same, whatever the worker does."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from agent.core.words import KEPT, Happening, InstanceId
from agent.errors import EngineError, LinkError, NotFound, TryLater
from agent.messages.intake import Intake
from agent.messages.reader import READER, SETTLE_EVERY, Reader
from tests.messages.bench import ID, Workers, code_of
from tests.messages.records import message, numbers_of


class Bench:
    def __init__(self, root: Path) -> None:
        self.root, self.workers = root, Workers(root)
        (root / ID).mkdir(exist_ok=True)
        self.reader = Reader(self.workers)

    def start_worker(self, **settings: Any) -> Intake:
        self.intake = Intake(self.root / ID, ID, settings, self._hear)
        self.workers.works[ID], self.workers.fails = self.intake.works, None
        self.reader.changed(ID)
        return self.intake

    async def stop_worker(self) -> None:
        del self.workers.works[ID]
        await self.intake.close()

    def _hear(self, happening: Happening) -> None:
        if happening.kind == KEPT:
            self.reader.changed(ID)


async def test_a_poll_waits_for_the_first_record_and_ends_with_it(tmp_path: Path) -> None:
    at = Bench(tmp_path)
    intake = at.start_worker()
    poll = asyncio.create_task(at.reader.page(ID, 0, wait=60))
    await asyncio.sleep(30)
    assert at.workers.calls.count("messages") == 1, "no worker is asked on a clock"
    await intake.keep([message(1)])
    page = await asyncio.wait_for(poll, 1)
    assert (numbers_of(page.records), page.records[0]["answerable"]) == ([1], True)
    assert (await at.reader.page(ID, page.next, wait=5)).records == []
    newest = await at.reader.page(ID, None)
    assert (newest.records, newest.next) == ([], page.next)
    await intake.keep([message(2, chat="status@broadcast")])
    assert (await at.reader.page(ID, page.next)).records[0]["answerable"] is False
    await intake.close()


async def test_a_poll_goes_on_while_the_worker_is_restarted(tmp_path: Path) -> None:
    at = Bench(tmp_path)
    await at.start_worker().keep([message(1)])
    after = (await at.reader.page(ID, 0)).next
    poll = asyncio.create_task(at.reader.page(ID, after, wait=60))
    await asyncio.sleep(1)
    at.workers.fails = EngineError("it is being closed", code="stopping")
    at.reader.changed(ID)
    await asyncio.sleep(1)
    await at.stop_worker()
    await at.start_worker().keep([message(2)])
    assert numbers_of((await poll).records) == [2]
    faults = LinkError("it hangs"), *(EngineError("", code=it) for it in ("unreadable", "no_lease"))
    for at.workers.fails in faults:
        with pytest.raises(TryLater, check=lambda error: error.code in ("slow", "no_lease")):
            await at.reader.page(ID, after)
    at.workers.fails = None
    poll = asyncio.create_task(at.reader.page(ID, None, wait=5))
    await asyncio.sleep(1)
    at.workers.fails = NotFound("another machine has it now")
    at.reader.forget(ID)
    assert await code_of(poll) == "owner_changed"
    at.workers.fails = None
    at.reader.end()
    assert await code_of(at.reader.page(ID, None, wait=5)) == "stopping"
    await at.intake.close()


@pytest.mark.parametrize("killed", [True, False])
async def test_without_a_worker_the_file_is_read(tmp_path: Path, killed: bool) -> None:
    at, path = Bench(tmp_path), tmp_path / ID / "messages" / "messages.db"
    path.parents[1].chmod(0o770)
    assert (await at.reader.page(ID, 0)).records == []
    assert (await at.reader.page(ID, 7)).next == 7
    await at.start_worker().keep([message(number) for number in range(5)])
    newest = (await at.reader.page(ID, None)).next
    if killed:
        del at.workers.works[ID]
    else:
        await at.stop_worker()
    there = sorted(path.parent.iterdir())
    page = await at.reader.page(ID, 0, limit=3)
    assert (numbers_of(page.records), page.more) == ([0, 1, 2], True)
    assert numbers_of((await at.reader.page(ID, page.next)).records) == [3, 4]
    assert (await at.reader.page(ID, None)).next == newest
    assert sorted(path.parent.iterdir()) == there
    rights = {each.stat().st_mode & 0o777 for each in (path.parent, *there)}
    assert rights == {0o770, 0o660}, "the group that agent and workers share"
    if killed:
        return
    for change in ("update state set owner = 'another'", "delete from state"):
        sqlite3.connect(path, isolation_level=None).execute(change)
        assert await code_of(at.reader.page(ID, 0)) == "slow", "no error of the agent's own"
    path.write_bytes(b"no file of ours" * 99)
    assert await code_of(at.reader.page(ID, 0)) == "slow"
    assert not list(path.parent.glob("*damaged*")), "its worker sets it aside"
    path.unlink()
    path.symlink_to("/etc/hostname")
    assert await code_of(at.reader.page(ID, 0)) == "slow", "no link is followed"
    await at.intake.close()


async def test_a_worker_hears_what_all_consumers_have(tmp_path: Path) -> None:
    at = Bench(tmp_path)
    settling = asyncio.create_task(at.reader.run())
    at.reader.changed(InstanceId("another"))
    await asyncio.sleep(1)
    await at.start_worker().keep([message(number) for number in range(10)])
    await asyncio.sleep(1)
    assert ID in at.reader.figures(), "one that comes is asked at once"
    cursors = [each["cursor"] for each in (await at.reader.page(ID, 0)).records]
    await asyncio.sleep(2 * SETTLE_EVERY)
    assert "settled" not in at.workers.calls, "no consumer, so nothing can be lost"
    at.reader.settle(READER, ID, cursors[1])
    await asyncio.sleep(2 * SETTLE_EVERY)
    assert at.reader.figures()[ID]["waiting"] == 8
    own = {name: lambda id: id == ID for name in ("one", "two")}
    at.reader.consumers = {**own, "another": lambda id: id != ID}
    at.workers.calls.clear()
    at.reader.changed(ID)
    await asyncio.sleep(2 * SETTLE_EVERY)
    assert "settled" in at.workers.calls, "what this one misses is lost"
    await asyncio.gather(*(at.reader.page(ID, 0, by=by) for by in ("two", "another")))
    assert at.workers.calls.count("consumers") == 1
    for name, number in ((READER, 7), ("one", 4), ("two", 6)):
        at.reader.settle(name, ID, cursors[number])
    await asyncio.sleep(2 * SETTLE_EVERY)
    assert at.reader.figures()[ID]["waiting"] == 5, "webhooks count, and readers beside them do not"
    at.workers.fails = LinkError("it ends")
    at.reader.settle("one", ID, cursors[8])
    await asyncio.sleep(SETTLE_EVERY)
    await at.stop_worker()
    await asyncio.sleep(2 * SETTLE_EVERY)
    assert [at.reader.behind(name, ID) for name in own] == [1, 3], "each by its own, by the file"
    assert at.reader.figures()[ID]["waiting"] == 3
    at.start_worker()
    at.reader.consumers = {}
    at.reader.settle(READER, ID, cursors[9])
    await asyncio.sleep(2 * SETTLE_EVERY)
    assert at.reader.figures()[ID]["waiting"] == 0
    settling.cancel()
    await at.intake.close()


async def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    at = Bench(tmp_path)
    assert await code_of(at.reader.media(ID, "m", "", 0).__aenter__()) == "not_running"
    at.start_worker()
    at.workers.fails = EngineError("no such call", code="invalid_request", field="do")
    assert await code_of(at.reader.page(ID, 0)) == "not_kept"
    at.workers.get = Mock(return_value=Mock(instance=Mock(backend="evo")))
    assert await code_of(at.reader.page(InstanceId("there"), 0)) == "not_supported"
    await at.intake.close()
