"""Many messages that wait in one session: how long each of its readers needs, and what memory."""

import asyncio
import os
import signal
import time
from pathlib import Path

import aiohttp

from scripts.limits.bed import ID, Bed, broke, one_session
from scripts.limits.watching import timed

BATCH = 1000
TRIES = 5
LONGEST = 1800.0
"""Seconds until the webhook has all."""


async def waiting(root: Path, count: int) -> tuple[str, list[str]]:
    """A table, and what did not hold."""
    async with one_session(root, "sandbox") as bed:
        watch = bed.watch
        async with watch.step("nothing waits"):
            await bed.say(1, "first")
            await _until_kept(bed, 1)
        async with watch.step(f"{count:,} arrive"):
            for begun in range(1, count, BATCH):
                more = min(BATCH, count - begun)
                await bed.say(more, f"in {begun}")
                await _until_kept(bed, begun + more)
        requests = await _requests(bed)
        async with watch.step("the worker is killed, until a reader has the first") as step:
            step.worker = 0.0
            await _worker_again(bed)
            await bed.agent.do("GET", f"/api/instance/{ID}/messages?after=0&limit=1")
        async with watch.step("all by long poll, 500 at once"):
            records = await bed.read_all()
        async with watch.step("all over a WebSocket"):
            heard = await _listen(bed, count)
        async with watch.step("the agent is killed, until it is ready"):
            await bed.agent.kill()
            await bed.agent.start({})
        await bed.target.open()
        async with watch.step("all to the webhook, each in its turn") as step:
            await bed.agent.do("POST", "/api/webhooks/consumer/retry")
            await bed.target.until(count, LONGEST)
        found = broke(count, records, bed.target.got)
        if heard != [record["cursor"] for record in records]:
            found.append("the WebSocket gave others than the long poll")
        return f"{watch.table()}\n\n{requests}", found


async def _until_kept(bed: Bed, count: int) -> None:
    while await bed.kept() < count:  # noqa: ASYNC110 - over its API
        await asyncio.sleep(0.02)


async def _worker_again(bed: Bed) -> None:
    pid = await bed.agent.running_pid(ID)
    os.kill(pid, signal.SIGKILL)
    while not await bed.agent.is_back(ID, pid):  # noqa: ASYNC110 - over its API
        await asyncio.sleep(0.02)


async def _requests(bed: Bed) -> str:
    """The slowest and the quickest answer of each, in milliseconds."""
    messages = f"/api/instance/{ID}/messages"
    oldest = (await bed.agent.do("GET", f"{messages}?after=0&limit=1"))["records"][0]
    newest = (await bed.agent.do("GET", f"{messages}?after=newest"))["next"]
    named = f"{oldest['message_id']}/media?chat={oldest['chat']}"
    paths = {
        f"{messages}?after=0&limit=500": 200,
        f"{messages}?after={newest - 50}&limit=50": 200,
        f"{messages}?after=newest": 200,
        f"{messages}/{oldest['id']}/media": 404,
        f"{messages}/{named}": 404,
        "/api/messages": 200,
        "/api/instances": 200,
        f"/api/instance/{ID}/details": 200,
        "/metrics": 200,
    }
    lines = ["| request | quickest, ms | slowest of 5, ms |", "|---|---:|---:|"]
    for path, status in paths.items():
        taken = [(await timed(bed.agent, path, status))[0] * 1000 for _ in range(TRIES)]
        shown = path.replace(str(newest - 50), "NEWEST-50").replace(oldest["id"], "OLDEST")
        shown = shown.replace(named, "WHATSAPP'S-ID/media?chat=…")
        lines.append(f"| `GET {shown}` | {min(taken):.1f} | {max(taken):.1f} |")
    return "\n".join(lines)


async def _listen(bed: Bed, count: int) -> list[int]:
    """Cursors."""
    found: list[int] = []
    connector = aiohttp.UnixConnector(str(bed.agent.state / "api.sock"))
    url = f"http://localhost/api/instance/{ID}/messages/live?after=0"
    begun = time.monotonic()
    async with aiohttp.ClientSession(connector=connector) as client, client.ws_connect(url) as ws:
        async for message in ws:
            found.append(message.json()["cursor"])
            if len(found) >= count or time.monotonic() - begun > 600:
                break
    return found
