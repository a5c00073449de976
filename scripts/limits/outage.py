"""A webhook's target that is away for a day, while messages arrive and agent and worker are killed.

The day passes in `seconds`: the wall clock and the boot clock of both are stepped, half an hour at
a time, and the pauses between the webhook's tries are as much shorter. So each age and each number
of tries is that of a day; timers of the event loop alone are not."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import aiohttp

from scripts.limits.bed import ID, PEOPLE, Bed, broke, one_session
from tests.standin.clock import SteppedClock, stepped_clock

DAY = 86_400
STEPS = 48
PARTS = 4
"""Of the day, each a row of the table."""
PACE = (
    "import agent.wings.webhooks.deliveries as it; a, b, n, c = it.Pace.__init__.__defaults__;"
    " it.Pace.__init__.__defaults__ = (a * {0}, b * {0}, n, c * {0})"
)
BACK_WITHIN = 300.0
"""Seconds in which all must be delivered once the target is back."""


@dataclass(frozen=True, slots=True)
class Day:
    seconds: float
    """In which it passes."""
    rate: float
    """Messages a second."""
    kills: int
    """Of the agent and of the worker in turn."""


async def outage(root: Path, engine: str, day: Day) -> tuple[str, list[str]]:
    """A table, and what did not hold."""
    seconds, rate = day.seconds, day.rate
    first, victims = PACE.format(seconds / DAY), cycle(("agent", "worker"))
    with stepped_clock() as clock:
        async with one_session(root, engine, inside=clock.command, first=first) as bed:
            said = 0
            for part in range(PARTS):
                async with bed.watch.step(
                    f"hours {24 * part // PARTS} to {24 * (part + 1) // PARTS}"
                ):
                    writing = _write(bed, part, int(rate * seconds / PARTS), seconds / PARTS)
                    play = _play(bed, clock, part, day, victims)
                    async with asyncio.TaskGroup() as tasks:
                        written = tasks.create_task(writing)
                        tasks.create_task(play)
                    said += written.result()
            problem = await _problem(bed)
            async with bed.watch.step("the target is back, until it has all") as step:
                await bed.target.open()
                await bed.target.until(said, BACK_WITHIN)
                step.note = f"{said:,} messages"
            found = broke(said, await bed.read_all(), bed.target.got)
            if not problem:
                found.append(
                    "GET /api/webhooks named no problem of a target that was away for a day"
                )
            return f"{bed.watch.table()}\n\nThe agent said: {problem}", found


async def _play(bed: Bed, clock: SteppedClock, part: int, day: Day, victims: Iterator[str]) -> None:
    """A part of the day, with its kills."""
    steps = range(part * STEPS // PARTS, (part + 1) * STEPS // PARTS)
    for step in steps:
        clock.sleep((step + 1) * DAY // STEPS)
        if (step + 1) * day.kills // STEPS > step * day.kills // STEPS:
            await _kill(bed, next(victims))
        await asyncio.sleep(day.seconds / STEPS)


async def _write(bed: Bed, part: int, count: int, seconds: float) -> int:
    for number in range(count):
        who, text = PEOPLE[number % len(PEOPLE)], f"in {part} {number}"
        if bed.baileys is not None:
            (account,) = bed.baileys.accounts.values()
            await asyncio.to_thread(bed.baileys.whatsapp.say, who, account, text)
        else:
            await _say(bed, who, text, f"3EB0IN{part:02d}{number:08d}")
        await asyncio.sleep(seconds / count)
    return count


async def _say(bed: Bed, who: str, text: str, id: str) -> None:
    """Until the sandbox has it: the same id is the same message."""
    body = {"contact": who, "text": text, "message_id": id}
    while True:
        with suppress(aiohttp.ClientError, OSError):
            status, _ = await bed.agent.ask("POST", f"/api/instance/{ID}/sandbox/say", body)
            if status < 300:
                return
        await asyncio.sleep(0.1)


async def _kill(bed: Bed, victim: str) -> None:
    if victim == "agent":
        await bed.agent.kill()
        await bed.agent.start({})
    else:
        with suppress(ProcessLookupError):
            os.kill(await bed.agent.running_pid(ID), signal.SIGKILL)


async def _problem(bed: Bed) -> str:
    shown = await bed.agent.do("GET", "/api/webhooks")
    (webhook,) = shown["webhooks"]
    return f"{webhook['state']}, {webhook['waiting']} waiting: {webhook['problem']}"
