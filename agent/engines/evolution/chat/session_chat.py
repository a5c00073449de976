"""What a session on the server does with messages: it sends them, and hears of those that came."""

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from agent.engines.base import Reporter
from agent.engines.evolution.chat.arrivals import Arrivals
from agent.engines.evolution.chat.media import load_media
from agent.engines.evolution.chat.sending import Sending
from agent.engines.evolution.claims import Live
from agent.engines.evolution.observer import Server
from agent.engines.evolution.view import SessionView
from agent.engines.remote.session import RemoteSession
from agent.errors import EngineError


class SessionChat(RemoteSession):
    _view: SessionView

    def __init__(
        self, remote: str, server: Server, reporter: Reporter, came_through: Callable[[], None]
    ) -> None:
        """`came_through`: called with a message that proves the session to be connected."""
        self.remote = remote
        self.reporter = reporter
        self._api = server.api
        self._arrivals = Arrivals(remote, server, lambda: self.reporter, came_through)
        self._sending = Sending(remote, server, lambda: self.reporter)

    async def send(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self._sending.send(message)

    async def sent(self, message: Mapping[str, Any], begun: float) -> Mapping[str, Any]:
        return await self._sending.sent(message, begun)

    async def mark_read(self, asked: Mapping[str, Any]) -> None:
        self._must_be_open("mark messages as read")
        await self._sending.mark_read(asked)

    async def presence(self, asked: Mapping[str, Any]) -> None:
        self._must_be_open("show a presence")
        await self._sending.presence(asked)

    def load_media(self, record: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        return load_media(self._api, self.remote, record)

    def catch_up(self) -> None:
        self._arrivals.missed()

    def _must_be_open(self, what: str) -> None:
        """A question to a session that logs in breaks its login."""
        if self._view.live is not Live.OPEN:
            raise EngineError(f"cannot {what}: not connected", code="not_connected")
