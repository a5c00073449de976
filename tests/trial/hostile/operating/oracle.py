"""Conditions that hold for the agent and its sessions, whatever was typed."""

import json
import re
import signal
from pathlib import Path
from typing import Any

from tests.engines.baileys.conftest import ACCOUNT
from tests.trial.hostile.operating.commands import BOTS
from tests.trial.hostile.operating.sessions import SANDBOXES
from tests.trial.hostile.operating.world import World

NAMED = (502, 503, 504, 507)
"""Statuses from 500 on that are a state with a name."""
OURS = {0, 1, 2, 3, 4, 5, 66, 75, 78}
"""The exit statuses that the help names, and the one of a worker without its folder."""


def judge_answer(asked: str, status: int, said: str, *, alive: bool) -> None:
    if status == 0:
        assert not alive, f"{asked}: no answer, and the agent lives: {said}"
    elif status >= 400:
        told = json.loads(said)
        assert status < 500 or status in NAMED, f"{asked}: {status} {said[:300]}"
        assert re.fullmatch("[a-z][a-z0-9_]+", told["error"]), f"{asked}: {said[:300]}"
        assert told["error"] != "internal", f"{asked}: {said[:300]}"
        assert len(told["message"]) > 10, f"{asked}: {said[:300]}"
    assert "Traceback" not in said, f"{asked}: {said[-500:]}"


async def judge_look(world: World, said: str) -> None:
    """The address that an answer names is one of the agent's."""
    look = json.loads(said).get("look") or ""
    for path in [look] if isinstance(look, str) else look:
        status, told = await world.ask("GET", path, {}, None)
        assert "unknown_route" not in told, f"an answer names {path}: {status} {told[:200]}"


def judge_command(typed: str, status: int, said: str, *, killed: float, out: str) -> None:
    assert "Traceback" not in said, f"{typed}: {said[-900:]}"
    if status == -signal.SIGKILL and killed:
        return
    assert status in OURS, f"{typed}: exit {status}: {said[-300:]}"
    refused = re.search(r"^(wa-agent|auto-fix-sessions): cannot", said, re.MULTILINE)
    assert status or not refused, f"{typed}: refused with exit 0: {said[-300:]}"
    assert said.strip() or not status or out, f"{typed}: exit {status} without a word"


async def listed_now(world: World) -> dict[str, Any]:
    found = (await world.agent.do("GET", "/api/instances?limit=1000"))["instances"]
    return {each["id"]: each for each in found}


async def judge(world: World) -> None:
    listed, agent = await listed_now(world), world.agent
    vanished = world.listed.keys() - listed.keys() - world.gone
    assert not vanished, f"no command deleted {vanished}"
    for id in listed:
        if id in SANDBOXES:
            await agent.ask("POST", f"/api/instance/{id}/sandbox/fault", {"fault": "clear"})
        if id not in BOTS:
            await agent.ask("PUT", f"/api/instance/{id}/passkey", {"needed": False})
            await agent.ask("POST", f"/api/instance/{id}/enable")
    for id in world.listed.keys() - world.ended - world.gone - {"c"}:
        if id not in BOTS:
            await world.connected(id)
        now, before = world.live().get(id), world.before.get(id)
        assert now == before, f"the pairing of {id} is another: {before} → {now}"
    _judge_servers(world)
    _judge_files(world)
    await _judge_workers(world, listed)
    log = world.log_since()
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]
    assert "internal error" not in log, log[log.index("internal error") - 300 :][:600]
    done = await _passes(world)

    async def goes_on() -> bool:
        return await _passes(world) > done

    await world.until("the agent looks at no session any more", goes_on)


def _judge_servers(world: World) -> None:
    for id, name in (("evo", "shop"), ("still", "other")):
        if id in world.ready - world.ended:
            session = world.evolution.instances.get(name)
            assert session is not None, f"{name} was deleted on its server"
            assert session.creds, f"the pairing of {name} ended on its server"
            assert not session.second_logins, f"{name} has a second login on its server"
    if "desk" in world.ready - world.ended:
        assert not world.desk.sessions["7"].logouts, "the pairing of 7 ended on its server"
    if world.whatsapp is not None:
        assert not (twice := world.whatsapp.overlaps()), twice
        if "wa" in world.ready - world.ended:
            assert world.whatsapp.device(ACCOUNT), "WhatsApp no longer knows the device of wa"


def _judge_files(world: World) -> None:
    world.look()
    live = [each.name for each in world.sessions.iterdir() if not each.name.startswith(".")]
    kept = world.devices(".trash", ".snapshots", *live)
    lost = world.seen.keys() - kept.keys()
    told = {device: world.seen.pop(device) for device in lost}
    told = {device: id for device, id in told.items() if id not in world.unlinked}
    assert not told, f"the files of these devices are deleted: {told}"


async def _judge_workers(world: World, listed: dict[str, Any]) -> None:
    owners: dict[str, str] = {}
    live = world.live()
    for id, shown in listed.items():
        if shown["should_run"] and id not in SANDBOXES and (device := live.get(id)):
            assert device not in owners, f"{id} and {owners[device]} run as one device"
            owners[device] = id

    async def one_each() -> Any:
        counts = {id: len(_holding(world.sessions / id / "lock")) for id in listed}
        return all(count < 2 for count in counts.values()) or counts

    await world.until("two workers of one session", one_each, within=10)


def _holding(path: Path) -> list[int]:
    """Processes that have this file open."""
    found = []
    for fd in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(each.readlink() == path for each in fd.iterdir()):
                found.append(int(fd.parent.name))
        except OSError:
            continue
    return found


async def _passes(world: World) -> float:
    status, said = await world.ask("GET", "/metrics", {}, None)
    found = re.search(r"^wa_agent_pass_duration_seconds_count (\S+)", said, re.MULTILINE)
    assert status == 200 and found, (status, said[:300])
    return float(found[1])
