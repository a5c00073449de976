"""What the agent can ask of one kind of server: evolution.py and whaticket/api.py."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from agent.core.model import Claim, RemoteSession, ServerClaim
from agent.engines.base import Qr


class Known(Protocol):
    """What is known of one session on a server; no I/O."""

    @property
    def is_due(self) -> bool:
        """True if it must be looked at in this round."""

    def claim(self) -> Claim | None:
        """None: the server has said nothing of it yet."""


class ServerSession(Protocol):
    """One session on a server.

    ServerDown says that the server itself gave no usable answer, another EngineError something of
    this session. An action that may end a pairing is called with a proof or a person's word.
    """

    @property
    def known(self) -> Known: ...

    async def look(self, *, deep: bool = False) -> Mapping[str, Any]:
        """Ask the server for it; `deep`: also for a proof, and compare what it says."""

    async def connect(self) -> None: ...

    async def restart(self) -> None: ...

    async def logout(self) -> None: ...

    async def renew(self, *, confirmed: bool) -> None: ...

    async def disconnect(self) -> None: ...

    async def new_keys(self, peers: Sequence[str]) -> None:
        """Let the keys of these contacts be made anew; none named: what is damaged."""

    async def qr(self) -> Qr | None: ...

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """What only this kind of server can do."""


class ServerApi(Protocol):
    """What one kind of server can do; its sessions are named as the server names them."""

    @property
    def list_every(self) -> float:
        """Seconds between two lists while the server is up."""

    async def sessions(self) -> tuple[ServerClaim, tuple[RemoteSession, ...]]:
        """All sessions, by one request; the claim's reason and sentence are what a server that is
        up lacks. EngineError `list_failed`: only the list does not come."""

    def away(self) -> None:
        """The server was found down: what comes back may be other sessions of these names."""

    async def hold(
        self, remote: str, *, adopted: bool, paired: bool, account: str
    ) -> ServerSession:
        """Know this session from now on. `paired` and `account`: as the agent remembers it."""

    def forget(self, remote: str) -> None: ...

    async def close(self) -> None: ...
