"""One machine of a fleet of real agents: its processes are killed, frozen and let go at once."""

import asyncio
import math
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from agent.errors import TryLater
from tests.daemon.conftest import RunningAgent

TTL, MARGIN = 6.0, 2.0
ANSWERS_WITHIN, SETTLES_WITHIN = 20.0, 30.0
PASSING = ("fleet_database", "not_owner")
"""Errors of a moment: the database was slow, or a session changes its machine right now."""
TRIES = 5
MARK = "WA_TESTS_MACHINE"
"""In the environment of all that a machine's agent started: pids are given again soon."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """Processes of one machine that stood still, from when to when."""

    pids: frozenset[int]
    begun: float
    ended: float = math.inf


class FleetAgent(RunningAgent):
    """One machine of the fleet: an agent with its own folders, and all its processes."""

    def __init__(self, name: str, place: Path, config: Path, inside: Sequence[str]) -> None:
        super().__init__(place / "state", config)
        self.name, self.inside = name, inside
        self.env: dict[str, str] = {}
        self._stopped: dict[int, psutil.Process] = {}
        self.frozen: list[Frozen] = []

    async def start(self, env: Mapping[str, str] | None = None, *, ready: bool = True) -> None:
        """As its unit does, again where the database was too slow for its sessions to join."""
        for _ in range(TRIES):
            await super().start({**(env or {}), MARK: str(self.state)}, ready=False)
            if not ready or await self._is_ready():
                return
        raise AssertionError(self.log.read_text())

    async def _is_ready(self) -> bool:
        try:
            await self.until_ready()
        except AssertionError:
            if self.process is None or self.process.returncode != TryLater.exit_status:
                raise
            return False
        return True

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.returncode is None

    def processes(self) -> list[psutil.Process]:
        """All that this machine's agent started, and itself; its workers also where it is gone."""
        found: dict[int, psutil.Process] = {}
        for one in psutil.process_iter():
            with suppress(psutil.Error, OSError):  # it ends while it is looked at
                ours = self.process is not None and one.pid == self.process.pid
                if ours or one.environ().get(MARK) == str(self.state):
                    found.update({it.pid: it for it in (one, *one.children(recursive=True))})
        return list(found.values())

    async def lose_power(self) -> None:
        """All processes of this machine are gone at once."""
        assert self.process is not None
        while processes := self.processes():
            for one in processes:
                _signal(one, signal.SIGKILL)
            async with asyncio.timeout(ANSWERS_WITHIN):
                await self.process.wait()
            _, left = await asyncio.to_thread(psutil.wait_procs, processes, timeout=20)
            assert not left, f"killed, and not gone: {left}"

    def freeze(self, pids: Sequence[int] | None = None) -> None:
        """Stop these, or all that the machine runs, as a hypervisor that pauses it."""
        begun = time.time()
        # Until none is new: one that was not stopped yet may have started another one.
        while found := [
            it
            for it in self.processes()
            if it.pid not in self._stopped and (pids is None or it.pid in pids)
        ]:
            for one in found:
                _signal(one, signal.SIGSTOP)
            self._stopped.update({it.pid: it for it in found})
            self.frozen.append(Frozen(frozenset(it.pid for it in found), begun))

    def thaw(self) -> None:
        """Let go all that was stopped, however often."""
        now = time.time()
        self.frozen = [replace(it, ended=min(it.ended, now)) for it in self.frozen]
        for one in self._stopped.values():
            _signal(one, signal.SIGCONT)
        self._stopped = {}

    async def has_just_renewed(self) -> bool:
        """Its workers have nearly the whole lease."""
        ttl = float(self.env.get("WA_AGENT_FLEET__TTL", TTL))
        return bool((await self.fleet())["lease"]["seconds_left"] > ttl - MARGIN - 1.0)

    async def boot(self) -> None:
        await self.start(self.env)

    async def answer(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """As `ask`, and again while the answer is that of a passing moment."""
        deadline = time.monotonic() + SETTLES_WITHIN
        while True:
            status, said = await self.ask(method, path, body)
            passing = status == 503 and isinstance(said, dict) and said.get("error") in PASSING
            if not passing or time.monotonic() > deadline:
                return status, said
            await asyncio.sleep(0.1)

    async def do(self, method: str, path: str, body: Any = None) -> Any:
        status, said = await self.answer(method, path, body)
        assert status < 300, (method, path, status, said)
        return said

    async def status(self, id: str) -> str:
        """As its own machine says; "" while its files are on their way to that one."""
        status, shown = await self.answer("GET", f"/api/instance/{id}/details")
        if status == 503 and shown["error"] == "owner_away":
            return ""
        assert status < 300, (id, status, shown)
        # What another machine published last is shown until then.
        return "" if shown.get("owner_away") else str(shown["connection_status"])

    async def fleet(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = await self.do("GET", "/api/fleet")
        return found

    async def close(self) -> None:
        self.thaw()
        await super().close()


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
