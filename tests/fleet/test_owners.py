"""Real agents on one PostgreSQL: who runs a session, and what becomes of its files elsewhere."""

import contextlib
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from tests.conftest import Eventually
from tests.fleet.agents import FleetAgent, FleetOfAgents, fleet_of_agents

COPY_TABLES = ("copy", "copy_change")


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FleetOfAgents]:
    async with fleet_of_agents(["a", "b"], tmp_path) as fleet:
        yield fleet


async def owned_by(fleet: FleetOfAgents, machine: str, *ids: str) -> bool:
    found = await fleet.owners()
    return all(found.get(id) == machine for id in ids)


async def waits(agent: FleetAgent, id: str, why: str) -> bool:
    waiting = (await agent.fleet())["waiting"]
    return any(it["id"] == id and why in it["why"] for it in waiting)


async def here(agent: FleetAgent, ids: list[str]) -> bool:
    """The machine has their folders and, what comes later, they are in its own registry."""
    folders = (agent.state / "sessions").iterdir()
    if sorted(it.name for it in folders if not it.name.startswith(".")) != ids:
        return False
    address = f"file:{agent.state / 'agent.db'}?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True)) as store:
        return [id for (id,) in store.execute("SELECT id FROM instances ORDER BY id")] == ids


async def test_the_sessions_of_a_lost_machine_run_on_another_one(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    await fleet.create("shop", "desk", on="a")
    await eventually(lambda: fleet.connected(["shop", "desk"]), within=30)
    await eventually(lambda: fleet.copied(["shop", "desk"]), within=30)
    await fleet["a"].lose_power()
    await eventually(lambda: owned_by(fleet, "b", "shop", "desk"), within=30)
    await eventually(lambda: fleet.connected(["shop", "desk"]), within=30)


async def test_a_machine_that_comes_back_retires_what_others_run(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    await fleet.create("shop", on="a")
    await eventually(lambda: fleet.connected(["shop"]), within=30)
    await eventually(lambda: fleet.copied(["shop"]), within=30)
    await fleet["a"].lose_power()
    await eventually(lambda: owned_by(fleet, "b", "shop"), within=30)
    await fleet["a"].boot()
    trash = fleet["a"].state / "sessions" / ".trash"
    await eventually(lambda: trash.is_dir() and any(trash.glob("shop.*")), within=30)
    await eventually(lambda: here(fleet["a"], []))
    await eventually(lambda: fleet.connected(["shop"]), within=30)
    assert fleet["b"].state.joinpath("sessions/shop").is_dir()
    # What is in the trash comes back where no machine has the id.
    (name,) = [it.name for it in trash.glob("shop.*")]
    status, answer = await fleet["a"].answer("POST", f"/api/trash/{name}/restore")
    assert (status, answer["error"]) == (409, "exists")
    (name,) = [it.name for it in trash.glob("shop.*")]
    await fleet["b"].do("DELETE", "/api/instance/shop", {"confirm": "shop"})
    await fleet["a"].do("POST", f"/api/trash/{name}/restore")
    assert await fleet.owners() == {"shop": "a"}
    await eventually(lambda: fleet.connected(["shop"]), within=30)


async def test_a_move_and_a_drain_lose_no_pairing(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    ids = ["s1", "s2", "s3"]
    await fleet.create(*ids, on="a")
    await eventually(lambda: fleet.connected(ids), within=30)
    await eventually(fleet.know_each_other, within=30)
    refusals = {"a": (409, "already_there"), "nowhere": (404, "not_found")}
    for to, refusal in refusals.items():
        status, answer = await fleet["a"].answer("POST", "/api/instance/s1/move", {"to": to})
        assert (status, answer["error"]) == refusal
    await fleet["a"].do("POST", "/api/fleet/machines/b/drain")
    status, answer = await fleet["a"].answer("POST", "/api/instance/s1/move", {"to": "b"})
    assert (status, answer["error"]) == (409, "no_machine")
    assert "b is drained" in answer["message"]
    await fleet["a"].do("POST", "/api/fleet/machines/b/undrain")
    await fleet["a"].do("POST", "/api/instance/s1/move", {"to": "b"})
    await eventually(lambda: owned_by(fleet, "b", "s1"), within=20)
    await fleet["a"].do("POST", "/api/fleet/machines/a/drain")
    await eventually(lambda: owned_by(fleet, "b", *ids), within=60)
    await eventually(lambda: fleet.connected(ids))
    await eventually(lambda: here(fleet["a"], []))
    story = await fleet["b"].do("GET", "/api/instance/s1/events")
    assert "arrived" in [it["kind"] for it in story["events"]]


async def test_a_session_whose_files_are_nowhere_waits_and_never_begins_empty(
    fleet: FleetOfAgents, eventually: Eventually, tmp_path: Path
) -> None:
    a, b = fleet["a"], fleet["b"]
    await fleet.create("x", "kept", on="a")
    await eventually(lambda: fleet.connected(["x", "kept"]), within=30)
    await eventually(lambda: fleet.copied(["x", "kept"]), within=30)
    await a.lose_power()  # with its workers, which would write until their lease ends
    # Its disk was lost with the rows of its sessions, and agent.toml declares one of them.
    saved = tmp_path / "saved"
    shutil.copytree(a.state / "sessions", saved)
    for lost in (*(a.state / "sessions").iterdir(), *a.state.glob("agent.db*")):
        shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    declared = '[[instance]]\nid = "x"\nengine = "sandbox"\n'
    a.config.write_text(a.config.read_text() + declared)
    # A copy is a whole one and what changed since, as its pairing may have.
    keep = "".join(
        f"CREATE TABLE public.{it} AS SELECT * FROM wa_agent.{it};" for it in COPY_TABLES
    )
    fleet.database.sql(f"{keep} DELETE FROM wa_agent.copy")
    await a.boot()
    why = "no copy of it is stored; a had its folder last"
    await eventually(lambda: waits(a, "x", why), within=30)
    status, answer = await a.answer("POST", "/api/instance", {"id": "x", "engine": "sandbox"})
    assert (status, answer["error"]) == (409, "exists")
    for machine in (a, b):
        await eventually(lambda machine=machine: shown_waiting(machine, "x", why), within=20)
    waiting = 'wa_fleet_sessions{state="waiting"} 2'
    await eventually(lambda: has_figure(a, waiting))
    # The files come back by hand for one, and as a copy for the other.
    (saved / "kept").rename(a.state / "sessions" / "kept")
    back = (
        f"INSERT INTO wa_agent.{it} SELECT * FROM public.{it} WHERE session = 'x';"
        for it in COPY_TABLES
    )
    fleet.database.sql(f"BEGIN; {''.join(back)} COMMIT")
    await eventually(lambda: fleet.connected(["x", "kept"]), within=40)
    assert await here(a, ["kept", "x"])


async def has_figure(agent: FleetAgent, line: str) -> bool:
    return line in (await agent.ask("GET", "/metrics"))[1]


async def shown_waiting(agent: FleetAgent, id: str, why: str) -> bool:
    """Each place where an operator looks says so."""
    listed = {it["id"]: it for it in (await agent.do("GET", "/api/instances"))["instances"]}
    said = listed[id]["sentence"], (await agent.do("GET", f"/api/instance/{id}"))["sentence"]
    placed = (await agent.do("GET", f"/api/instance/{id}/fleet"))["waits"]
    return listed[id]["hold"] == "copy_missing" and all(why in it for it in (*said, placed))


async def test_an_operators_order_holds_on_the_next_machine(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    ids = ["off", "halted", "gone", "changed"]
    a, b = fleet["a"], fleet["b"]
    await fleet.create(*ids, on="a")
    await eventually(lambda: fleet.connected(ids), within=30)
    await eventually(lambda: fleet.copied(ids), within=30)
    await a.do("POST", "/api/instance/off/disable")
    await a.do("POST", "/api/instance/halted/stop")
    settings = {**fleet.settings, "messages_per_minute": 7}
    await a.do("PATCH", "/api/instance/changed", {"settings": settings})
    await a.do("DELETE", "/api/instance/gone", {"confirm": "gone"})
    wanted = {"off": "disabled", "halted": "stopped", "changed": "running"}
    # What the database was too slow to take is written some time later.
    await eventually(lambda: orders(fleet), wanted)
    await a.lose_power()
    await eventually(lambda: owned_by(fleet, "b", *wanted), within=30)
    await eventually(lambda: here(b, sorted(wanted)), within=20)
    await eventually(lambda: fleet.connected(["changed"]), within=20)
    # Not what `a` published last, which is shown until the files are here.
    await eventually(
        lambda: enabled_here(b, wanted), {"off": False, "halted": True, "changed": True}
    )
    kept = json.loads((b.state / "sessions/changed/instance.json").read_text())
    assert kept["settings"]["messages_per_minute"] == 7
    assert not {"off", "halted"} & fleet.witness.connected().keys()


async def orders(fleet: FleetOfAgents) -> dict[str, str]:
    return dict(await fleet.rows("SELECT id, wanted FROM wa_agent.session"))


async def enabled_here(agent: FleetAgent, ids: Iterable[str]) -> dict[str, bool]:
    answers = [await agent.answer("GET", f"/api/instance/{id}") for id in ids]
    views = [it for status, it in answers if status == 200 and not it.get("owner_away")]
    return {it["id"]: it["enabled"] for it in views}


async def test_files_from_an_earlier_ownership_are_never_started(
    fleet: FleetOfAgents, eventually: Eventually
) -> None:
    """The session was on `b` meanwhile, and is this machine's again before its agent looks."""
    a, b = fleet["a"], fleet["b"]
    await fleet.create("x", on="a")
    await eventually(lambda: fleet.connected(["x"]), within=30)
    await eventually(lambda: fleet.copied(["x"]), within=30)
    await a.lose_power()
    await eventually(lambda: owned_by(fleet, "b", "x"), within=30)
    await eventually(lambda: fleet.connected(["x"]), within=30)
    await b.lose_power()
    fleet.database.sql(
        "UPDATE wa_agent.session SET epoch = epoch + 1,"
        " machine = (SELECT id FROM wa_agent.machine WHERE name = 'a')"
    )
    await a.boot()
    await eventually(lambda: fleet.connected(["x"]), within=30)
    kept = json.loads((a.state / "sessions/x/instance.json").read_text())
    assert kept["fleet_epoch"] == 2
    assert list((a.state / "sessions/.trash").glob("x.*"))
