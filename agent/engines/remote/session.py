"""What each session on a server answers alike: nothing of it is on this machine."""

from collections.abc import Mapping
from typing import Any

from agent.errors import EngineError


class RemoteSession:
    async def send(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        raise _left_to_its_server("send")

    async def mark_read(self, asked: Mapping[str, Any]) -> None:
        raise _left_to_its_server("mark messages as read")

    async def presence(self, asked: Mapping[str, Any]) -> None:
        raise _left_to_its_server("show a presence")

    async def free_memory(self) -> None:
        """The session is in its server's memory."""

    async def prepare_stop(self) -> None:
        """The session goes on at its server."""

    async def save(self) -> None:
        """Its server saves it."""


def _left_to_its_server(what: str) -> EngineError:
    return EngineError(f"cannot {what}: its server's own API does that", code="not_supported")
