"""Copies that are given up, or that the agent's stop ends; and which are made by the clock."""

import asyncio
import threading
from dataclasses import replace
from unittest.mock import Mock

import pytest

from agent.core.model import Health
from agent.core.words import InstanceId
from agent.errors import TryLater
from agent.supervise.snapshots import Snapshots
from agent.vault.tree import Tick
from tests.supervise.test_incidents import WELL, made

A = InstanceId("a")


class Disk:
    def __init__(self) -> None:
        self.asked, self.answers = threading.Event(), threading.Event()
        self.ended = threading.Event()
        self.finished = False

    def read(self, *, tick: Tick) -> None:
        try:
            self.asked.set()
            assert self.answers.wait(60)
            tick(0)  # before the copy becomes visible
            self.finished = True
        finally:
            self.ended.set()


@pytest.mark.parametrize("stops", [False, True], ids=["its caller leaves", "the agent stops"])
async def test_a_copy_that_is_given_up_makes_nothing_visible(stops: bool) -> None:
    registry, disk = Mock(stopping=False), Disk()
    copy = asyncio.create_task(Snapshots(registry, Mock()).in_thread(A, "snapshot", disk.read))
    assert await asyncio.to_thread(disk.asked.wait, 60)
    if stops:
        registry.stopping = True
    else:
        copy.cancel()
        await asyncio.wait({copy})
    disk.answers.set()
    with pytest.raises(TryLater if stops else asyncio.CancelledError):
        await copy
    assert await asyncio.to_thread(disk.ended.wait, 60)
    assert not disk.finished


def test_only_a_session_that_is_well_is_copied_by_the_clock_however_that_is_set() -> None:
    parts, all_facts = made(A)
    facts, keeping = all_facts[A], Snapshots(parts, parts)
    facts.record, facts.link = replace(facts.record, status=WELL.state), parts
    facts.connected_since_wall, facts.last_snapshot_wall = 1e9, 2e9
    for health in Health:
        facts.verdict = replace(WELL, health=health)
        assert keeping._is_due(facts, 1e9 + 300) is (health is Health.HEALTHY)
