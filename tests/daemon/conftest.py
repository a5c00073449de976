"""A real agent with the process host in a folder of its own, driven over its Unix socket."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.host.process import find_workers
from tests.in_memory import folder_in_memory
from tests.waiting import GrowingLog, alive

# Often, so that a test waits for the fault and not for the clock; other limits are the defaults.
SETTINGS = """\
[agent]
host = "process"

[start]
stagger = 0
login_every = 0
first_check = 0.2

[health]
interval = 3
timeout = 3

[reconnect]
base = 0.2
jitter = 0
"""
REPOSITORY = Path(__file__).parents[2]
PROGRAM = "import sys; from agent.__main__ import main; sys.exit(main())"
STOPS_WITHIN = 60.0
"""It only guards against hanging: the limits of a stop are the settings'."""
LOOKS_OFTEN = "import agent.host.process as host; host.HEAR_EVERY = 0.2"
"""For `RunningAgent.first`: the process host looks at its workers' memory every 1.6 s."""
NOWHERE = "import agent.backends.evolution as it; it.WHATSAPP = it.Address('http://[::1]:9/'); "
"""Before another `RunningAgent.first`: no look at WhatsApp leaves this machine."""


def workers_in(run_dir: Path) -> dict[str, int]:
    """As the process host of the next agent finds them."""
    return dict(find_workers(run_dir))


class AgentClient:
    """The way to talk to an agent, over its Unix socket."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.connections = 32
        """To its socket, at most; a reader that waits holds one."""
        self._client: aiohttp.ClientSession | None = None

    async def forget_client(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        if self._client is None:
            connector = aiohttp.UnixConnector(str(self.state / "api.sock"), limit=self.connections)
            self._client = aiohttp.ClientSession(connector=connector)
        asked = self._client.request(method, f"http://localhost{path}", json=body, headers=headers)
        async with asked as answer:
            text = await answer.text()
            plain = answer.content_type != "application/json"
            return answer.status, text if plain else json.loads(text)

    async def do(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = await self.ask(method, path, body)
        assert status < 300, (method, path, status, answer)
        return answer

    async def create(self, id: str, **settings: Any) -> None:
        settings = {"scan": "auto", "scan_after": 0.05, "messages_per_minute": 0, **settings}
        await self.do(
            "POST", "/api/instance", {"id": id, "engine": "sandbox", "settings": settings}
        )

    async def show(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = await self.do("GET", f"/api/instance/{id}/details")
        return found

    async def status(self, id: str) -> str:
        return str((await self.show(id))["connection_status"])

    async def knows(self, id: str) -> bool:
        return (await self.ask("GET", f"/api/instance/{id}"))[0] == 200

    async def story(self, id: str) -> list[tuple[str, str]]:
        """Kind and sentence, oldest first."""
        found = await self.do("GET", f"/api/instance/{id}/events?limit=500")
        return [(one["kind"], one["sentence"]) for one in reversed(found["events"])]

    async def told(self, id: str, kind: str) -> list[str]:
        return [sentence for its, sentence in await self.story(id) if its == kind]

    async def steps(self, id: str = "a") -> list[str]:
        """Names of the session's repair steps, in order."""
        return [sentence.split(":")[0] for sentence in await self.told(id, "repair")]

    async def unit_state(self, id: str = "a") -> str:
        return str((await self.show(id))["unit"]["state"])

    def session_file(self, id: str = "a") -> Path:
        return self.state / "sessions" / id / "session" / "sandbox.json"

    def device(self, id: str = "a") -> str:
        return str(json.loads(self.session_file(id).read_text())["device"])

    async def codes(self, id: str) -> int:
        """How often it began to show a code; the first may have been too short to be seen."""
        return sum("→ QR_REQUIRED" in sentence for _, sentence in await self.story(id))

    async def fault(self, id: str, name: str, seconds: float | None = None, **how: object) -> None:
        """Also when its worker is on its way down or up at this very moment."""
        path = f"/api/instance/{id}/sandbox/fault"
        body = {"fault": name, **how, **({} if seconds is None else {"for": seconds})}
        with contextlib.suppress(aiohttp.ClientError):
            async with asyncio.timeout(60):
                while True:
                    if (await self.ask("POST", path, body))[0] == 200:
                        return
                    await asyncio.sleep(0.02)


