"""A backend on the loopback, as small as one can be, whose server does as a test tells it.

Asks its server one line for each request: {"do": ..., "session": ...} and reads one line back.
What the server answers with `engine` is done by this side: break, hang, crash.
"""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.core.model import (
    Claim,
    ConnectionStatus,
    Happening,
    InstanceId,
    RemoteSession,
    ServerClaim,
)
from agent.engines.base import BackendReporter, ProbeAnswer, Qr, Reporter
from agent.errors import ConfigError, EngineError


class LoopBackend:
    def __init__(
        self, folder: Path, settings: Mapping[str, Any], reporter: BackendReporter
    ) -> None:
        if not isinstance(settings.get("port"), int):
            raise ConfigError("cannot use backend setting 'port': not a number", field="port")
        self.port = int(settings["port"])
        self.folder = folder
        self.reporter = reporter
        self.held: dict[str, LoopSession] = {}
        self._every = float(settings.get("every", 0.05))
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._task = asyncio.create_task(self._poll(), name="poll")

    async def ask(self, do: str, session: str = "", limit: float = 20.0) -> dict[str, Any]:
        try:
            async with asyncio.timeout(limit):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self.port, limit=1 << 24
                )
                try:
                    writer.write(json.dumps({"do": do, "session": session}).encode() + b"\n")
                    answer = json.loads(await reader.readline() or b"null")
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError) as error:
            why = f"cannot {do}: {type(error).__name__}"
            raise EngineError(why, code="backend_down") from error
        return await self._obey(answer)

    async def _obey(self, answer: Any) -> dict[str, Any]:
        what = answer.get("engine", "")
        if what == "break":
            raise KeyError("secret")
        if what == "hang":
            await asyncio.sleep(600)
        if what == "crash":
            self.reporter.crashed(RuntimeError("lost my way"))
        if error := answer.get("error"):
            raise EngineError(f"cannot do it: {error}", code=error)
        return dict(answer)

    async def check(self) -> ServerClaim:
        try:
            told = await self.ask("check", limit=600.0)
        except EngineError as error:
            return ServerClaim(False, "unreachable", str(error))
        return ServerClaim(True, version=told["version"], sessions=told["sessions"])

    async def sessions(self) -> list[RemoteSession]:
        told = await self.ask("list")
        return [RemoteSession(name, status) for name, status in told["states"].items()]

    def hold(
        self, id: InstanceId, settings: Mapping[str, Any], reporter: Reporter
    ) -> "LoopSession":
        if settings.get("remote") == "impossible":
            raise ConfigError("cannot use that remote", field="remote")
        name = str(settings.get("remote") or id)
        self.held[id] = LoopSession(self, name, reporter)
        return self.held[id]

    def release(self, id: InstanceId) -> None:
        del self.held[id]

    async def hook(self, told: Mapping[str, Any]) -> None:
        for session in self.held.values():
            if session.name == told["session"]:
                session.note(str(told["state"]))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        (self.folder / "closed").write_text(json.dumps({"held": len(self.held)}))

    async def _poll(self) -> None:
        while True:
            try:
                states = (await self.ask("list"))["states"]
            except EngineError:
                states = {}
            for session in list(self.held.values()):
                if session.name in states:
                    session.note(states[session.name])
            await asyncio.sleep(self._every)


class LoopSession:
    def __init__(self, backend: LoopBackend, name: str, reporter: Reporter) -> None:
        self.name = name
        self._backend = backend
        self._reporter = reporter
        self._state = ""

    def note(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._reporter.claim(_claim(state))
            self._reporter.happened(Happening("message", {"direction": "in"}))

    async def _do(self, what: str) -> dict[str, Any]:
        return await self._backend.ask(what, self.name)

    async def connect(self) -> None:
        await self._do("connect")

    async def disconnect(self) -> None:
        await self._do("disconnect")

    async def restart(self) -> None:
        await self._do("restart")

    async def renew(self, *, confirmed: bool) -> None:
        await self._do("renew")

    async def logout(self) -> None:
        await self._do("logout")

    async def probe(self, *, deep: bool = False) -> ProbeAnswer:
        told = await self._do("probe")
        return ProbeAnswer(_claim(told["state"]), {"exists": True} if deep else {})

    async def qr(self) -> Qr | None:
        return Qr((await self._do("qr"))["text"], 20.0, 1)

    async def send(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self._do("send")

    async def regenerate_keys(self, peers: list[str]) -> None:
        await self._do("regenerate_keys")

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self._do(name)

    async def free_memory(self) -> None: ...

    async def prepare_stop(self) -> None: ...

    async def save(self) -> None:
        (self._backend.folder / f"saved-{self.name}").touch()

    async def close(self) -> None: ...


def _claim(state: str) -> Claim:
    return Claim(ConnectionStatus(state), proof_age=0.0, raw=state)


open_backend = LoopBackend
