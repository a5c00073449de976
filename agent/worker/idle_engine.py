"""The engine of a worker that must not log in: it says why, and touches nothing.

After WhatsApp ended a session for good, and where a pairing's store is lost or another's. Its host
or the boot started that worker; its agent stops it, and gives it a new life first when that is
wanted.
"""

import logging
from collections.abc import Mapping
from typing import Any

from agent.core.words import SUSPECT, Claim, ConnectionStatus
from agent.engines.base import ProbeAnswer, Qr, Reporter
from agent.errors import EngineError

log = logging.getLogger(__name__)


def ended_engine(reason: str, reporter: Reporter) -> "StillEngine":
    return StillEngine(reason, f"the session was ended for good ({reason})", reporter)


def lost_engine(cause: str, reporter: Reporter) -> "StillEngine":
    """`cause`: why its store can hold no pairing. A next worker looks again."""
    return StillEngine(SUSPECT, f"the session is paired, and {cause}", reporter)


def refused_engine(error: EngineError, reporter: Reporter) -> "StillEngine":
    """Its files are not those of this session. A next worker looks again."""
    return StillEngine(error.code, str(error), reporter)


class StillEngine:
    """An Engine that refuses all that would reach WhatsApp, or the files that lie there."""

    def __init__(self, reason: str, why: str, reporter: Reporter) -> None:
        self._claim = Claim(ConnectionStatus.AUTH_FAILURE, reason=reason, raw=why[:200])
        self._why = why
        self._reporter = reporter

    async def connect(self) -> None:
        log.warning("not connecting: %s", self._why)
        self._reporter.claim(self._claim)

    async def disconnect(self) -> None: ...

    async def probe(self, *, deep: bool = False) -> ProbeAnswer:
        return ProbeAnswer(self._claim, {})

    async def qr(self) -> Qr | None:
        return None

    async def send(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        raise self._refusal("send")

    async def mark_read(self, asked: Mapping[str, Any]) -> None:
        raise self._refusal("mark messages as read")

    async def presence(self, asked: Mapping[str, Any]) -> None:
        raise self._refusal("show a presence")

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
        return EngineError(f"cannot {doing}: {self._why}", code="not_connected")
