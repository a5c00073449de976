"""One Evolution server and those of its sessions that the agent watches."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.core.backends.slowness import Slowness
from agent.core.words import NO_PROOF, InstanceId, RemoteSession, ServerClaim, is_adopted
from agent.engines.base import BackendReporter, Reporter
from agent.engines.evolution.api import EvolutionApi
from agent.engines.evolution.observer import Server
from agent.engines.evolution.proof import NO_ROUTE, Prover
from agent.engines.evolution.remembered_file import SessionNotes
from agent.engines.evolution.rows import Rows
from agent.engines.evolution.session import EvolutionSession
from agent.engines.evolution.settings import EvolutionSettings, Pace, read_settings
from agent.engines.evolution.webhook.hooks import SeenMessages, read_event
from agent.engines.evolution.webhook.subscription import Subscription
from agent.engines.remote.answers import ServerDown, claim_of, left_out, remote_name, segment
from agent.engines.remote.http import RemoteHttp
from agent.engines.remote.recent import Recent
from agent.engines.remote.watch import ServerWatch
from agent.errors import EngineError, InvalidRequest

_ASKED = 200
"""The sessions of a list, from its beginning, whose live state is asked for."""


def open_backend(
    folder: Path, settings: Mapping[str, Any], reporter: BackendReporter
) -> "EvolutionBackend":
    return EvolutionBackend(folder, read_settings(settings), reporter)


class EvolutionBackend:
    """Made inside a running loop. It asks the server only when the worker asks it."""

    def __init__(
        self,
        folder: Path,
        settings: EvolutionSettings,
        reporter: BackendReporter,
        pace: Pace | None = None,
    ) -> None:
        pace = pace or Pace()
        server = settings.server
        self._pace = pace
        self._http = RemoteHttp(server, {"apikey": server.key})
        self._watch = ServerWatch(self._look, reporter.server, reporter.crashed)
        self._api = EvolutionApi(self._http, self._watch.doubt, self._watch.answered)
        limit = min(pace.probe_limit, server.timeout * 0.8)
        self._slowness = Slowness(6)
        prover = (
            Prover(self._api, server.parallel, lambda: self._server.probe_limit)
            if server.prove
            else None
        )
        hooks = Subscription(
            self._api,
            settings.hook_base,
            settings.hook_url,
            again=pace.hook_again,
            ready=self._ready,
            crashed=reporter.crashed,
        )
        rows: Recent[Rows] = Recent(self._api.rows, pace.list_holds, pace.list_spacing)
        self._server = Server(
            api=self._api,
            rows=rows,
            prover=prover,
            hooks=hooks,
            seen=SeenMessages(),
            doubt=self._watch.doubt,
            usual_limit=limit,
            slowness=self._slowness,
            pace=pace,
            notes=SessionNotes(folder / "sessions.json"),
            folder=folder / "removed",
        )
        self._by_id: dict[InstanceId, EvolutionSession] = {}
        self._by_name: dict[str, EvolutionSession] = {}
        self._timeout = server.timeout
        self._version_at = float("-inf")

    async def open(self) -> None:
        self._watch.doubt()

    async def check(self) -> ServerClaim:
        claim = await self._watch.check()
        if claim.up:  # as the agent does, which hears of this check
            self._slowness.note(claim.seconds)
        return claim

    async def sessions(self) -> list[RemoteSession]:
        # An operator asked for the list: never an older one.
        rows = await self._server.rows.get(holds=0.0)
        shown = rows.sessions()
        if rows.old:
            return shown
        # 2.x lists its database, which says `open` of a session that has connected for hours.
        live = await asyncio.gather(*(self._live(session) for session in shown[:_ASKED]))
        return [*live, *shown[_ASKED:]]

    async def _live(self, shown: RemoteSession) -> RemoteSession:
        try:
            return replace(shown, status=str(await self._api.state(shown.name)))
        except EngineError:
            return shown

    def hold(
        self, id: InstanceId, settings: Mapping[str, Any], reporter: Reporter
    ) -> EvolutionSession:
        remote = remote_name(settings) or id
        segment(remote)
        held = self._by_id.get(id)
        if held is not None and held.remote == remote:
            held.reporter = reporter
            return held
        taken = self._by_name.get(remote)
        if taken is not None and taken.id != id:
            raise InvalidRequest(
                f"cannot watch {remote} as {id}: {taken.id} watches it",
                field="remote",
                code="remote_taken",
            )
        self.release(id)
        adopted = is_adopted(settings)
        session = EvolutionSession(id, remote, self._server, reporter, adopted=adopted)
        self._by_id[id] = self._by_name[remote] = session
        self._server.hooks.want(remote)
        return session

    def release(self, id: InstanceId) -> None:
        session = self._by_id.pop(id, None)
        if session is not None:
            del self._by_name[session.remote]
            session.end_watch()
            self._server.hooks.forget(session.remote)

    async def hook(self, raw: Mapping[str, Any]) -> None:
        event = read_event(raw)
        if event is not None and (session := self._by_name.get(event.session)) is not None:
            await session.take_event(event)

    async def close(self) -> None:
        for session in self._by_id.values():
            session.end_watch()
        await self._server.hooks.close()
        await self._server.notes.close()
        await self._server.rows.close()
        await self._watch.close()
        await self._http.close()

    async def _look(self) -> ServerClaim:
        """Never raises for what the server does."""
        try:
            seconds, rows = await self._api.check(self._known_name(), self._timeout)
        except ServerDown as down:
            self._version_at = float("-inf")  # another version may come back
            for session in self._by_id.values():
                session.server_is_away()
            return claim_of(down, version=self._api.version)
        if rows is not None:
            self._server.rows.take(rows)
        await self._learn_version()
        last = self._server.rows.last()
        count = len(last[0].by_name) if last is not None else None
        prover = self._server.prover
        unproved = prover is not None and not prover.has_route
        odd = left_out(last[0].left_out) if last is not None else ""
        sentence = "; ".join(filter(None, (NO_ROUTE if unproved else "", odd)))
        reason = NO_PROOF if unproved else ""
        return ServerClaim(True, reason, sentence, self._api.version, seconds, count)

    def _known_name(self) -> str:
        """The name of a session that the server most likely has; "" where none is known."""
        last = self._server.rows.last()
        there = [session.remote for session in self._by_name.values() if session.is_there]
        return next(iter([*there, *(last[0].by_name if last else ()), *self._by_name]), "")

    async def _ready(self) -> bool:
        return (self._watch.claim or await self._watch.check()).up

    async def _learn_version(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._version_at < self._pace.version_again:
            return
        self._version_at = now
        await self._api.learn_version(min(self._timeout, 5.0))
