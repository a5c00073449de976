"""A whaticket-like server and its sessions, as a Backend: requests, logs, keys."""

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.core.words import InstanceId, RemoteSession, ServerClaim, is_adopted
from agent.engines.base import BackendReporter, Reporter
from agent.engines.remote.answers import ServerDown, claim_of, left_out, remote_name
from agent.engines.remote.http import RemoteHttp
from agent.engines.remote.watch import ServerWatch
from agent.engines.tasks import Tasks
from agent.engines.whaticket.keys.files import make_private
from agent.engines.whaticket.keys.store import open_store
from agent.engines.whaticket.log_errors import ErrorReporter
from agent.engines.whaticket.logs.sources import Logs
from agent.engines.whaticket.server import WhaticketServer
from agent.engines.whaticket.session import Shared, WhaticketSession
from agent.engines.whaticket.settings import WhaticketSettings, read_settings
from agent.errors import EngineError

log = logging.getLogger(__name__)

_SWEEP_EVERY = 86400.0


def open_backend(
    folder: Path, settings: Mapping[str, Any], reporter: BackendReporter
) -> "WhaticketBackend":
    return WhaticketBackend(folder, read_settings(settings), reporter)


class WhaticketBackend:
    """Made inside a running loop."""

    def __init__(
        self, folder: Path, settings: WhaticketSettings, reporter: BackendReporter
    ) -> None:
        self._folder = make_private(folder)
        self._server = WhaticketServer(settings, RemoteHttp(settings.server, {}))
        self._store = open_store(settings, self._folder)
        self._watch = ServerWatch(self._ask, reporter.server, reporter.crashed)
        self._shared = Shared(self._server, self._store, settings, self._watch.doubt)
        self._held: dict[InstanceId, WhaticketSession] = {}
        self._reporters: dict[InstanceId, Reporter] = {}
        self._errors = ErrorReporter(self._server, self._store, self._held, self._reporters)
        self._logs = Logs(settings, self._folder, self._errors.take, reporter.crashed)
        self._tasks = Tasks(reporter.crashed)

    async def open(self) -> None:
        await self._logs.open()
        self._tasks.start(self._errors.run(), "owners of errors")
        self._tasks.start(self._sweep_daily(), "sweep of removals")
        self._watch.doubt()

    async def check(self) -> ServerClaim:
        return await self._watch.check()

    async def sessions(self) -> list[RemoteSession]:
        rows = await self._server.rows.get()
        return [RemoteSession(row.id, row.status, row.number, row.name) for row in rows]

    def hold(
        self, id: InstanceId, settings: Mapping[str, Any], reporter: Reporter
    ) -> WhaticketSession:
        remote, adopted = remote_name(settings), is_adopted(settings)
        session = WhaticketSession(id, remote, self._shared, reporter, adopted=adopted)
        self._held[id], self._reporters[id] = session, reporter
        return session

    def release(self, id: InstanceId) -> None:
        self._held.pop(id, None)
        self._reporters.pop(id, None)

    async def hook(self, raw: Mapping[str, Any]) -> None:
        raise EngineError(
            "cannot take a webhook: whaticket-like servers send none", code="not_supported"
        )

    async def close(self) -> None:
        for session in list(self._held.values()):
            await session.close()
        await self._logs.close()
        await self._tasks.cancel()
        await self._watch.close()
        await self._store.close()
        await self._server.close()

    async def _ask(self) -> ServerClaim:
        begun = time.monotonic()
        try:
            rows = await self._server.rows.get(holds=0.0)
        except ServerDown as down:
            return claim_of(down, seconds=time.monotonic() - begun)
        sentences = [*self._logs.troubles(), *self._errors.sentences()]
        sentences += filter(None, [left_out(self._server.left_out)])
        return ServerClaim(
            True,
            sentence="; ".join(sentences)[:1000],
            seconds=self._server.answered_in,
            sessions=len(rows),
        )

    async def _sweep_daily(self) -> None:
        while True:
            if gone := await asyncio.to_thread(self._store.shelf.sweep):
                log.info("%d old backups of removed keys deleted", gone)
            await asyncio.sleep(_SWEEP_EVERY)
