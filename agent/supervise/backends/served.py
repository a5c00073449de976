"""The task that watches one server, and each session's share of it, called as a link is."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agent.backends.http import ServerDown
from agent.backends.server import Server, ServerApi
from agent.clock import boot_now
from agent.config.declaration import BackendDeclaration
from agent.core.findings.crypto_patterns import CryptoPattern
from agent.core.model import Happening, InstanceId
from agent.core.words import UNREACHED, is_adopted
from agent.errors import EngineError, HostError, InvalidRequest, LinkError, WaError
from agent.link.wire import Hello
from agent.supervise.backends.facts import BackendFacts
from agent.supervise.backends.news import ServerNews
from agent.supervise.facts import Facts

log = logging.getLogger(__name__)

START_AGAIN = 5.0
"""Seconds after which a task that ended by a fault of the agent is started again."""

Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ServerLink:
    """One session's share of its server's task."""

    backend: BackendFacts
    server: Server
    id: InstanceId

    @property
    def hello(self) -> Hello:
        return Hello(self.id, self.backend.roster.get(self.id, ""), self.backend.declared.engine, 0)

    async def call(self, do: str, args: Answer | None = None, *, timeout: float = 10.0) -> Answer:
        work = _WORKS.get(do)
        if work is None:
            raise InvalidRequest(f"cannot {do}: no such call", field="do")
        limit = timeout + self.backend.slowness.slack
        return await self.backend.circuit.act(
            self.id, do, lambda: self._within(limit, do, work(self.server, self.id, args or {}))
        )

    async def close(self) -> None:
        self.backend.listener.pop(self.id, None)

    async def _within(self, limit: float, do: str, work: Coroutine[Any, Any, Answer]) -> Answer:
        if self.id not in self.backend.roster or self.backend.served is not self.server:
            work.close()
            raise LinkError(f"cannot {do} {self.id}: it is not watched any more", code="gone")
        try:
            async with asyncio.timeout(limit):
                return await work
        except TimeoutError as error:
            cause = f"no answer in {limit:g} s"
            raise LinkError(f"cannot {do} {self.id}: {cause}", code="timeout") from error
        except ServerDown as down:
            if down.reached:
                raise
            # Told apart here: the circuit counts failures of what was reached.
            raise EngineError(str(down), code=UNREACHED) from down
        except WaError:
            raise
        except Exception as error:
            # Else the pass would end before it judges, and the last good verdict would stand.
            log.exception("cannot %s %s: a fault of the agent", do, self.id)
            cause = type(error).__name__
            raise EngineError(f"cannot {do} {self.id}: {cause}", code="internal") from error


async def _probe(server: Server, id: InstanceId, args: Answer) -> Answer:
    answer = await server.probe(id, deep=args.get("deep") is True)
    return {**answer.figures, "claim": answer.claim, "detail": dict(answer.detail)}


async def _qr(server: Server, id: InstanceId, _args: Answer) -> Answer:
    code = await server.act(id, server.api.qr)
    return {"qr": None if code is None else asdict(code)}


async def _renew(server: Server, id: InstanceId, args: Answer) -> Answer:
    await server.act(id, server.api.renew, confirmed=args.get("confirmed") is True)
    return {}


async def _new_keys(server: Server, id: InstanceId, args: Answer) -> Answer:
    await server.act(id, server.api.new_keys, [str(peer) for peer in args.get("peers", ())])
    return {}


async def _command(server: Server, id: InstanceId, args: Answer) -> Answer:
    name, arguments = str(args.get("name", "")), args.get("arguments", {})
    return await server.act(id, server.api.command, name, arguments)


def _plain(action: str) -> Any:
    async def work(server: Server, id: InstanceId, _args: Answer) -> Answer:
        await server.act(id, getattr(server.api, action))
        return {}

    return work


_WORKS: Mapping[str, Callable[[Server, InstanceId, Answer], Coroutine[Any, Any, Answer]]] = {
    "probe": _probe,
    "qr": _qr,
    **{action: _plain(action) for action in ("connect", "disconnect", "restart", "logout")},
    "renew": _renew,
    "regenerate_keys": _new_keys,
    "command": _command,
}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Servers:
    """Starts and ends the tasks."""

    root: Path
    news: ServerNews
    facts: Mapping[InstanceId, Facts]
    crypto_patterns: Sequence[CryptoPattern]

    def _open(
        self,
        declared: BackendDeclaration,
        folder: Path,
        happened: Callable[[str, Happening], None],
    ) -> ServerApi:
        """`folder`: for what is kept here. `happened`: called with the server's name of a
        session."""
        if declared.engine == "evolution":
            from agent.backends.evolution import Evolution

            return Evolution(declared, folder)
        from agent.backends.whaticket.api import Whaticket

        return Whaticket(declared, folder, happened, patterns=self.crypto_patterns)

    async def start(self, backend: BackendFacts, declared: BackendDeclaration) -> None:
        """`declared`: with its key. ConfigError: a file that it names cannot be used."""
        await self.stop(backend)

        def happened(remote: str, what: Happening) -> None:
            if (id := server.id_of(remote)) is not None:
                self.news.happened(backend, id, what)

        api = self._open(declared, self.root / backend.name, happened)
        server = Server(
            declared, api, partial(self._changed, backend), partial(self.news.server, backend)
        )
        backend.served, backend.started_at = server, boot_now()
        for id in [id for id in backend.roster if id in self.facts]:
            try:
                await self.hold(backend, id)
            except WaError as error:
                log.warning("%s", error)
                self.leave(backend, id)
        name = f"server {backend.name}"
        backend.task = asyncio.create_task(self._live(backend, server), name=name)
        await asyncio.sleep(0)  # cancelled before its first turn it would close no connection

    async def stop(self, backend: BackendFacts) -> None:
        """The server's sessions go on."""
        task, backend.task, backend.served = backend.task, None, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.news.lost(backend, "it is watched anew")

    async def hold(self, backend: BackendFacts, id: InstanceId) -> None:
        if backend.served is None:
            raise HostError(f"cannot watch {id} on {backend.name}: {backend.sentence}")
        instance, record = self.facts[id].instance, self.facts[id].record
        await backend.served.hold(
            id,
            instance.remote or id,
            adopted=is_adopted(instance.settings),
            paired=record.paired,
            account=record.account,
        )

    def leave(self, backend: BackendFacts, id: InstanceId) -> None:
        backend.roster.pop(id, None)
        backend.listener.pop(id, None)
        backend.unheard.pop(id, None)
        if backend.served is not None:
            backend.served.release(id)

    def _changed(self, backend: BackendFacts, id: InstanceId | None) -> None:
        if id is None:
            self.news.changed(backend)
        elif (claim := backend.last_words(id)) is not None:
            self.news.claimed(backend, id, claim)

    async def _live(self, backend: BackendFacts, server: Server) -> None:
        with suppress(asyncio.CancelledError):
            try:
                await server.run()
            except Exception:
                log.exception("the task of backend %s ended: a fault of the agent", backend.name)
        if backend.served is server:
            backend.task = backend.served = None
            backend.next_start = boot_now() + START_AGAIN
            self.news.lost(backend, "its task ended")
