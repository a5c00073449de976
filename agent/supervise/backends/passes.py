"""One pass for one backend: start and link its worker, judge its outage, adopt its sessions."""

from dataclasses import dataclass

from agent.clock import boot_now
from agent.core.model import InstanceId, UnitState
from agent.supervise.backends.adoption import Adoption
from agent.supervise.backends.facts import BackendFacts
from agent.supervise.backends.registry import Backends
from agent.supervise.backends.worker import ATTACH_AGAIN

LOOK_EVERY = 30.0


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class BackendPasses:
    backends: Backends
    adoption: Adoption

    async def run(self, id: InstanceId) -> float | None:
        """Return when this backend must be looked at again at the latest."""
        backend, workers = self.backends.all.get(id), self.backends.workers
        if backend is None or workers is None:
            return None
        linked = backend.link
        await self.backends.read_unread(backend)
        await workers.look(backend)
        if backend.link is not linked:
            self.backends.wake_members(backend)
        self.backends.returns.look(backend)
        if backend.up:
            await self.adoption.discover(backend)
        return self._next_look(backend)

    def _next_look(self, backend: BackendFacts) -> float:
        now = boot_now()
        if backend.link is not None:
            blink = backend.outage.since if not backend.outage.down else None
            soon = [] if blink is None else [blink + self.backends.settings().patience]
            if backend.up:
                soon.append(max(backend.next_look, now))
            return min([now + LOOK_EVERY, *soon])
        if backend.unit.state is UnitState.ACTIVE:
            return max(backend.next_attach, now)
        return min(max(backend.next_start, now + ATTACH_AGAIN), now + LOOK_EVERY)
