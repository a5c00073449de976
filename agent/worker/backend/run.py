"""The worker of one backend: one process for all sessions that a server runs for us."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.core.words import ServerClaim
from agent.engines.catalog import load_backend
from agent.link.limits import BACKEND_SERVER
from agent.link.server import LinkServer
from agent.worker.backend.calls import BackendCalls
from agent.worker.backend.server_checks import MARGIN, ServerChecks
from agent.worker.backend.sessions import HeldSessions
from agent.worker.identity import Identity, engine_folder, read_backend, read_roster
from agent.worker.life import ProcessLife, live
from agent.worker.stop import stop_in_order
from agent.worker.watch import REPEAT, tell_status

STATUS_APART = 2.0
"""Seconds between two STATUS= texts: the counts of a thousand sessions change all the time."""


def run_backend(name: str) -> int:
    """Do it all with what the environment says; return the exit status."""
    return live(name, read_backend, _work)


class _FromBackend:
    """The backend's reporter; its receivers are set once they exist."""

    def __init__(self, crashed: Callable[[BaseException], None]) -> None:
        self.crashed = crashed
        self.heard: Callable[[ServerClaim], None] = lambda _claim: None

    def server(self, claim: ServerClaim) -> None:
        self.heard(claim)


async def _work(identity: Identity, link_path: Path) -> int:
    life = ProcessLife(identity)
    changed = asyncio.Event()
    reporter = _FromBackend(life.crashed)
    kept = engine_folder(identity.folder, "kept")
    backend = load_backend(identity.engine)(kept, identity.settings, reporter)
    held = HeldSessions(backend, changed)

    def tell(claim: ServerClaim) -> None:
        changed.set()
        server.server_claim(claim)

    def status() -> str:
        count = f"{held.connected()} of {len(held.sessions)} connected"
        return f"{count}; {checks.status_text()}"

    checks = ServerChecks(backend, tell, _seconds(identity.settings.get("timeout")) + MARGIN)
    calls = BackendCalls(identity.id, backend, held, checks, life.stop)
    server = await LinkServer.open(
        link_path,
        life.hello,
        calls.answer,
        held.current,
        limits=BACKEND_SERVER,
        answers_for=calls.answers_for,
    )
    reporter.heard = checks.heard
    held.attach(server)
    try:
        # By its file, so that it works while the agent is away.
        held.hold_all(read_roster(identity.folder))
        return await life.spend(
            {
                "server": checks.run(),
                "ping": checks.ping(life.notifier, life.watchdog),
                "repeat": held.repeat(REPEAT),
                "status": tell_status(changed, status, life.notifier, STATUS_APART),
            },
            status,
            lambda: stop_in_order(held, held.progressed, life.notifier, life.hurry),
        )
    finally:
        await life.end(server)


def _seconds(raw: Any, otherwise: float = 10.0) -> float:
    """The engine refused anything but a number; this only keeps the watch in step with it."""
    return float(raw) if isinstance(raw, int | float) else otherwise
