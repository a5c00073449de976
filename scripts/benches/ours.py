"""The agent on the process host, as it is installed: its own program, its API, its settings."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp

from agent.core.model import InstanceId
from agent.host.process import find_workers
from scripts.benches.machine import TOP
from scripts.benches.processes import gone, launch
from scripts.benches.report import OURS
from scripts.benches.site import SETTINGS, Site
from tests.ports import free_port

WITHIN = 120.0
AT_ONCE = 30
"""Connections of ours to the API: an address may have 64."""


@dataclass(slots=True)
class Agent:
    """`worker`: what its [worker] table says differently; `tuned`: it starts all at once, as the
    other systems do. Otherwise [start] is as installed."""

    site: Site
    worker: Mapping[str, object] = field(default_factory=dict)
    tuned: bool = True
    settings: Mapping[str, object] = field(default_factory=lambda: SETTINGS)
    """Settings of each session that a client creates."""
    tree: Path = TOP
    """The checkout whose program it is."""
    python: Path = Path(sys.executable)
    """Python of that checkout's environment."""
    name: str = OURS
    version: str = version("wa-agent")
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    async def begin(self) -> None:
        program = self.python.parent / "wa-agent"
        listen = f"127.0.0.1:{self.port}"
        command: list[str | Path] = [program, "run", "--config", self._settings()]
        command += ["--state", self.state, "--listen", listen]
        env = {**self.site.environment(self.tree), "SESSION_STORAGE_PATH": str(self.site.sessions)}
        # As its unit says.
        env |= {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "131072"}
        self.process = launch(command, env, self.site.place, "agent.log")

    def _settings(self) -> Path:
        file = self.site.place / "agent.toml"
        worker = "".join(f"{key} = {json.dumps(value)}\n" for key, value in self.worker.items())
        start = "[start]\nstagger = 0\nlogin_every = 0\n"
        start += f"parallel = {len(self.site.ids)}\n\n"
        file.write_text(
            '[agent]\nhost = "process"\n\n[api]\ntrust_loopback = true\n\n'
            f"{start if self.tuned else ''}[memory]\ntotal = 0\n\n"
            f"[worker]\n{worker}",
            encoding="utf-8",
        )
        return file

    async def end(self) -> None:
        assert self.process is not None
        workers = list(self.workers().values())
        self.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self.process.wait, WITHIN)
        await gone(workers, WITHIN)
        self.process = None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def check_alive(self) -> None:
        if self.process is None or self.process.poll() is not None:
            log = (self.site.place / "agent.log").read_text(encoding="utf-8")
            raise RuntimeError(f"cannot measure the agent: it ended by itself\n{log[-3000:]}")

    @property
    def state(self) -> Path:
        return self.site.place / "state"

    @property
    def agent_pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def own_pids(self) -> Sequence[int]:
        return [self.agent_pid]

    def workers(self) -> dict[InstanceId, int]:
        return dict(find_workers(self.state / "run"))

    def link_path(self, id: InstanceId) -> Path:
        return self.state / "run" / id / "link.sock"


class Client:
    """The API over the agent's Unix socket; /metrics over TCP as a Prometheus asks for it."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        connector = aiohttp.UnixConnector(str(agent.state / "api.sock"), limit=AT_ONCE)
        self._socket = aiohttp.ClientSession("http://localhost", connector=connector)
        self._tcp = aiohttp.ClientSession(f"http://127.0.0.1:{agent.port}")

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._socket.close()
        await self._tcp.close()

    async def create_all(self) -> None:
        async def create(id: InstanceId) -> None:
            body = {"id": id, "engine": "sandbox", "settings": self._agent.settings}
            async with self._socket.post("/api/instance", json=body) as answer:
                answer.raise_for_status()

        await asyncio.gather(*(create(id) for id in self._agent.site.ids))

    async def get(self, path: str) -> dict[str, Any]:
        async with self._socket.get(path) as answer:
            answer.raise_for_status()
            found: dict[str, Any] = await answer.json()
            return found

    async def answers(self) -> None:
        """Wait until the API answers at all."""
        async with asyncio.timeout(WITHIN):
            while True:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    await self.get("/healthz")
                    return
                self._agent.check_alive()
                await asyncio.sleep(0.01)

    async def all_connected(self) -> None:
        """Wait until the agent itself says so, having looked at and linked to each of them."""
        wanted = len(self._agent.site.ids)
        async with asyncio.timeout(WITHIN):
            while True:
                found = await self.get("/api/health")
                # A new agent shows what was recorded until it has looked by itself.
                connected = found["instances"]["by_status"].get("CONNECTED", 0)
                done = found["agent"]["ready"] and connected == wanted
                system = (await self.get("/performance-metrics"))["system"]
                if done and system["activeConnections"] >= wanted:
                    return
                self._agent.check_alive()
                await asyncio.sleep(0.1)  # more often, the questions would be a load of their own

    async def connected_again(self, id: InstanceId, old_pid: int) -> None:
        async with asyncio.timeout(WITHIN):
            while True:
                found = await self.get(f"/api/instance/{id}/details")
                new = found["unit"]["main_pid"] not in (0, old_pid)
                if new and found["linked"] and found["connection_status"] == "CONNECTED":
                    return
                await asyncio.sleep(0.005)

    async def losses(self) -> int:
        """Connections regained and workers restarted so far, over all instances."""
        total, offset = 0, ""
        while True:
            found = await self.get(f"/api/instances?limit=100{offset}")
            total += sum(int(one["restarts"] + one["reconnects"]) for one in found["instances"])
            if not found.get("next"):
                return total
            offset = f"&after={found['next']}"

    async def scrape(self) -> str:
        async with self._tcp.get("/metrics") as answer:
            answer.raise_for_status()
            return await answer.text()
