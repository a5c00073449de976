"""Warns of what holds sessions up; one cause of many sessions is one line of the log."""

from agent.core.model import Category, InstanceId
from agent.log import bound


class ToldOnce:
    def __init__(self) -> None:
        self._causes: dict[InstanceId, str] = {}

    def warn(self, id: InstanceId, cause: str) -> None:
        """Where no session has this cause yet."""
        told = cause in self._causes.values()
        self._causes[id] = cause
        if not told:
            bound(Category.SESSION, id).warning("%s", cause)

    def over(self, id: InstanceId) -> None:
        self._causes.pop(id, None)
