"""Programs that send → the agent's routes: receivers that are none, repeats with the same key, what
is taken back or may not be late, requests that are refused; while the agent and the session's
worker are killed and frozen, the network is away, and the machine's clock is set.

Afterwards nothing waits; a message that is called sent was heard once, one that is called
cancelled, expired or refused was not heard, nothing has expired that had a day, no other contact
heard anything, no answer was an error of the agent's own, and no log has a text or a number."""

import asyncio
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from tests.daemon.conftest import SETTINGS, RunningAgent
from tests.ports import free_port
from tests.standin.clock import SteppedClock, stepped_clock
from tests.trial.machine import send

CASES = 3
PATIENCE = 90.0
ID, PEER = "shop", "5511988887777"
SHORT = SETTINGS + '\n[log]\nfolder = "{folder}"\n'
GOOD = (
    *(PEER, f"+{PEER}", f"00{PEER}", "+55 (0)11 98888-7777", f"{PEER}@s.whatsapp.net"),
    *(f"{PEER}:12@s.whatsapp.net", f"{PEER}@c.us"),
)
"""The same person."""
BAD = (
    *("", "nobody", f"http://{PEER}/", f"{PEER}, 2", f"{PEER}/2", "12345abc", f"0{PEER}"),
    *(f"-{PEER}", f"{PEER}\n1", f"{PEER}@x.y", "status@broadcast", "٥٥١١٩٨٨٨٨٧٧٧٧"),
)
REFUSED = (
    ("GET", f"/api/instance/{ID}/messages/{PEER}@s.whatsapp.net/media"),
    ("DELETE", f"/api/instance/{ID}/outbox/{PEER}"),
    ("GET", f"/api/instance/{ID}/outbox/{PEER}"),
)
CLOCKS = (0, 3600, -3600, 4 * 86_400, -4 * 86_400, -400 * 86_400)
"""Seconds by which the agent's clock is off from a step on."""
TAKEN, AGAIN = (200, 202), (429, 503, 507)
Step = dict[str, Any]


def draw(chance: Random) -> list[Step]:
    return [_step(chance) for _ in range(chance.randint(12, 24))]


def _step(chance: Random) -> Step:
    match chance.choice(
        ["send"] * 6
        + ["bad", "repeat", "repeat", "cancel", "cancel", "ask", "kill", "freeze", "clock"]
    ):
        case "send":
            expires = chance.choice([None, None, None, 1])
            wait = chance.choice([0, 0, 1])
            to, key = chance.choice(GOOD), chance.random() < 0.5
            return {"do": "send", "to": to, "key": key, "expires": expires, "wait": wait}
        case "bad":
            return {"do": "bad", "to": chance.choice(BAD)}
        case "ask":
            at = chance.randrange(len(REFUSED))
            return {"do": "ask", "at": at, "right": chance.random() < 0.5}
        case "kill":
            return {"do": "kill", "who": chance.choice(["agent", "worker", "both", "network"])}
        case "freeze":
            who = chance.choice(["agent", "worker"])
            return {"do": "freeze", "who": who, "for": chance.choice([0.2, 1.5])}
        case "clock":
            return {"do": "clock", "ahead": chance.choice(CLOCKS)}
        case other:
            return {"do": other, "at": chance.random()}


@dataclass(slots=True)
class Sent:
    """A request, and what became of it as far as its client knows."""

    text: str
    step: Step
    id: str = ""
    refused: bool = False


@dataclass(slots=True)
class World:
    agent: RunningAgent
    key: str
    folder: Path
    clock: SteppedClock | None = None
    """None: this machine cannot make one."""
    sent: list[Sent] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)

    async def ask(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, repeats: str = ""
    ) -> tuple[int, Any]:
        """Over HTTP; 0 where the connection broke."""
        headers = {"Authorization": f"Bearer {self.key if key is None else key}"}
        headers |= {"Idempotency-Key": repeats} if repeats else {}
        url = f"http://{self.agent.listen}{path}"
        try:
            async with (
                asyncio.timeout(PATIENCE),
                aiohttp.ClientSession(headers=headers) as http,
                http.request(method, url, json=body) as answer,
            ):
                said = f"{answer.status} {await answer.text()}"
                assert answer.status < 500 or answer.status in (502, 503, 504, 507), said
                return answer.status, await answer.json()
        except (aiohttp.ClientError, OSError):
            return 0, {}


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    (folder / "agent.toml").write_text(SHORT.format(folder=folder / "log"))
    agent = RunningAgent(folder / "state", folder / "agent.toml")
    agent.listen = f"127.0.0.1:{free_port()}"
    with stepped_clock() if shutil.which("cc") else nullcontext() as clock:
        agent.inside = clock.command if clock else ()
        try:
            await agent.start()
            await agent.create(ID, messages_per_minute=0)
            made = await agent.do("POST", "/api/keys", {"name": "x", "scopes": ["operate"]})
            yield World(agent, str(made["token"]), folder, clock)
        finally:
            await agent.close()


