"""Whether this machine owns a session. Alone it owns all of its own; in a fleet the fleet says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from agent.core.model import Instance, InstanceId
from agent.core.words import NO_LEASE
from agent.supervise.facts import Facts


class Owner(Protocol):
    """The fleet's side of the questions below."""

    in_hand: set[InstanceId]
    """Sessions whose files a request has: the fleet neither fetches nor retires them."""

    def wait_reason(self, facts: Facts) -> str: ...

    def wait_sentence(self, facts: Facts) -> str: ...

    def attached(self, id: InstanceId) -> None: ...

    async def claim(self, instance: Instance) -> None: ...

    def refuse_other_engine(self, instance: Instance) -> None: ...

    async def write_through(self, facts: Facts) -> None: ...

    async def delete(self, id: InstanceId) -> None: ...

    def refuse_unreachable(self) -> None: ...


@dataclass(slots=True, eq=False)
class Tenure:
    owner: Owner | None = None

    def wait_reason(self, facts: Facts) -> str:
        """Why its worker may not be started here now; one that runs has a deadline of its own."""
        if facts.unit.runs or facts.instance.backend:
            return ""
        if self.owner is not None:
            return self.owner.wait_reason(facts)
        return NO_LEASE if facts.instance.leased else ""

    def wait_sentence(self, facts: Facts) -> str:
        """What keeps the machine's lease from a session that waits for it."""
        if self.owner is not None:
            return self.owner.wait_sentence(facts)
        return (
            f"{facts.id} is a fleet's session, and agent.toml has no [fleet]: put [fleet] back; or,"
            f" if the fleet is gone for good: wa-agent fleet release {facts.id}"
        )

    def attached(self, id: InstanceId) -> None:
        """The session's worker can be called now."""
        if self.owner is not None:
            self.owner.attached(id)

    @asynccontextmanager
    async def claim(self, instance: Instance, *, own: bool = False) -> AsyncIterator[None]:
        """While a session is made here; Refused where another machine of the fleet has its id.
        `own`: one that this machine has already is replaced."""
        if self.owner is None:
            yield
            return
        self.owner.in_hand.add(instance.id)
        try:
            if own:
                self.owner.refuse_other_engine(instance)
            else:
                await self.owner.claim(instance)
            yield
        finally:
            self.owner.in_hand.discard(instance.id)

    async def write_through(self, facts: Facts) -> None:
        """An operator's order holds on the machine that runs it next, too."""
        if self.owner is not None:
            await self.owner.write_through(facts)

    def refuse_unreachable(self) -> None:
        """TryLater while the fleet's database is away: what follows would change it."""
        if self.owner is not None:
            self.owner.refuse_unreachable()

    async def delete(self, id: InstanceId) -> None:
        if self.owner is not None:
            await self.owner.delete(id)
