"""This machine's lease, told to the worker of each session that the machine owns.

A worker of a session of a fleet connects with it, and ends past it: the rule is the worker's own.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping

from agent.clock import boot_now
from agent.core.model import InstanceId
from agent.core.words import NO_LEASE
from agent.errors import EngineError, LinkError
from agent.log import about
from agent.supervise.facts import Facts
from agent.supervise.worker_link import WorkerLink

log = logging.getLogger(__name__)

ANSWER = 3.0
"""Seconds for a worker's answer: no worker has more than one lease on its way."""


class Leases:
    """The sessions of a backend need none: they stay with their machine."""

    def __init__(
        self, facts: Mapping[InstanceId, Facts], wake: Callable[[InstanceId], None]
    ) -> None:
        self._facts = facts
        self._wake = wake
        self._until = 0.0
        self._extends = False
        self._owned: frozenset[InstanceId] = frozenset()
        self._telling: dict[InstanceId, asyncio.Task[None]] = {}

    def give(self, until: float, owned: Collection[InstanceId]) -> None:
        """The machine owns these sessions, and may run them until its boot clock shows `until`."""
        self._extends = False
        self._tell_all(until, owned)

    def go_on(self, until: float, ids: Collection[str] | None) -> None:
        """Those that have a lease keep it until then; the others go on waiting."""
        self._extends = True
        known = self._facts if ids is None else self._facts.keys() & ids
        self._tell_all(until, known)

    def _tell_all(self, until: float, owned: Collection[InstanceId]) -> None:
        self._until, self._owned = until, frozenset(owned)
        for id in self._owned:
            self.attached(id)

    def attached(self, id: InstanceId) -> None:
        """Its worker can be reached: it hears of the lease as it is now."""
        facts = self._facts.get(id)
        if (
            facts is None
            or facts.link is None
            or not facts.instance.leased
            or self.wait_reason(facts)
        ):
            return
        if id not in self._telling:
            task = asyncio.create_task(self._tell(facts, facts.link), name=f"lease of {id}")
            self._telling[id] = task

    def wait_reason(self, facts: Facts) -> str:
        """Why it may not run; "" = it may."""
        if not facts.instance.leased or (facts.id in self._owned and boot_now() < self._until):
            return ""
        return NO_LEASE

    async def remove(self, ids: Iterable[InstanceId]) -> None:
        """The machine left its fleet, as their files say: their workers need no lease any more."""
        gone = frozenset(ids)
        self._owned -= gone
        links = [facts.link for id in gone if (facts := self._facts.get(id)) and facts.link]
        calls = (link.call("lease", {"until": None}, timeout=ANSWER) for link in links)
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(answer, BaseException):
                log.warning("%s; this worker ends with its lease, and starts without one", answer)

    async def _tell(self, facts: Facts, link: WorkerLink) -> None:
        sent = 0.0
        try:
            while sent != self._until and not self.wait_reason(facts):
                sent, extend = self._until, {"extend": True} if self._extends else {}
                await link.call("lease", {"until": sent, **extend}, timeout=ANSWER)
        except EngineError as error:
            if error.field == "do":  # it knows no such call
                # One of an earlier version would go on past the lease.
                facts.asked.restart_for = "its worker is of an older version, which knows no lease"
                self._wake(facts.id)
            log.error("%s", error, extra=about(facts.id))
        except LinkError as error:
            log.debug("%s", error, extra=about(facts.id))
        finally:
            del self._telling[facts.id]
