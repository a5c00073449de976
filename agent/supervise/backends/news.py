"""What the task of a server tells: claims of sessions, its server's state, its end."""

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from agent.clock import boot_now
from agent.core.model import Claim, Happening, InstanceId, ServerClaim
from agent.supervise.backends.facts import BackendFacts
from agent.supervise.backends.notes import Say, note_cause, note_warning
from agent.supervise.loop import Wakes

log = logging.getLogger(__name__)

MOST_UNHEARD = 100
"""Happenings of one session that no pass listens to yet."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ServerNews:
    wakes: Wakes
    """Wakes the passes of backends; `wake` wakes those of sessions."""
    wake: Callable[[InstanceId], None]
    say: Say

    def claimed(self, backend: BackendFacts, id: InstanceId, claim: Claim) -> None:
        if (listener := backend.listener.get(id)) is not None:
            listener.on_claim(backend.roster.get(id, ""), claim)

    def happened(self, backend: BackendFacts, id: InstanceId, what: Happening) -> None:
        if (listener := backend.listener.get(id)) is not None:
            listener.on_happening(backend.roster.get(id, ""), what)
        else:
            backend.unheard.setdefault(id, deque(maxlen=MOST_UNHEARD)).append(what)

    def changed(self, backend: BackendFacts) -> None:
        """Its state or its list."""
        backend.next_look = 0.0  # new sessions may match `adopt`
        self.wakes.wake(backend.name)

    def lost(self, backend: BackendFacts, why: str) -> None:
        log.info("backend %s: %s", backend.name, why)
        backend.server = None
        for listener in list(backend.listener.values()):
            listener.on_close(why)
        backend.listener.clear()
        self.wakes.wake(backend.name)

    def server(self, backend: BackendFacts, claim: ServerClaim) -> None:
        """Each list that was read, or was not."""
        before, backend.server = backend.server, claim
        if claim.up:
            backend.slowness.note(claim.seconds)
        backend.checked_wall, backend.checked_at = time.time(), boot_now()
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
