"""Instances of one name, one after the other: what belonged to the one before opens and answers
nothing of the next."""

import time
from datetime import datetime
from random import Random
from typing import Any

from tests.trial.hostile.operating.commands import Step
from tests.trial.hostile.operating.world import World

ACTS = ("key", "key", "use", "use", "send", "send", "again", "again", "next", "next")
NAME = "t"


def draw_births(chance: Random) -> Step:
    acts = ["key", "send", *(chance.choice(ACTS) for _ in range(chance.randint(2, 8)))]
    return {"do": "births", "acts": [*acts, "next", "use", "again"]}


async def play_births(world: World, step: Step) -> None:
    if world.dead or world.full or world.armed:
        return
    birth, keys, born = 0, [], await _make(world)
    try:
        for number, act in enumerate(step["acts"]):
            match act:
                case "key":
                    body = {"name": "one", "scopes": [f"instance:{NAME}"]}
                    made = await world.agent.do("POST", "/api/keys", body)
                    keys.append((birth, made["token"]))
                case "use":
                    for of, token in keys:
                        status, _ = await _read_with(world, token)
                        assert of == birth or status in (401, 403), "an older instance's key"
                case "send":
                    await _send(world, f"{number}")
                case "again":
                    accepted = await _send(world, f"{min(number, 1)}")
                    assert accepted >= born, "an older instance's message"
                case "next":
                    await world.agent.do("DELETE", f"/api/instance/{NAME}")
                    birth, born = birth + 1, await _make(world)
    finally:
        await world.agent.ask("DELETE", f"/api/instance/{NAME}")


async def _make(world: World) -> float:
    await world.agent.create(NAME)
    await world.connected(NAME)
    return time.time()


async def _read_with(world: World, token: str) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}"}
    return await world.agent.ask("GET", f"/api/instance/{NAME}", None, headers)


async def _send(world: World, key: str) -> float:
    """Unix time at which it was accepted. Its id is the same for each birth, so that a repeat whose
    row was lost is sent once."""
    body = {"to": "5511999990000", "text": "the same"}
    path, headers = f"/api/instance/{NAME}/messages?wait=30", {"Idempotency-Key": key}
    status, said = await world.agent.ask("POST", path, body, headers)
    assert status == 200, said
    row = await world.agent.do("GET", f"/api/instance/{NAME}/outbox/{said['id']}")
    return datetime.fromisoformat(row["accepted"]).timestamp()
