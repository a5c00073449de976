"""The stand-in's webhooks: sent beside, repeated as the server repeats them."""

import asyncio
import random
from typing import Any

import aiohttp

from tests.standin.evolution.instances import Instance, Times, now_text

FINAL = (400, 401, 403, 404, 422)
ATTEMPTS = 10


class Webhooks:
    def __init__(self, times: Times) -> None:
        self.sent = 0
        self.failed = 0
        self._times = times
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, instance: Instance, event: str, data: Any) -> None:
        hook = instance.webhook
        name = event.replace(".", "_").upper()
        if hook is None or not hook.get("enabled") or name not in hook.get("events", []):
            return
        body = {
            "event": event,
            "instance": instance.name,
            "data": data,
            "destination": hook["url"],
            "date_time": now_text(),
            "sender": instance.wuid,
            "server_url": "http://localhost:8080",
            "apikey": None,
        }
        url = hook["url"]
        if hook.get("webhookByEvents"):
            url += "/" + event.replace(".", "-")
        task = asyncio.create_task(self._send(url, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _send(self, url: str, body: dict[str, Any]) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        wait = self._times.webhook_first
        for _ in range(ATTEMPTS):
            try:
                async with self._session.post(url, json=body) as reply:
                    if reply.status < 400:
                        self.sent += 1
                        return
                    if reply.status in FINAL:
                        break
            except (aiohttp.ClientError, TimeoutError):
                pass
            jitter = wait * 0.2 * (random.random() * 2 - 1)
            await asyncio.sleep(max(self._times.webhook_first, wait + jitter))
            wait = min(wait * 2, self._times.webhook_last)
        self.failed += 1
