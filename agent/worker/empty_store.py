"""A paired session on an empty store does not log in: its worker opens an engine that says why, and
touches nothing. The same on another account's store, in a ban, and after the session's end.

Its host or the boot started that worker; its agent stops it, and gives it a new life first when
that is wanted.
"""

import logging
import os
from collections.abc import Callable
from typing import Any

from agent.core.words import SUSPECT, Claim, ConnectionStatus
from agent.engines.base import DECLARED, NO_RULES, Engine, OpenEngine, ProbeAnswer, Reporter
from agent.engines.catalog import file_rules, load_engine
from agent.errors import EngineError, FolderUnusable
from agent.worker.identity import Identity, engine_folder

log = logging.getLogger(__name__)


def open_engine(
    identity: Identity, reporter: Reporter, load: Callable[[str], OpenEngine] = load_engine
) -> Engine:
    """Open the engine on its folder, or one that does not log in; the next worker looks again."""
    if identity.ended:
        why = f"WhatsApp's last word allows no login ({identity.ended})"
        return StillEngine(identity.ended, why, reporter)
    open_own = load(identity.engine)
    rules = file_rules(identity.engine) if identity.paired else NO_RULES
    session = identity.folder / "session"
    if identity.paired and not os.path.lexists(session):
        raise FolderUnusable(f"cannot use {session}: it is not there")
    if cause := rules.lost_store(session):
        return StillEngine(SUSPECT, f"the session is paired, and {cause}", reporter)
    try:
        rules.check_login(session, identity.account)
    except EngineError as error:
        return StillEngine(error.code, str(error), reporter)
    settings = {name: value for name, value in identity.settings.items() if name != DECLARED}
    if (declared := identity.of_rooms.get(identity.engine)) is not None:
        settings[DECLARED] = declared
    return open_own(engine_folder(identity.folder, "session"), settings, reporter)


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

    free_memory = prepare_stop = save = close = qr = disconnect

    async def probe(self, *, deep: bool = False) -> ProbeAnswer:
        return ProbeAnswer(self._claim, {})

    async def _refuse(self, *_given: Any) -> Any:
        raise EngineError(f"cannot do this without a login: {self._why}", code="not_connected")

    send = mark_read = presence = logout = regenerate_keys = command = _refuse
