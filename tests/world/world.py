"""A machine with one agent, as composed for production, and the way to talk to it."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from agent.config.config import Config
from agent.config.load import load_config
from agent.core.model import InstanceId
from agent.daemon.main import Daemon, Signals
from agent.daemon.state_folder import StateMark, read_mark
from agent.files import VARIABLE
from agent.host import units
from agent.worker.pack import Run, context_of
from tests.daemon.conftest import AgentClient
from tests.world.host import LoopHost, Machine
from tests.world.virtual import kill


class _Asked(Signals):
    """A stop is asked for by the test; the signals of this process are pytest's."""

    def listen(self) -> None: ...

    def ignore(self) -> None: ...


class WorldAgent(AgentClient):
    def __init__(self, state: Path, config: Path) -> None:
        super().__init__(state)
        self.config = config
        self.move_to(state)
        self._signals = _Asked()
        self._run: Run | None = None
        self._life: asyncio.Task[int] | None = None

    def move_to(self, state: Path) -> None:
        self.state = state
        self.machine = Machine(state / "sessions", state / "links")
        self.others = Machine(state / "none", state / "links-of-none")

    async def start(self, failpoint: str = "") -> None:
        if failpoint:
            os.environ[VARIABLE] = failpoint
        more = {"agent.state_path": str(self.state), "api.listen": ""}
        config = load_config(self.config, {}, overrides=more)
        daemon = Daemon(config, self.config, more, self._open_host)
        daemon._signals = self._signals = _Asked()
        self.machine.power_on()
        self._run = Run(InstanceId("agent"))
        loop, context = asyncio.get_running_loop(), context_of(self._run)
        mark = read_mark(self.state) or StateMark("world", 0)
        self._life = loop.create_task(daemon.run(mark), name="agent", context=context)
        while True:
            assert not self._life.done(), self._life
            with contextlib.suppress(aiohttp.ClientError, OSError):
                if (await self.ask("GET", "/readyz"))[0] == 200:
                    return
            await asyncio.sleep(0.1)

    async def _open_host(
        self, _choice: str, _config: Config, wake: Any, kind: units.Kind = units.INSTANCES
    ) -> LoopHost:
        machine = self.machine if kind is units.INSTANCES else self.others
        machine.wake = wake
        return LoopHost(machine)

    def reload(self, text: str | None = None) -> None:
        """With these settings."""
        if text is not None:
            self.config.write_text(text)
        self._signals.reload.set()

    async def stop(self) -> int:
        assert self._life is not None
        self._signals.stop.set()
        await self.forget_client()
        return await self._life

    async def kill(self) -> None:
        """As by SIGKILL: nothing is saved or closed in order, and no task of it goes on."""
        assert self._life is not None
        assert self._run is not None
        kill(self._run)
        await self.dead()

    async def dies(self, doing: Awaitable[object]) -> None:
        """It is killed in the middle of what was asked; its workers live on."""
        with contextlib.suppress(aiohttp.ClientError, OSError):
            await doing
        await self.dead()

    async def dead(self) -> None:
        """Return when it was killed."""
        assert self._life is not None
        assert self._run is not None
        await asyncio.wait({self._life})
        assert getattr(self._run, "killed", False), self._life
        while self._run.tasks:
            for task in list(self._run.tasks):
                task.cancel()
            await asyncio.wait(set(self._run.tasks))
        await self.forget_client()
        os.environ.pop(VARIABLE, None)

    def lose_database(self) -> None:
        for part in self.state.glob("agent.db*"):
            part.unlink()

    async def run_of(self, id: str) -> str:
        return str((await self.show(id))["unit"]["run"])

    async def hold(self, id: str) -> str:
        """Why it waits."""
        return str((await self.show(id))["wait_reason"])

    async def is_back(self, id: str, before: str) -> bool:
        """It is connected, in another run of its worker."""
        shown = await self.show(id)
        return shown["unit"]["run"] != before and shown["connection_status"] == "CONNECTED"

    async def kill_worker(self, id: str, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Do something between the end of this run and the next one's beginning."""
        await self.machine.kill(InstanceId(id))
        meanwhile()

    async def close(self) -> None:
        if self._life is not None and not self._life.done():
            await self.stop()
        await self.forget_client()
        await self.machine.end()
