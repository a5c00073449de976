"""What a backend's worker tells the agent: claims of sessions, its server's state, its end."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from agent.clock import boot_now
from agent.core.model import Claim, Happening, InstanceId, ServerClaim
from agent.supervise.backends.facts import BackendFacts
from agent.supervise.backends.notes import Say, note_cause, note_warning
from agent.supervise.loop import Wakes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class WorkerNews:
    wakes: Wakes
    """Wakes the passes of backends; `wake` wakes those of sessions."""
    wake: Callable[[InstanceId], None]
    say: Say

    def claimed(self, backend: BackendFacts, id: InstanceId, run: str, claim: Claim) -> None:
        backend.words[id] = (claim, boot_now())
        if (listener := backend.listener.get(id)) is not None:
            listener.on_claim(id, run, claim)

    def happened(self, backend: BackendFacts, id: InstanceId, run: str, what: Happening) -> None:
        if (listener := backend.listener.get(id)) is not None:
            listener.on_happening(id, run, what)

    def lost(self, backend: BackendFacts, why: str) -> None:
        log.info("the link to the worker of backend %s ended: %s", backend.name, why)
        backend.link = backend.server = None
        for listener in list(backend.listener.values()):
            listener.on_close(why)
        backend.listener.clear()
        self.wakes.wake(backend.name)

    def server(self, backend: BackendFacts, claim: ServerClaim) -> None:
        before, backend.server = backend.server, claim
        if claim.up:
            backend.slowness.note(claim.seconds)
        backend.checked_wall, backend.checked_at = time.time(), boot_now()
        backend.next_check_wall = (
            None if claim.next_check is None else time.time() + claim.next_check
        )
        backend.version = claim.version or backend.version
        note_warning(backend, self.say)
        if claim.up or backend.outage.down:  # before, it may be a blink
            note_cause(backend, self.say)
        reached = claim.reason != "unreachable"
        backend.circuit.checked(up=claim.up, reached=reached, seconds=claim.seconds)
        if before is None or before.up != claim.up:
            self.wakes.wake(backend.name)
        if claim.up and not backend.outage.down:  # after an outage Returns wakes them in turn
            asking, backend.asking = backend.asking, set()
            for id in asking:
                self.wake(id)
