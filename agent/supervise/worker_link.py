"""The link to the worker that runs a session: its own, or its backend's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from agent.core.model import Claim, Happening, InstanceId
from agent.link.messages import Hello

OnClaim = Callable[[InstanceId, str, Claim], None]
OnHappening = Callable[[InstanceId, str, Happening], None]
OnClose = Callable[[str], None]


class WorkerLink(Protocol):
    @property
    def hello(self) -> Hello: ...

    async def call(
        self, do: str, args: Mapping[str, Any] | None = None, *, timeout: float = 10.0
    ) -> Mapping[str, Any]: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Listener:
    """Hears what one session's engine says."""

    on_claim: OnClaim
    on_happening: OnHappening
    on_close: OnClose
