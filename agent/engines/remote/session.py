"""What each session on a server answers alike: nothing of it is on this machine."""

from collections.abc import Mapping
from typing import Any

from agent.errors import EngineError


class RemoteSession:
    async def mark_read(self, asked: Mapping[str, Any]) -> None:
        raise EngineError(
            "cannot mark messages as read: its server is not asked to", code="not_supported"
        )

    async def presence(self, asked: Mapping[str, Any]) -> None:
        raise EngineError(
            "cannot show a presence: its server is not asked to", code="not_supported"
        )

    async def free_memory(self) -> None:
        """The session is in its server's memory."""

    async def prepare_stop(self) -> None:
        """The session goes on at its server."""

    def catch_up(self) -> None:
        """Its server tells nothing that could be missed."""

    async def save(self) -> None:
        """Its server saves it."""
