"""Sends firing and resolved alerts to an Alertmanager, by its v2 API.

Each request carries all present alerts, so nothing queues up while the Alertmanager is down; it is
repeated like Prometheus repeats it.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

log = logging.getLogger(__name__)

BATCH = 200
TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Raised:
    """One alert as an Alertmanager knows it."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_wall: float
    ends_wall: float | None = None
    """None while it fires."""


class Alertmanager:
    """`tell` never waits; `run` delivers."""

    def __init__(
        self,
        url: str,
        *,
        repeat: float = 60.0,
        first_delay: float = 1.0,
        longest_delay: float = 60.0,
    ) -> None:
        self.url = url.rstrip("/")
        self.problem = ""
        """The error of the last delivery; "" after a success."""
        self.delivered_wall: float | None = None
        self.deliveries = {"done": 0, "failed": 0}
        self._repeat = repeat
        self._first_delay = first_delay
        self._longest_delay = longest_delay
        self._picture: Sequence[Raised] = ()
        self._changed = asyncio.Event()

    def tell(self, picture: Sequence[Raised], *, changed: bool) -> None:
        """The present alerts. A change is sent at once, all else with the next repetition."""
        self._picture = picture
        if changed:
            self._changed.set()

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        failures = 0
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                self._changed.clear()
                failures = 0 if await self._deliver(session) else failures + 1
                if failures:
                    await asyncio.sleep(self._delay(failures))
                    continue
                try:
                    async with asyncio.timeout(self._repeat):
                        await self._changed.wait()
                except TimeoutError:
                    pass

    def _delay(self, failures: int) -> float:
        return min(self._first_delay * 2.0 ** min(failures - 1, 16), self._longest_delay)

    async def _deliver(self, session: aiohttp.ClientSession) -> bool:
        picture = self._picture
        try:
            for start in range(0, len(picture), BATCH):
                await self._post(session, picture[start : start + BATCH])
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            problem = str(error) or type(error).__name__
            if not self.problem:
                log.warning(
                    "cannot send alerts to %s: %s; the agent tries again", self.url, problem
                )
            self.problem = problem
            self.deliveries["failed"] += 1
            return False
        if self.problem:
            log.info("%s takes alerts again", self.url)
        self.problem = ""
        self.deliveries["done"] += 1
        if picture:
            self.delivered_wall = time.time()
        return True

    async def _post(self, session: aiohttp.ClientSession, part: Sequence[Raised]) -> None:
        # An alert that a dead agent no longer repeats ends by itself.
        until = time.time() + 4 * self._repeat
        body = [_shown(alert, until) for alert in part]
        url = f"{self.url}/api/v2/alerts"
        async with session.post(url, json=body, allow_redirects=False) as answer:
            if answer.status >= 300:
                said = (await answer.content.read(200)).decode(errors="replace")
                raise aiohttp.ClientError(f"it answered {answer.status}: {said}")


def _shown(alert: Raised, until: float) -> dict[str, Any]:
    return {
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "startsAt": _moment(alert.starts_wall),
        "endsAt": _moment(until if alert.ends_wall is None else alert.ends_wall),
    }


def _moment(wall: float) -> str:
    """RFC 3339 in UTC."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(wall))
    return f"{whole}.{int(wall % 1 * 1000):03d}Z"
