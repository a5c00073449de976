"""While the database is away, what is shown of other machines says how old it is."""

import signal
from types import SimpleNamespace
from typing import Any

import pytest

from agent.api.fleet.published import PublishedViews
from agent.fleet.directory import Directory
from agent.supervise.fleet.face import FleetFace
from tests.conftest import Eventually
from tests.fleet.test_postgres import Fleet, fleet, server, two_machines

__all__ = ["fleet", "server"]

AWAY = 2.0
"""Seconds."""


@pytest.mark.parametrize("noticed", [False, True])
async def test_facts_of_before_the_database_went_away_grow_older(
    fleet: Fleet, eventually: Eventually, noticed: bool
) -> None:
    _, _, second, b = await two_machines(fleet)
    await second.publish(b, {"shop": {"state": "connected"}})
    quick = fleet.coordinator(timeout=0.5)
    views, directory = PublishedViews(quick), Directory(quick, "a")
    before = (await views.all())["shop"].age_seconds
    await directory.read()
    keeper = SimpleNamespace(database_error="it is away" if noticed else "")
    of_fleet: Any = SimpleNamespace(keeper=keeper, directory=directory, requests=quick)
    nothing: Any = None
    face = FleetFace(of_fleet, *[nothing] * 8)
    fleet.server.signal(signal.SIGSTOP)
    try:
        await eventually(lambda: directory.age > AWAY, within=30)
        row = await views.get("shop")
        assert row is not None
        assert row.age_seconds >= before + AWAY
        machines, age = await face._machines()
        assert age >= AWAY
        renewed = {it.name: it.seconds_since_renewal for it in machines}
        assert renewed.keys() == {"a", "b"}
        assert all(seconds is not None and seconds >= AWAY for seconds in renewed.values())
    finally:
        fleet.server.signal(signal.SIGCONT)
    keeper.database_error = ""
    machines, age = await face._machines()
    assert age == 0.0
