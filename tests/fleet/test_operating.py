"""What an operator does from any machine, on the command line and in a browser: real agents."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.config.alerts import alert_table
from agent.metrics.dashboards import queries
from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent
from tests.fleet.agents import SETTINGS, FleetAgent, FleetOfAgents, fleet_of_agents
from tests.ports import free_port
from tests.wings.page.browsing import pill, watcher
from tests.wings.page.watcher import Watcher

__all__ = ["watcher"]

LISTENING = {"WA_AGENT_API__TRUST_LOOPBACK": "true"}


@dataclass(frozen=True)
class Said:
    status: int
    text: str


async def cli(agent: RunningAgent, *words: str) -> Said:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", *words),
        env={**os.environ, "WA_AGENT_SOCKET": str(agent.state / "api.sock")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    text = (await process.communicate())[0].decode()
    assert process.returncode is not None
    assert "Traceback" not in text, text
    return Said(process.returncode, text)


async def test_a_fleet_is_operated_from_any_machine(
    tmp_path: Path, eventually: Eventually, watcher: Watcher
) -> None:
    async with fleet_of_agents(["a", "b"], tmp_path, env=LISTENING) as fleet:
        a, b = fleet["a"], fleet["b"]
        await b.stop()
        b.listen = f"127.0.0.1:{free_port()}"
        await b.boot()
        await eventually(fleet.know_each_other, within=30)
        ids = ["s1", "s2", "w1"]
        await fleet.create("s1", "s2", on="a")
        body = {"id": "w1", "engine": "sandbox", "settings": fleet.settings, "failover": "wait"}
        await b.do("POST", "/api/instance", {**body, "on": "a"})
        await eventually(lambda: fleet.connected(ids), within=20)
        await eventually(lambda: fleet.copied(ids), within=20)

        moved = await cli(b, "fleet", "move", "s1", "--to", "b", "--wait", "30")
        assert moved == Said(0, "s1 is on b now\n")
        drained = await cli(b, "fleet", "drain", "a", "--wait", "60")
        assert drained.status == 0, drained.text
        assert set((await fleet.owners()).values()) == {"b"}
        assert (await cli(b, "fleet", "undrain", "a")).status == 0
        await eventually(lambda: fleet.connected(ids), within=20)
        back = await cli(a, "fleet", "move", "w1", "--to", "a", "--wait", "30")
        assert back.status == 0, back.text
        # `b` hears of it, and lets go of its own folder, a moment later.
        await eventually(lambda: _listed(b, "a"), ["w1"])
        await eventually(lambda: _examined(a, tmp_path), {}, within=60)
        await _heard(watcher, fleet)
        async with _following([b, a], eventually, tmp_path / "told") as told:
            await fleet.create("new2", on="a")
            await eventually(lambda: fleet.connected(["new2"]), within=20)
            # A pairing younger than its copy would be lost with the machine.
            await eventually(lambda: fleet.copied(["new", "new2"]), within=20)
            await a.lose_power()
            await eventually(lambda: _waits(b, "w1"), within=30)
            await _absent(b)
            away = "wa-agent: machine a is away, its events are missing: "
            await eventually(lambda: away in told.read_text(), within=20)
            assert "[new2 on a] created: " in told.read_text()
        await _seen(watcher, b)
        await _joins_and_leaves(fleet, tmp_path, eventually)
        fleet.check()


async def _joins_and_leaves(fleet: FleetOfAgents, place: Path, eventually: Eventually) -> None:
    """A machine with a session; its worker is the same one all the time."""
    (place / "c").mkdir()
    config = place / "c" / "agent.toml"
    config.write_text(SETTINGS)
    lone = RunningAgent(place / "c" / "state", config)
    address = fleet.database.url.replace("owner@", "agent@")
    where = ("--config", str(config))
    into = ("--database", address, "--name", "c", "--key-file", str(place / "fleet.key"))
    try:
        await lone.start()
        await lone.create("lone", **fleet.settings)
        await eventually(lambda: fleet.connected(["lone"]), within=20)
        worker = await lone.pid("lone")
        joined = await cli(
            lone, "fleet", "join", *where, *into, "--listen", f"127.0.0.1:{free_port()}"
        )
        assert joined.status == 0, joined.text
        await lone.kill()
        await lone.start()
        await eventually(lambda: _owner(fleet, "lone"), "c", within=20)
        await eventually(lambda: lone.pid("lone"), worker, within=20)

        async def left() -> int:
            return (await cli(lone, "fleet", "leave", *where, "--wait", "20")).status

        await eventually(left, 0, within=60)  # not before the database is settled
        assert await _owner(fleet, "lone") is None
        assert await lone.pid("lone") == worker
        assert "\n# database = " in config.read_text()
    finally:
        await lone.close()


async def _owner(fleet: FleetOfAgents, id: str) -> str | None:
    return (await fleet.owners()).get(id)


@asynccontextmanager
async def _following(
    agents: Sequence[FleetAgent], eventually: Eventually, told: Path
) -> AsyncIterator[Path]:
    """`events -f` on the first machine, which has begun to listen; the file of what it prints."""
    with told.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agent", "events", "-n", "1", "-f"),
            env={**os.environ, "WA_AGENT_SOCKET": str(agents[0].state / "api.sock")},
            stdout=out,
            stderr=out,
        )

    async def listeners() -> bool:
        """At each machine, for the events of another one are asked of that one; the page is the
        other of the two."""
        figures = [(await it.ask("GET", "/metrics"))[1] for it in agents]
        return all('wa_agent_active_connections{kind="events"} 2' in it for it in figures)

    try:
        await eventually(listeners)
        yield told
    finally:
        process.kill()
        await process.wait()


async def _listed(agent: FleetAgent, machine: str) -> list[str]:
    text = (await cli(agent, "list", "--machine", machine)).text
    return re.findall(rf"^(\w+) +{machine} +sandbox ", text, re.M)


async def _examined(agent: FleetAgent, place: Path) -> dict[str, str]:
    """What `doctor` finds wrong with the fleet."""
    where = ("--config", str(place / agent.name / "agent.toml"), "--state", str(agent.state))
    found = json.loads((await cli(agent, "doctor", "--json", *where)).text)["findings"]
    of_fleet = {it["check"]: it["level"] for it in found if it["check"].startswith("fleet")}
    assert {"fleet key", "fleet database", "fleet address", "fleet"} <= of_fleet.keys()
    return {check: level for check, level in of_fleet.items() if level not in ("ok", "note")}


async def _waits(agent: FleetAgent, id: str) -> bool:
    return id in [it["id"] for it in (await agent.fleet())["waiting"]]


async def _absent(agent: FleetAgent) -> None:
    """The session that waits for its machine is shown as it was, and takes commands."""
    status = await cli(agent, "fleet", "status")
    assert status.status == 1
    assert re.search(r"^w1 +a +its machine is lost; it waits for that machine", status.text, re.M)
    assert "which does not answer" in (await cli(agent, "show", "w1")).text
    assert "it waits for that machine" in (await cli(agent, "why", "w1")).text
    stored = await cli(agent, "restart", "w1")
    command = re.search(r"wa-agent fleet command (\S+) --wait", stored.text)
    assert command, stored.text
    waiting = await cli(agent, "fleet", "command", command[1])
    assert "restart w1: waits for" in waiting.text
    forget = await cli(agent, "fleet", "forget", "a")
    assert (forget.status, "would then run its sessions twice" in forget.text) == (4, True)
    figures = (await agent.ask("GET", "/metrics"))[1]
    assert 'wa_fleet_machines{state="lost"} 1' in figures
    assert re.search(r'wa_fleet_sessions\{state="waiting"\} [1-9]', figures)
    expressions = [alert.condition.promql() for alert in alert_table()]
    named = set(re.findall(r"\bwa_fleet_[a-z_]+", " ".join((*expressions, *queries()))))
    served = set(re.findall(r"^wa_fleet_[a-z_]+", figures, re.M))
    # A machine without a certificate has no end of one.
    assert named - served == {"wa_fleet_certificate_expires_timestamp_seconds"}


async def _heard(watcher: Watcher, fleet: FleetOfAgents) -> None:
    """What happens on another machine is seen live, and so is where it runs."""
    await watcher.size(1280, 900)
    await watcher.go(f"http://{fleet['b'].listen}/")
    await watcher.until("document.querySelector('#live').textContent === 'Live'")
    await fleet.create("new", on="a")
    names = "[...document.querySelectorAll('.story-where')].map((e) => e.textContent)"
    await watcher.until(f"{names}.includes('new')")
    await watcher.until(
        "document.querySelector('[data-id=new]').innerText.includes('on machine a')"
    )


async def _seen(watcher: Watcher, agent: FleetAgent) -> None:
    await watcher.until("document.querySelector('[data-machine=a] .pill.bad')")
    await watcher.until("document.querySelector('[data-id=w1].stale-state')")
    await watcher.until(pill("s1", "good"))
    lists = await watcher.run("document.querySelector('.machines-lists').innerText")
    assert "its machine is lost" in lists
    assert await watcher.run("document.querySelector('[data-id=w1] .dots') !== null")
    assert watcher.complaints == []
    if folder := os.environ.get("WA_PICTURES"):
        await watcher.picture(Path(folder) / "fleet-real.png")
        await watcher.run("location.hash = '#/instance/w1'")
        await watcher.until("document.querySelector('#instance h1').textContent === 'w1'")
        await asyncio.sleep(1)
        await watcher.picture(Path(folder) / "fleet-real-instance.png")
