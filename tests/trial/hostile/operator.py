"""An operator → an agent: every command of the CLI, the API and the script, twice, in any order, in
the middle of another, killed at each moment and fail point, and with the disks full. Nothing is
lost that the answer did not name: pairings, instances and files are there, a refusal has touched
nothing, each answer is a sentence with a code, and the agent goes on."""

import asyncio
import json
import logging
import signal
from functools import cache
from random import Random

from scripts.benches.processes import children
from tests.trial.hostile.operating import arguments
from tests.trial.hostile.operating.births import draw_births, play_births
from tests.trial.hostile.operating.commands import (
    BOTS,
    IDS,
    LEFT,
    PASSED_BY,
    PEERS,
    Step,
    commands,
    routes,
)
from tests.trial.hostile.operating.oracle import (
    judge,
    judge_answer,
    judge_command,
    judge_look,
    listed_now,
)
from tests.trial.hostile.operating.processes import OUTS, run_script, type_command
from tests.trial.hostile.operating.sessions import BYSTANDERS, SANDBOXES, make, opened
from tests.trial.hostile.operating.settings_file import draw_additions, play_additions
from tests.trial.hostile.operating.themes import THEMES, UNLINKS, UNREADABLE
from tests.trial.hostile.operating.world import World
from tests.trial.machine import send

log = logging.getLogger(__name__)
world = opened
CASES = 2
AWAITED = 10.0
"""Seconds for which a step is waited for before the next one."""


def draw(chance: Random) -> list[Step]:
    theme = chance.choice([*THEMES])
    steps: list[Step] = []
    while len(steps) < chance.randint(4, 9):
        steps += _steps(chance, theme)
    return steps


def _steps(chance: Random, theme: str) -> list[Step]:
    what = chance.random()
    ids = THEMES[theme][1]
    if what < 0.07:
        who = chance.choice(["agent", "agent", "worker", "node"])
        return [{"do": "kill", "who": who, "id": chance.choice(ids), "down": chance.random() < 0.3}]
    if what < 0.13:
        return _at_a_point(chance, chance.choice(sorted(PASSED_BY)), chance.choice(ids))
    if what < 0.17:
        return [{"do": "disk", "left": chance.choice([-1, 0, 0, 4096, 20_000, 200_000])}]
    if what < 0.2:
        return [draw_additions(chance)]
    if what < 0.23:
        return [draw_births(chance)]
    if what < (0.34 if theme == "servers" else 0.25):
        how = chance.choice(["silent", "back", "denied", "denied", "restart", "errors"])
        then = [{"do": "pause", "seconds": 2.0}, _command(chance, theme, chance.choice(ids))]
        if how == "denied":  # for a while it is unknown whether the session is still there
            then = [
                *then[:1],
                arguments.draw_request(chance, "POST {I}/cleanup", "evo", confirm=False),
            ]
            then[1] |= _how(chance)
        happens = {"do": "happens", "what": how, "times": chance.choice([1, 3, 50])}
        return [happens, *(then if theme == "servers" else ())]
    if what < 0.3:
        return [{"do": "pause", "seconds": chance.choice([0.1, 0.5, 2.0])}]
    return [_command(chance, theme, chance.choice(ids))]


def _at_a_point(chance: Random, point: str, id: str) -> list[Step]:
    asked = arguments.draw_request(chance, chance.choice(PASSED_BY[point]), id, confirm=True)
    times = chance.choice([1, 1, 1, 2, 5])
    return [{"do": "point", "point": f"{point}:kill:{times}"}, {**asked, **_how(chance)}]


@cache
def _everything() -> tuple[str, ...]:
    typed = [words for words in commands() if words not in LEFT]
    return (*typed, *routes(), *["script"] * 8)


@cache
def _of_theme(theme: str) -> tuple[str, ...]:
    likelier = {"servers": ("POST {I}/removed/{removed}/restore", "POST {I}/cleanup")}
    return (*sorted(THEMES[theme][0]), *likelier.get(theme, ()) * 3) or _everything()


def _command(chance: Random, theme: str, id: str) -> Step:
    name = chance.choice(_of_theme(theme))
    if name == "script":
        step = arguments.draw_script(chance)
    elif name in commands():
        step = arguments.draw_command(chance, name, id)
        step["out"] = chance.choice(OUTS) if chance.random() < 0.1 else ""
    else:
        step = arguments.draw_request(chance, name, id)
    return {**step, **_how(chance)}


def _how(chance: Random) -> Step:
    kill = round(chance.uniform(0.1, 1.5), 2) if chance.random() < 0.1 else 0.0
    return {"twice": chance.random() < 0.3, "waits": chance.random() < 0.6, "kill": kill}


