"""Which linked device each session is. WhatsApp ends the connection of a device whenever another
program logs in as the same one: of its copies, one may be an instance that runs."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from agent.core.model import InstanceId
from agent.engines.files import Linked
from agent.errors import Refused
from agent.supervise.facts import Facts
from agent.vault.check import read_linked


class Devices:
    def __init__(self, root: Path, facts: Mapping[InstanceId, Facts]) -> None:
        self._root = root
        self._facts = facts
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By device: two copies are compared one after the other."""

    @asynccontextmanager
    async def alone(
        self,
        id: InstanceId,
        engine: str,
        doing: str,
        linked: Linked | None = None,
        *,
        arrives: bool | None = None,
    ) -> AsyncIterator[None]:
        """Refused where another instance is the same device. `linked`: of a session that is not in
        its place yet; else of this one. One that `arrives` no other instance may be; one that is
        here already may not run with another that runs."""
        if arrives is None:
            arrives = linked is not None
        if linked is None:
            linked = await asyncio.to_thread(read_linked, self._root, id, engine)
        if not linked.device:
            yield
            return
        async with self._locks.setdefault(linked.device, asyncio.Lock()):
            if twin := await self._twin_of(id, linked, running=not arrives):
                raise Refused(
                    f"cannot {doing}: instance {twin} is the same linked device, and two programs"
                    " with one device end each other's connections;"
                    f" {'delete' if arrives else 'disable'} {twin} first",
                    code="same_device",
                )
            yield

    async def whose(self, id: InstanceId, engine: str) -> InstanceId | None:
        """The other instance that was linked to the account of the files in this one's folder."""
        account = (await asyncio.to_thread(read_linked, self._root, id, engine)).account
        for facts in self._facts.values():
            is_other = facts.id != id and facts.instance.engine == engine
            if account and is_other and facts.record.account == account:
                return facts.id
        return None

    async def _twin_of(self, id: InstanceId, linked: Linked, *, running: bool) -> InstanceId | None:
        for facts in list(self._facts.values()):
            instance, account = facts.instance, facts.record.account
            if instance.id == id or instance.backend or not facts.record.paired:
                continue
            if running and not (instance.enabled or facts.unit.runs):
                continue
            if account and linked.account and account != linked.account:
                continue
            its = await asyncio.to_thread(read_linked, self._root, facts.id, instance.engine)
            if its.device == linked.device:
                return instance.id
        return None
