"""What a worker runs for a session that WhatsApp ended for good: nothing that could log in.

Its host or the boot started that worker; its agent stops it, or gives it a new life first
when a person asked for that.
"""

import logging
from collections.abc import Mapping
from typing import Any

from agent.core.words import Claim, ConnectionStatus
from agent.engines.base import ProbeAnswer, Qr, Reporter
from agent.errors import EngineError

log = logging.getLogger(__name__)


class EndedEngine:
    """An Engine that says why it ended, and refuses all that would reach WhatsApp."""

    def __init__(self, reason: str, reporter: Reporter) -> None:
        self._claim = Claim(ConnectionStatus.AUTH_FAILURE, reason=reason)
        self._reporter = reporter

    async def connect(self) -> None:
        log.warning("not connecting: the session was ended for good (%s)", self._claim.reason)
        self._reporter.claim(self._claim)

    async def disconnect(self) -> None: ...

    async def probe(self, *, deep: bool = False) -> ProbeAnswer:
        return ProbeAnswer(self._claim, {})

    async def qr(self) -> Qr | None:
        return None

    async def send(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        raise self._refusal("send")

    async def logout(self) -> None:
        raise self._refusal("log out")

    async def regenerate_keys(self, peers: list[str]) -> None:
        raise self._refusal("regenerate keys")

    async def free_memory(self) -> None: ...

    async def prepare_stop(self) -> None: ...

    async def save(self) -> None: ...

    async def close(self) -> None: ...

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        raise self._refusal(f"{name!r:.40}")

    def _refusal(self, doing: str) -> EngineError:
        why = f"the session was ended for good ({self._claim.reason})"
        return EngineError(f"cannot {doing}: {why}", code="not_connected")
