"""What the database keeps of a backend's sessions that are no instances: those whose instances an
operator deleted, and those that an operator asked to adopt while the server gave no list."""

import json
from dataclasses import dataclass

from agent.store.database import Store

LET_GO = "let_go:"
ORDERED = "adopt_order:"


@dataclass(frozen=True, slots=True)
class AdoptionNotes:
    """By the names of backends and of their sessions."""

    store: Store

    async def let_go(self, backend: str) -> set[str]:
        return set(json.loads(await self.store.get_fact(LET_GO + backend) or "[]"))

    async def note_deleted(self, backend: str, remote: str) -> None:
        """An operator deleted the instance: what was asked before counts no more."""
        names = await self.let_go(backend) | {remote}
        await self.store.put_facts({LET_GO + backend: json.dumps(sorted(names))})
        await self.forget_order(backend, remote)

    async def note_adopted(self, backend: str, remote: str) -> None:
        if remote in (names := await self.let_go(backend)):
            await self.store.put_facts({LET_GO + backend: json.dumps(sorted(names - {remote}))})

    async def orders(self, backend: str) -> dict[str, str]:
        """What to adopt, as the operator called it, and the id to give it; "" = any."""
        return dict(json.loads(await self.store.get_fact(ORDERED + backend) or "{}"))

    async def note_order(self, backend: str, asked: str, id: str) -> None:
        await self._put_orders(backend, await self.orders(backend) | {asked: id})

    async def forget_order(self, backend: str, asked: str) -> None:
        orders = await self.orders(backend)
        if orders.pop(asked, None) is not None:
            await self._put_orders(backend, orders)

    async def _put_orders(self, backend: str, orders: dict[str, str]) -> None:
        await self.store.put_facts({ORDERED + backend: json.dumps(orders)})
