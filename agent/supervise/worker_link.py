"""The link to the worker that runs a session: its own, or its backend's."""

from collections.abc import Mapping
from typing import Any, Protocol

from agent.link.wire import Hello


class WorkerLink(Protocol):
    @property
    def hello(self) -> Hello: ...

    async def call(
        self, do: str, args: Mapping[str, Any] | None = None, *, timeout: float = 10.0
    ) -> Mapping[str, Any]: ...

    async def close(self) -> None: ...
