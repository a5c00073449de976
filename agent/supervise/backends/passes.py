"""One pass for one backend: watch its server, judge its outage, adopt its sessions."""

from dataclasses import dataclass

from agent.clock import boot_now
from agent.core.model import InstanceId
from agent.supervise.backends.adoption import Adoption
from agent.supervise.backends.facts import BackendFacts
from agent.supervise.backends.registry import Backends

LOOK_EVERY = 30.0


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class BackendPasses:
    backends: Backends
    adoption: Adoption

    async def run(self, id: InstanceId) -> float | None:
        """Return when this backend must be looked at again at the latest."""
        if (backend := self.backends.all.get(id)) is None:
            return None
        if backend.served is None:
            await self.backends.start(backend)
            self.backends.wake_members(backend)
        self.backends.returns.look(backend)
        if backend.up:
            await self.adoption.discover(backend)
        return self._next_look(backend)

    def _next_look(self, backend: BackendFacts) -> float:
        now = boot_now()
        if backend.served is None:
            return min(max(backend.next_start, now + 0.5), now + LOOK_EVERY)
        blink = backend.outage.since if not backend.outage.down else None
        soon = [] if blink is None else [blink + self.backends.settings().patience]
        if backend.up:
            soon.append(max(backend.next_look, now))
        return min([now + LOOK_EVERY, *soon])
