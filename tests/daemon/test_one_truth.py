"""One truth for the reader: list, why, refusals, journal, log and alert say the same cause."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from agent.cli.watch.why import next_steps, present_state
from agent.core.reasons import REASONS
from tests.daemon.conftest import RunningAgent, remote_settings
from tests.daemon.test_backends import table
from tests.daemon.test_reload import reload
from tests.standin.evolution import StandIn

MORE = """
[alerts]
interval = 0.2
patience = 0

[sessions]
on_logout = "stop"
snapshot_interval = 0

[phases]
sync = 2
"""
BASE = remote_settings().replace("[recovery]\n", "[recovery]\nunpair = 'never'\n", 1)


@dataclass(frozen=True)
class Trouble:
    id: str
    code: str
    fault: str = ""
    """Of the sandbox; "" = the trouble is its server's or its machine's."""
    cause: str = ""
    """Stands in each sentence; "" = the title of its reason."""
    alert: str = ""
    """What its alert says in the place of the code."""
    lasts: float | None = 600.0
    paired: bool = True

    @property
    def words(self) -> str:
        return self.cause or REASONS[self.code].title

    def is_in(self, alert: str) -> bool:
        return (self.alert or self.code) in alert


OF_THE_SANDBOX = (
    Trouble("banned", "banned", "ban"),
    Trouble("old", "client_outdated", "outdated", alert="no longer accepts the client"),
    Trouble("gone", "logout", "logout", lasts=None),
    Trouble("asked", "passkey_required", "passkey", alert="for a passkey", paired=False),
    Trouble("broken", "session_damaged", "corrupt-files", lasts=None),
    Trouble("twice", "conflict", "conflict"),
    Trouble("cut", "unreachable", "drop", cause="cannot reach the sandbox's network"),
    Trouble("slow", "phase_sync", "stuck-loading", cause="stuck in phase sync"),
)
TROUBLES = (
    *OF_THE_SANDBOX,
    Trouble("away", "backend_down", cause="Connect call failed", alert="unreachable"),
    Trouble("wrong", "backend_down", cause="it refuses the key", alert="refused_key"),
    Trouble("full", "disk_full", cause="the disk of the sessions has"),
)
"""Of the last three the backend or the machine is to blame."""


@dataclass(frozen=True)
class House:
    agent: RunningAgent
    away: StandIn


@pytest.fixture
async def house(make_agent: Any) -> AsyncIterator[House]:
    away, strict = await StandIn.open("2.3.7"), await StandIn.open("2.3.7")
    away.add("away", "open")
    backends = table(away, webhook=False)
    backends += table(strict, name="other", webhook=False, key="another", adopt=[])
    agent = make_agent(MORE + backends, base=BASE)
    await agent.start()
    yield House(agent, away)
    await away.close()
    await strict.close()


async def make_troubles(house: House, eventually: Any) -> None:
    agent = house.agent
    for trouble in OF_THE_SANDBOX:
        await agent.create(trouble.id, **({} if trouble.paired else {"scan": "manual"}))
    there = {"id": "wrong", "engine": "evolution", "settings": {"backend": "other"}}
    await agent.do("POST", "/api/instance", there)
    for trouble in OF_THE_SANDBOX:
        wanted = "CONNECTED" if trouble.paired else "QR_REQUIRED"
        await eventually(lambda id=trouble.id: agent.status(id), wanted, within=60)

    async def adopted() -> bool:
        return await agent.knows("away") and await agent.status("away") == "CONNECTED"

    await eventually(adopted, within=60)
    for trouble in OF_THE_SANDBOX:
        await agent.fault(trouble.id, trouble.fault, trouble.lasts)
    await agent.do("POST", "/api/instance/asked/sandbox/scan")
    await house.away.front.set("refuse")
    before = await read_at(agent)
    no_room = "[start]\ndisk_free = 1_000_000_000_000_000"
    reload(agent, agent.config.read_text().replace("[start]", no_room))
    await eventually(lambda: has_read(agent, before), within=60)
    await agent.create("full")


async def read_at(agent: RunningAgent) -> str:
    """When its file was read last."""
    lines = str(await agent.do("GET", "/metrics")).splitlines()
    name = "wa_agent_config_reload_success_timestamp_seconds "
    return next(line for line in lines if line.startswith(name))


async def has_read(agent: RunningAgent, before: str) -> bool:
    return await read_at(agent) != before


async def read_everywhere(agent: RunningAgent, trouble: Trouble) -> dict[str, str]:
    """What each place says, by its name."""
    id = trouble.id
    rows = (await agent.do("GET", "/api/instances?limit=100"))["instances"]
    row = next(row for row in rows if row["id"] == id)
    details, now = await agent.show(id), datetime.now(UTC)
    lines = [*present_state(details, now), *next_steps(details, now)]
    told_once = sum(details["sentence"] in line for line in lines) == 1
    message = {"to": "4915112345678", "text": "hello"}
    _, unsent = await agent.ask("POST", f"/api/instance/{id}/messages?wait=30", message)
    status, no_code = await agent.ask("GET", f"/api/instance/{id}/qr")
    events = (await agent.do("GET", f"/api/instance/{id}/events?limit=100"))["events"]
    said = [e["sentence"] for e in events if e["detail"].get("reason") == row["reason"]]
    alerts = [
        alert["sentence"]
        for alert in (await agent.do("GET", "/api/alerts?state=firing"))["alerts"]
        if alert["instance"] == id or alert["labels"].get("backend", "-") == row["backend"]
    ]
    log = agent.log.read_text()
    return {
        "list": row["sentence"] if row["reason"] == trouble.code else row["reason"],
        "why": "\n".join(lines) if told_once else f"told twice or never: {lines}",
        "a message's refusal": unsent.get("message", ""),
        "a code's refusal": trouble.words if status == 200 else no_code["message"],
        "journal": "\n".join(said),
        "log": "\n".join(sentence for sentence in said if sentence in log),
        "alert": trouble.words if any(map(trouble.is_in, alerts)) else "\n".join(alerts),
    }


async def test_each_trouble_has_one_cause_wherever_it_is_read(
    house: House, eventually: Any
) -> None:
    await make_troubles(house, eventually)
    for trouble in TROUBLES:

        async def elsewhere(trouble: Trouble = trouble) -> dict[str, str]:
            places = await read_everywhere(house.agent, trouble)
            return {place: said for place, said in places.items() if trouble.words not in said}

        await eventually(elsewhere, {}, within=60)


async def test_what_a_person_must_type_names_the_session(house: House, eventually: Any) -> None:
    agent = house.agent
    await agent.create("broken")
    await eventually(lambda: agent.status("broken"), "CONNECTED", within=60)
    await agent.fault("broken", "corrupt-files")

    async def reason() -> str:
        return str((await agent.show("broken"))["reason"])

    await eventually(reason, "session_damaged", within=60)
    typed = "`wa-agent restore broken NAME --force`"
    assert typed in (await agent.show("broken"))["sentence"]
    _, refused = await agent.ask("GET", "/api/instance/broken/qr")
    assert typed in refused["message"]
    assert any(typed in sentence for _, sentence in await agent.story("broken"))