async def play(world: World, case: list[Step]) -> None:
    named = {step["id"] for step in case if step.get("id")} - {"c"}
    for id in sorted((named | ({"still"} if "evo" in named else set())) - world.ready):
        await make(world, id)
    world.look()
    world.before = world.live()
    world.ended, world.gone, world.unlinked = set(), set(), set()
    world.listed = await listed_now(world)
    world.logged = world.agent.log.stat().st_size
    tasks: list[asyncio.Task[None]] = []
    try:
        for step in case:
            await world.revive()
            done = asyncio.create_task(_step(world, step))
            tasks.append(done)
            if step.get("waits", True):
                limit = AWAITED if "argv" in step or "ask" in step else None
                await asyncio.wait([done], timeout=limit)
            else:
                await asyncio.sleep(0.05)
            world.look()
            for each in tasks:
                if each.done():
                    await each
        await _come_to_rest(world, tasks)
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await judge(world)
    await _make_again(world)


async def _step(world: World, step: Step) -> None:
    match step["do"]:
        case "cli" | "api" | "script":
            again = [_told(world, step) for _ in range(2 if step["twice"] else 1)]
            if step["waits"]:
                for each in again:
                    await each
            else:
                await asyncio.gather(*again)
        case "kill":
            await _kill(world, step)
        case "point":
            if not world.dead:
                await world.agent.stop()
            await world.start(step["point"])
        case "disk" if step["left"] < 0:
            world.free()
        case "disk":
            world.fill(step["left"])
        case "happens":
            await _happen(world, step["what"], step["times"])
        case "additions":
            await play_additions(world, step)
        case "births":
            await play_births(world, step)
        case "pause":
            await asyncio.sleep(step["seconds"])


async def _kill(world: World, step: Step) -> None:
    if world.dead:
        return
    if step["who"] == "agent":
        world.down = step["down"]
        await world.agent.kill()
        if not step["down"]:
            await world.start()
        return
    status, said = await world.ask("GET", f"/api/instance/{step['id']}/details", {}, None)
    pid = json.loads(said)["unit"]["main_pid"] if status == 200 else 0
    pids = children([pid]) if pid and step["who"] == "node" else {pid}
    send(signal.SIGKILL, pids - {0})


async def _happen(world: World, what: str, times: int) -> None:
    match what:
        case "silent" | "back":
            world.evolution.silence(what == "silent")
        case "denied" if shop := world.evolution.instances.get("shop"):
            shop.denied = times
        case "restart":
            await world.evolution.restart_process(0.2)
        case "errors" if session := world.desk.sessions.get("7"):
            for _ in range(times):
                world.desk.log(UNREADABLE.format(peer=PEERS[1]))
            session.rests = 0.0


async def _told(world: World, step: Step) -> None:
    """Typed or asked once; what it answered is judged."""
    agent, words = world.agent.process, step.get("argv") or []
    if words[:1] == ["run"] and world.dead:
        return  # it would be the agent
    if step["do"] == "api":
        method, path, query, body = await world.filled(step["ask"], step["id"])
        status, said = await world.ask(method, path, query, body)
        refused = 400 <= status < 500
        died = status == 0 and (world.agent.process is not agent or await world.dies())
        judge_answer(f"{method} {path} {query} {body}", status, said, alive=not died)
        if status == 202 and not died:
            await judge_look(world, said)
    else:
        words = await world.filled(words, step["id"])
        if step["do"] == "script":
            status, said = await run_script(world, words, step["own"], step["kill"])
        else:
            words += ["--json"] if step["json"] else []
            status, said = await type_command(world, words, step["kill"], step["out"])
        refused = status in (2, 3, 4)
        judge_command(" ".join(words), status, said, killed=step["kill"], out=step.get("out", ""))
    log.info("%s → %s %s", words or step.get("ask", ())[:2], status, said[:200])
    unasked = {"POST {I}/cleanup", "POST {I}/logout"} & {step.get("name")}
    if unasked and not step["ends"] and step["id"] not in world.ended | world.gone:
        paired = world.listed.get(step["id"], {}).get("paired")
        assert not (paired and status == 200), f"{step['ask']} without a word of a person: {said}"
    if step["ends"] and not refused:
        world.ended.add(step["id"])
        if step.get("name") in UNLINKS or words[:1] == ["logout"]:
            world.unlinked.add(step["id"])
    if step.get("name") == "DELETE {I}" or words[:1] == ["delete"]:
        world.gone |= set() if refused else {step["id"]}


async def _come_to_rest(world: World, tasks: list[asyncio.Task[None]]) -> None:
    """All that was wrong around it is over; what was asked has its answers."""
    world.free()
    world.evolution.silence(False)
    if shop := world.evolution.instances.get("shop"):
        shop.denied = 0
    if world.down:
        await world.start()
    while pending := [each for each in tasks if not each.done()]:
        await asyncio.wait(pending, timeout=1.0)
        await world.revive()
    for each in tasks:
        await each
    await world.revive()
    if world.armed:
        await world.agent.stop()
        await world.start()


async def _make_again(world: World) -> None:
    """Bring sessions that this case ended, deleted or made back to where they were."""
    for id in (await listed_now(world)).keys() - set(IDS) - BYSTANDERS.keys() | {"c"}:
        await world.agent.ask("DELETE", f"/api/instance/{id}")
    for id in world.ended | world.gone:
        world.ready.discard(id)
        if id in SANDBOXES:
            await world.agent.ask("DELETE", f"/api/instance/{id}")
            await make(world, id)
        elif id not in BOTS:
            await world.agent.ask("DELETE", f"/api/instance/{id}")