class RunningAgent(AgentClient):
    """One agent process."""

    def __init__(self, state: Path, config: Path) -> None:
        super().__init__(state)
        self.config = config
        self.log = GrowingLog(state.parent / "agent.log")
        self.listen = ""
        """HOST:PORT besides the Unix socket."""
        self.inside: Sequence[str] = ()
        """A command that runs it somewhere else, in a network of its own for one."""
        self.first = ""
        """Python that it runs before all else."""
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, env: Mapping[str, str] | None = None, *, ready: bool = True) -> None:
        words = ("run", "--config", str(self.config), "--state", str(self.state))
        argv = (*words, "--listen", self.listen)
        environment = {**os.environ, **(env or {})}
        with self.log.open("ab") as log:
            program = ("-c", f"{self.first}; {PROGRAM}") if self.first else ("-m", "agent")
            self.process = await asyncio.create_subprocess_exec(
                *(*self.inside, sys.executable, *program, *argv),
                stdout=log,
                stderr=log,
                env=environment,
                umask=0,
            )
        if ready:
            await self.until_ready()

    async def until_ready(self, within: float = 60.0) -> None:
        async with asyncio.timeout(within):
            while True:
                assert self.process is not None
                assert self.process.returncode is None, self.log.read_text()
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    if (await self.ask("GET", "/readyz"))[0] == 200:
                        return
                await asyncio.sleep(0.02)

    async def stop(self, number: signal.Signals = signal.SIGTERM, within: float = 60.0) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(within):
            return await self.process.wait()

    async def kill(self) -> None:
        await self.stop(signal.SIGKILL)

    async def is_back(self, id: str, before: int) -> bool:
        """It is connected, and its worker is not the one with that pid."""
        shown = await self.show(id)
        another = shown["unit"]["main_pid"] not in (0, before)
        return another and shown["connection_status"] == "CONNECTED"

    async def pid(self, id: str) -> int:
        return int((await self.show(id))["unit"]["main_pid"])

    async def running_pid(self, id: str) -> int:
        """Return the worker's pid as soon as there is one: it may be between two runs."""
        async with asyncio.timeout(60):
            while not (pid := await self.pid(id)):  # noqa: ASYNC110 - the host tells nothing
                await asyncio.sleep(0.05)
        return pid

    async def kill_worker(self, id: str) -> None:
        """Kill the worker; or the next one, if the pid shown is of one that has just ended."""
        async with asyncio.timeout(60):
            while True:
                try:
                    return os.kill(await self.running_pid(id), signal.SIGKILL)
                except ProcessLookupError:
                    await asyncio.sleep(0.05)

    def worker_pids(self) -> list[int]:
        return [pid for folder in self.state.glob("run*") for pid in workers_in(folder).values()]

    async def close(self) -> None:
        """End everything that this agent started, by pid. One that does not stop fails its test."""
        await self.forget_client()
        hung = False
        if self.process is not None and self.process.returncode is None:
            try:
                await self.stop(within=STOPS_WITHIN)
            except TimeoutError:
                hung = True
                await self.kill()
        for pid in self.worker_pids():
            with contextlib.suppress(OSError):  # it ends by itself at this very moment
                if alive(pid) and b"agent" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
        assert not hung, f"no stop within {STOPS_WITHIN} s:\n{self.log.read_text()}"


HUNG = "does not answer within 3 s"


async def cli(agent: AgentClient, *words: object, hangs: bool = False) -> tuple[int | None, str]:
    """The program's exit status, and what it said. Typed again where a machine that paused made an
    agent look hung, unless it `hangs`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", *map(str, words)),
        *("--socket", str(agent.state / "api.sock")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=REPOSITORY,
    )
    said = (await process.communicate())[0].decode()
    if HUNG in said and not hangs:
        return await cli(agent, *words)
    return process.returncode, said


async def done(agent: AgentClient, *words: object) -> str:
    """Return what the command printed; it must succeed."""
    status, said = await cli(agent, *words)
    assert status == 0, said
    return said


@pytest.fixture
async def make_agent() -> AsyncIterator[Callable[..., RunningAgent]]:
    """In memory: what other tests write to the disk holds up no agent's fsync."""
    made: list[RunningAgent] = []

    def make(settings: str = "", name: str = "state", base: str = SETTINGS) -> RunningAgent:
        config = home / f"{name}.toml"
        config.write_text(base + settings)
        made.append(RunningAgent(home / name, config))
        return made[-1]

    with folder_in_memory() as home:
        yield make
        async with contextlib.AsyncExitStack() as stack:
            for one in reversed(made):
                stack.callback(lambda log=one.log: print(log.read_text() if log.exists() else ""))
                stack.push_async_callback(one.close)


@pytest.fixture
async def agent(make_agent: Callable[..., RunningAgent]) -> RunningAgent:
    one = make_agent()
    await one.start()
    return one
