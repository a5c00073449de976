"""Publishes what this machine shows of its sessions, for the lists of the other machines.

Changed views go in batches, at most once a second. They hold what a list shows: no code to scan,
no secret, no contact.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from agent.clock import boot_now
from agent.core.model import InstanceId
from agent.core.view import InstanceView
from agent.errors import WaError
from agent.fleet.coordinator import Coordinator, Member

log = logging.getLogger(__name__)

EVERY = 1.0
AGAIN = 120.0
"""Seconds after which figures that change all the time are published again."""
MOST = 500
"""Views in one batch."""
_ALWAYS_NEW = ("uptime_seconds", "memory_bytes", "proved")


@dataclass(frozen=True, slots=True)
class _Published:
    view: InstanceView
    digest: bytes
    at: float


@dataclass(slots=True, eq=False)
class Publishing:
    views: Callable[[], Mapping[InstanceId, InstanceView]]
    show: Callable[[InstanceView], dict[str, Any]]
    coordinator: Coordinator
    member: Callable[[], Member]
    _published: dict[InstanceId, _Published] = field(default_factory=dict)

    async def run(self) -> None:
        while True:
            try:
                await self.publish()
            except WaError as error:
                log.debug("views of sessions were not published: %s", error)
            await asyncio.sleep(EVERY)

    async def publish(self) -> int:
        """One batch of what changed; how many."""
        changed: dict[InstanceId, _Published] = {}
        shown: dict[str, dict[str, Any]] = {}
        views = self.views()
        for id in self._published.keys() - views.keys():
            del self._published[id]
        for id, view in views.items():
            if len(shown) == MOST:
                break  # the rest a second later
            before, now = self._published.get(id), boot_now()
            if before is not None and before.view is view:
                continue
            found = self.show(view)
            made = _Published(view, _digest(found), now)
            if before is not None and before.digest == made.digest and now - before.at < AGAIN:
                self._published[id] = _Published(view, made.digest, before.at)
                continue
            changed[id], shown[id] = made, found
        if shown:
            await self.coordinator.publish(self.member(), shown)
            self._published |= changed
        return len(shown)


def _digest(shown: Mapping[str, Any]) -> bytes:
    lasting = {name: value for name, value in shown.items() if name not in _ALWAYS_NEW}
    return blake2b(json.dumps(lasting, sort_keys=True).encode(), digest_size=16).digest()