async def play(world: World, case: list[Step]) -> None:
    await _until_connected(world)
    for step in case:
        match step["do"]:
            case "send":
                world.sent.append(Sent(f"secret words {len(world.sent)}", step))
                await _send(world, world.sent[-1])
            case "bad":
                sent = Sent("words for nobody", {**step, "key": False, "expires": None, "wait": 0})
                await _send(world, sent)
                assert not sent.id, f"{step['to']!r} is taken for a receiver"
            case "repeat" if keyed := [it for it in world.sent if it.step["key"]]:
                await _send(world, keyed[int(step["at"] * len(keyed))])
            case "cancel" if known := [it for it in world.sent if it.id]:
                chosen = known[int(step["at"] * len(known))]
                await world.ask("DELETE", f"/api/instance/{ID}/outbox/{chosen.id}")
            case "ask":
                method, path = REFUSED[step["at"]]
                await world.ask(method, path, key=None if step["right"] else "wrong")
            case "kill":
                await _kill(world, step["who"])
            case "freeze":
                await _freeze(world, step["who"], step["for"])
            case "clock" if world.clock is not None:
                # The sandbox's faults end by that clock.
                await world.agent.fault(ID, "clear")
                world.clock.step(step["ahead"])
    await _judge(world)


async def _send(world: World, sent: Sent) -> None:
    step = sent.step
    body = {"to": step["to"], "text": sent.text}
    body |= {"expires_in": step["expires"]} if step["expires"] else {}
    path = f"/api/instance/{ID}/messages?wait={step['wait']}"
    key = sent.text if step["key"] else ""
    status, answer = await world.ask("POST", path, body, repeats=key)
    if status in TAKEN:
        sent.id = sent.id or str(answer["id"])
    elif status and status not in AGAIN and not sent.id:
        sent.refused = status == 400


async def _kill(world: World, who: str) -> None:
    agent = world.agent
    if who == "network":
        await agent.fault(ID, "drop", 1.5)
        return
    if who in ("worker", "both"):
        send(signal.SIGKILL, agent.worker_pids())
    if who in ("agent", "both"):
        await agent.kill()
        await agent.start()


async def _freeze(world: World, who: str, seconds: float) -> None:
    """Meanwhile its kernel takes connections and answers none."""
    assert world.agent.process is not None
    pids = [world.agent.process.pid] if who == "agent" else world.agent.worker_pids()
    for number in (signal.SIGSTOP, signal.SIGCONT):
        send(number, pids)
        if number is signal.SIGSTOP:
            await asyncio.sleep(seconds)


async def _judge(world: World) -> None:
    await _until_connected(world)
    rows = await _until_nothing_waits(world)
    got = (await world.agent.do("GET", f"/api/instance/{ID}/sandbox/heard?limit=1000"))["messages"]
    heard = Counter(str(each.get("text", "")) for each in got)
    others = {str(each["chat"]) for each in got} - {f"{PEER}@s.whatsapp.net"}
    assert not others, f"others heard something: {others}"
    for sent in world.sent:
        row = next((it for it in rows if sent.id and sent.id in (it["id"], it["message_id"])), None)
        count = heard[sent.text]
        assert count <= 1, f"{sent.text!r} was heard {count} times"
        if row is not None:
            told = row["state"]
            well = told in ("sent", "delivered", "read", "played")
            assert count or not well, f"told as {told}, and nobody heard it: {sent.step}"
            late = told != "expired" or sent.step["expires"]
            assert late, f"expired, and had a day: {sent.step}"
            open_end = told == "failed" and row["reason"] == "unknown"
            assert well or open_end or not count, f"heard, and told as {told}: {sent.step}"
        elif sent.refused:
            assert not count, f"refused, and heard: {sent.step}"
    for log in (world.agent.log, *sorted((world.folder / "log").rglob("*.log*"))):
        text = log.read_text(errors="replace")
        assert "secret words" not in text, f"{log} has a text"
        assert PEER not in text, f"{log} has a number"
        assert "Traceback" not in text, f"{log} has a traceback"


async def _until_connected(world: World) -> None:
    async with asyncio.timeout(PATIENCE):
        while await world.agent.status(ID) != "CONNECTED":  # noqa: ASYNC110 - no mark to wait for
            await asyncio.sleep(0.05)


async def _until_nothing_waits(world: World) -> list[dict[str, Any]]:
    until, rows = time.monotonic() + PATIENCE, list[dict[str, Any]]()
    while True:
        rows = (await world.agent.do("GET", f"/api/instance/{ID}/outbox?limit=200"))["messages"]
        waiting = [row for row in rows if row["state"] in ("accepted", "sending")]
        if not waiting:
            return rows
        assert time.monotonic() < until, f"this waits for ever: {waiting}"
        await asyncio.sleep(0.1)
