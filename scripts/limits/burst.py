"""Many messages at once in one session, until all are kept and delivered."""

import asyncio
import time
from pathlib import Path

from scripts.limits.bed import PEOPLE, Bed, broke, one_session
from scripts.messages.beds import BaileysBed

LONGEST = 1800.0
"""Seconds."""


async def burst(root: Path, engine: str, count: int) -> tuple[str, list[str]]:
    """A table, and what did not hold. On baileys WhatsApp holds them until the session is back."""
    async with one_session(root, engine) as bed:
        await bed.target.open()
        async with bed.watch.step("nothing arrives"):
            await asyncio.sleep(1.0)
        begun = time.perf_counter()
        if bed.baileys is not None:
            count = await _hold(bed.baileys, count)
            begun = time.perf_counter()
            await bed.baileys.whole()
        async with bed.watch.step(f"{count:,} at once, until all are kept") as step:
            if bed.baileys is None:
                await bed.say(count, "at once")
            await _until_kept(bed, count)
            step.note = f"{count / (time.perf_counter() - begun):.0f} a second"
        async with bed.watch.step("… and the webhook has the last") as step:
            await bed.target.until(count, LONGEST)
            step.note = f"{time.perf_counter() - begun:.1f} s after the first"
        async with bed.watch.step("nothing arrives any more"):
            await asyncio.sleep(1.0)
        return bed.watch.table(), broke(count, await bed.read_all(), bed.target.got)


async def _hold(baileys: BaileysBed, count: int) -> int:
    """WhatsApp has them for the session, which is away; how many there are."""
    (account,) = baileys.accounts.values()
    await baileys.part()
    share = max(1, count // len(PEOPLE))
    say = baileys.whatsapp.say_many
    await asyncio.gather(*(asyncio.to_thread(say, who, account, share) for who in PEOPLE))
    return share * len(PEOPLE)


async def _until_kept(bed: Bed, count: int) -> None:
    async with asyncio.timeout(LONGEST):
        while await bed.kept() < count:  # noqa: ASYNC110 - over its API
            await asyncio.sleep(0.05)
