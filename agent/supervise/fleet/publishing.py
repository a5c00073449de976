"""Publishes what this machine shows of its sessions, for the lists of the other machines.

Changed views go in batches, at most once a second. They hold what a list shows: no code to scan,
no secret, no contact.
"""

import asyncio
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from agent.clock import boot_now
from agent.core.model import InstanceId
from agent.core.view import InstanceView
from agent.errors import WaError
from agent.fleet.coordinator import Member
from agent.fleet.postgres.coordinator import PostgresCoordinator

log = logging.getLogger(__name__)

EVERY = 1.0
AGAIN = 120.0
"""Seconds after which figures that change all the time are published again."""
MOST = 500
"""Views in one batch."""
_REFUSED = re.compile("[\0\ud800-\udfff]")
"""What PostgreSQL does not take in JSON: one server's sentence must not hide all views."""
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
    coordinator: PostgresCoordinator
    member: Callable[[], Member]
    _published: dict[InstanceId, _Published] = field(default_factory=dict)
    _epoch: int = -1

    async def run(self) -> None:
        while True:
            try:
                await self.publish()
            except WaError as error:
                log.debug("cannot publish the states of sessions: %s", error)
            await asyncio.sleep(EVERY)

    async def publish(self) -> int:
        """One batch of what changed; how many."""
        # A copy: a session may go while the database answers.
        member, views = self.member(), dict(self.views())
        if member.epoch != self._epoch:
            # What was sent in an epoch that had ended was refused without a word.
            self._published.clear()
            self._epoch = member.epoch
        for id in self._published.keys() - views.keys():
            del self._published[id]
        batch = [id for id in views if self._changed(id, views[id])][:MOST]
        shown = {id: self.show(views[id]) for id in batch}
        if shown:
            await self.coordinator.publish(member, {id: _clean(it) for id, it in shown.items()})
        for id, view in shown.items():
            self._published[id] = _Published(views[id], _digest(view), boot_now())
        return len(shown)

    def _changed(self, id: InstanceId, view: InstanceView) -> bool:
        before = self._published.get(id)
        if before is None:
            return True
        if before.view is view:
            return False
        if boot_now() - before.at >= AGAIN or before.digest != _digest(self.show(view)):
            return True
        self._published[id] = replace(before, view=view)
        return False


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _REFUSED.sub("", value)
    if isinstance(value, dict):
        return {name: _clean(inner) for name, inner in value.items()}
    return [_clean(inner) for inner in value] if isinstance(value, list) else value


def _digest(shown: Mapping[str, Any]) -> bytes:
    lasting = {name: value for name, value in shown.items() if name not in _ALWAYS_NEW}
    return blake2b(json.dumps(lasting, sort_keys=True).encode(), digest_size=16).digest()
