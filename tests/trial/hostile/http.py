"""Clients → the HTTP interface, over TCP and the Unix socket: slow, unread, half-closed,
pipelining, flooding, with odd heads, bodies without an end, broken WebSockets, wrong and right
keys.

Beside them a client with rights asks and a load balancer probes: each is answered, within a second
of the agent's own time. Afterwards the agent has the memory, the descriptors and
the session that it had, its log has few lines, no secret and no traceback, and it counts no failure
of its own."""

import asyncio
import contextlib
import re
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.daemon.conftest import SETTINGS, RunningAgent
from tests.defaults import changed
from tests.ports import free_port
from tests.standin.clients.rude import CLIENTS, LISTENERS, Door, Step, bearers, upgrade
from tests.standin.clients.with_rights import BESIDE_LISTENERS, served

CASES = 3
PATIENCE = 60.0
MOST_LINES = 30
"""Lines of the log for one case: fewer than a flood has clients."""
OF_RIGHTS = re.compile(r"\] (uid \d+|key a reader)\b")
"""Each request of a client with rights is in the audit log."""
MOST_MEMORY = 128 << 20
"""More than at the beginning, in bytes."""
SPARE_FILES = 4
LASTS = 1.0
"""Seconds, once all have begun."""
SESSION = "shop"
FIRST = changed("agent.config.config.ApiSection", head_timeout=1.5, body_timeout=1.5)
SOURCES = (*["127.0.0.1"] * 4, "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "unix")
LONG = ("/openapi.json",)
OPEN = (*LONG, "/docs", "/", "/healthz", "/readyz")
SHUT = ("/metrics", "/api/instances", "/api/keys", f"/api/instance/{SESSION}/details", "/nowhere")
POSTS = (
    *(f"/api/instance/{SESSION}/stop", f"/api/instance/{SESSION}/cleanup", "/api/instance"),
    *("/api/import", "/healthz", "/api/keys"),
)
KEYS = ("none", "none", "none", "unknown", "forged", "basic", "long", "read")
ANSWERED = {"revoked", "half_closed"}
"""They end by themselves: with an answer."""
MANY = (1, 6, 40, 100, 200)
MOST_CLIENTS = 400
MOST_RIGHTED = 100
"""With a right key: fewer than there are places for such."""
FEW = 6
"""On the Unix socket, where all have rights."""


@dataclass(slots=True)
class World:
    agent: RunningAgent
    door: Door
    secrets: list[str]
    session: tuple[Any, ...] = ()
    files: int = 0
    memory: int = 0

    @property
    def pid(self) -> int:
        assert self.agent.process is not None
        return self.agent.process.pid


def draw(chance: Random) -> list[Step]:
    steps = [chance.choice(MAKERS)(chance) for _ in range(chance.randint(3, 8))]
    left = {"all": MOST_CLIENTS, "righted": MOST_RIGHTED}
    for step in steps:
        kinds = ["all", *(["righted"] if step.get("key") == "read" else [])]
        step["count"] = min(step["count"], *(left[kind] for kind in kinds))
        for kind in kinds:
            left[kind] -= step["count"]
    return steps


def _client(chance: Random) -> Step:
    do = chance.choice([*CLIENTS, "unread"])
    source, key = chance.choice(SOURCES), "none" if do == "unread" else chance.choice(KEYS)
    posts = do in ("slow_body", "chunks", "lying", "expecting")
    step = {
        "do": do,
        "from": source,
        "key": key,
        "target": chance.choice(POSTS if posts else LONG if do == "unread" else (*OPEN, *SHUT)),
        "count": chance.choice(
            MANY[-2:] if do == "unread" else MANY[:3] if key == "read" else MANY
        ),
        "every": chance.choice([0.02, 0.2, 1.0]),
        "times": chance.choice([1, 30, 200]),
        "at": chance.choice([1.0, 1.0, chance.random()]),
        "reads": chance.random() < 0.7,
        "forwarded": chance.random() < 0.3,
        "ends": chance.random() < 0.3,
        "kind": chance.choice(LISTENERS),
        "seed": chance.randrange(10**6),
    }
    if source == "unix":  # without a key it may do all
        step |= {"count": min(step["count"], FEW), "key": "unknown" if posts else key}
    return step


def _listeners(chance: Random) -> Step:
    """They have rights, and stay, at an address of their own."""
    step = {"do": "listener", "key": "read", "kind": chance.choice(["quiet", "unread"])}
    count, seed = chance.choice([40, 90]), chance.randrange(10**6)
    return {**step, "from": BESIDE_LISTENERS, "count": count, "seed": seed}


def _revoked(chance: Random) -> Step:
    return {"do": "revoked", "from": chance.choice(SOURCES), "count": 1, "seed": 0}


MAKERS = (*[_client] * 4, _listeners, _revoked)


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    (config := folder / "agent.toml").write_text(SETTINGS)
    agent = RunningAgent(folder / "state", config)
    agent.first = FIRST
    agent.listen = f"127.0.0.1:{(port := free_port())}"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    try:
        await agent.start()
        await agent.create(SESSION)
        token = (await _new_key(agent))["token"]
        door = Door(port, folder / "state" / "api.sock", bearers(token))
        made = World(agent, door, [token])
        await _begin(made)
        yield made
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await agent.close()


async def _new_key(agent: RunningAgent) -> dict[str, Any]:
    body = {"name": "a reader", "scopes": ["read"]}
    made: dict[str, Any] = await agent.do("POST", "/api/keys", body)
    return made


async def _begin(world: World) -> None:
    """Note the figures of a quiet agent that did all of it once."""
    until = time.monotonic() + PATIENCE
    while await world.agent.status(SESSION) != "CONNECTED":
        assert time.monotonic() < until, "the session does not connect"
        await asyncio.sleep(0.05)
    async with served(world.pid, world.door) as asking:
        await asking.whole_rounds(1)
    world.session = await _session(world)
    world.files, world.memory = _files(world.pid), _memory(world.pid)


async def play(world: World, case: list[Step]) -> None:
    log, door = world.agent.log, world.door
    before, door.statuses, door.begun = len(log.read_text()), set(), 0
    clients = [{**step, "number": number} for step in case for number in range(step["count"])]
    try:
        async with served(world.pid, door) as asking, asyncio.TaskGroup() as together:
            going = [together.create_task(_play(world, step)) for step in clients]
            while door.begun < len(clients):
                _judge_memory(world)
                await asyncio.sleep(0.05)
            await asyncio.sleep(LASTS)
            await asking.whole_rounds(2)
            _judge_memory(world)
            for step, client in zip(clients, going, strict=True):
                if step["do"] not in ANSWERED:
                    client.cancel()
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    await _is_as_before(world)
    failed = {status for status in world.door.statuses if status >= b"500"} - {b"503"}
    assert not failed, f"a hostile client was answered with {failed}"
    _judge_log(world, log.read_text()[before:])


async def _play(world: World, step: Step) -> None:
    step = {**step, "seed": step["seed"] + step["number"]}
    with contextlib.suppress(OSError):  # the agent closed it
        if step["do"] == "revoked":
            await _revoke(world, step)
        else:
            await CLIENTS[step["do"]](world.door, step)


async def _revoke(world: World, step: Step) -> None:
    """Revoke a key: its listener is closed, and the key opens nothing more."""
    key = await _new_key(world.agent)
    world.secrets.append(key["token"])
    header = f"Authorization: Bearer {key['token']}"
    async with world.door.connected(step["from"]) as line:
        await line.send(upgrade(header))
        head = await line.read_head()
        if b" 101 " not in head:
            assert not head or b'"busy"' in head, head
            return
        while b'"hello"' not in head and (more := await line.read()):
            head += more
        await world.agent.do("DELETE", f"/api/keys/{key['id']}")
        with contextlib.suppress(ConnectionError):
            assert b"revoked" in await line.read_all(), "a revoked key's listener ends otherwise"


def _judge_memory(world: World) -> None:
    more = _memory(world.pid) - world.memory
    assert more < MOST_MEMORY, f"the agent has {more >> 20} MiB more than at the beginning"


async def _is_as_before(world: World) -> None:
    until = time.monotonic() + PATIENCE
    while (files := _files(world.pid)) > world.files + SPARE_FILES:
        left = f"{files} descriptors are open, {world.files} at the beginning"
        assert time.monotonic() < until, left
        await asyncio.sleep(0.1)
    _judge_memory(world)
    session = await _session(world)
    assert session == world.session, f"the session was touched: {session}, was {world.session}"
    metrics = await world.agent.do("GET", "/metrics")
    lines = re.findall(r'^wa_agent_http_requests_total\{.*code="5(?!03).*\} [1-9].*', metrics, re.M)
    assert not lines, lines


async def _session(world: World) -> tuple[Any, ...]:
    shown = await world.agent.show(SESSION)
    told = ("connection_status", "enabled", "restarts_by_reason", "reconnects_by_reason")
    return shown["unit"]["main_pid"], *(shown[name] for name in told)


def _judge_log(world: World, new: str) -> None:
    assert "Traceback" not in new, new[-3000:]
    lines = [line for line in new.splitlines() if not OF_RIGHTS.search(line)]
    assert len(lines) <= MOST_LINES, f"{len(lines)} lines of the log, such as {lines[-3:]}"
    for secret in world.secrets:
        assert secret not in new, "a secret is in the log"


def _files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
