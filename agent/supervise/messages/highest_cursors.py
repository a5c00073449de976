"""The highest cursor that this agent heard of in each session. Files of messages that were put back
from an older copy, or made anew, go on above it: no cursor stands for two records."""

import json
import logging

from agent.core.model import InstanceId
from agent.errors import StoreError
from agent.store.database import Store
from agent.supervise.registry import Registry

log = logging.getLogger(__name__)

_FACT = "messages_highest."


class HighestCursors:
    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._of: dict[InstanceId, int] = {}
        self._new: set[InstanceId] = set()

    async def take_over(self) -> None:
        """What the agent before this one heard, of the instances that are still the same."""
        gone = []
        for name, text in (await self._store.get_facts(_FACT)).items():
            id = InstanceId(name.removeprefix(_FACT))
            try:
                cursor, born_wall = json.loads(text)
                if self._born(id) != born_wall:
                    gone.append(name)
                    continue
                self._of[id] = max(int(cursor), self.of(id))
            except (ValueError, TypeError):
                gone.append(name)
        if gone:
            await self._store.forget_facts(gone)

    def of(self, id: InstanceId) -> int:
        """0: it heard of none."""
        return self._of.get(id, 0)

    def note(self, id: InstanceId, cursor: int) -> None:
        if cursor > self._of.get(id, 0):
            self._of[id] = cursor
            self._new.add(id)

    def forget(self, id: InstanceId) -> None:
        """Another instance of that name counts for itself; its row here goes at the next start."""
        self._of.pop(id, None)
        self._new.discard(id)

    async def save(self) -> None:
        """All that rose, in one commit. Never raises."""
        rows = {
            _FACT + id: json.dumps([self._of[id], self._born(id)])
            for id in self._new
            if self._born(id) is not None
        }
        self._new.clear()
        if not rows:
            return
        try:
            await self._store.put_facts(rows)
        except StoreError as error:
            log.warning("cannot keep how far messages came: %s", error)

    def _born(self, id: InstanceId) -> float | None:
        facts = self._registry.facts.get(id)
        return None if facts is None else facts.instance.created_wall
