"""Runs a fleet of agents on this machine to look at: one PostgreSQL, N agents, some sessions.

  scripts/run --fleet 3

Ctrl+C ends all in order; the next run goes on with the same fleet. What is killed is started
again after half a minute.
"""

import argparse
import asyncio
import contextlib
import os
import secrets
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from agent.errors import WaError
from agent.link.sockets import short_path
from scripts.trial.cluster import Cluster

TTL = 12.0
AGAIN_AFTER = 30.0
SESSIONS_EACH = 2
UP_WITHIN, ENDS_WITHIN = 60.0, 60.0
SETTINGS = """\
# A machine of the fleet that scripts/run --fleet made.
[agent]
host = "process"

[api]
trust_loopback = true

[start]
stagger = 0

[fleet]
name = "{name}"
database = "{database}"
database_password_file = "{password}"
key_file = "{key}"
listen = "127.0.0.1:{port}"
ttl = {ttl:g}
margin = 3
"""


@dataclass(slots=True)
class Machine:
    name: str
    folder: Path
    listen: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "state/api.sock"

    def start(self) -> None:
        program = Path(sys.executable).parent / "wa-agent"
        told = ("--config", self.folder / "agent.toml", "--state", self.folder / "state")
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, "run", *told, "--listen", self.listen],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl+C is passed on in order
            )

    async def ask(self, verb: str, path: str, body: Any = None) -> tuple[int, Any]:
        with short_path(self.socket) as name:
            connector = aiohttp.UnixConnector(name)
            async with (
                aiohttp.ClientSession("http://localhost", connector=connector) as client,
                client.request(verb, path, json=body) as answer,
            ):
                return answer.status, await answer.json()

    async def create(self, id: str) -> None:
        """A machine that has just begun takes no session yet."""
        status, said = 503, None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UP_WITHIN):
                while status == 503:
                    body = {"id": id, "engine": "sandbox"}
                    status, said = await self.ask("POST", "/api/instance", body)
                    await asyncio.sleep(0.2 if status == 503 else 0)
        if status >= 300:
            raise WaError(f"cannot create {id}: {said}")

    async def until_ready(self) -> None:
        cause = ""
        try:
            async with asyncio.timeout(UP_WITHIN):
                while True:
                    if self.process is not None and self.process.poll() is not None:
                        raise WaError(f"{self.name} ended: look at {self.folder}/agent.log")
                    try:
                        status, said = await self.ask("GET", "/readyz")
                        if status == 200:
                            return
                        cause = str(said)
                    except (aiohttp.ClientError, OSError) as error:
                        cause = str(error)
                    await asyncio.sleep(0.1)
        except TimeoutError:
            log = self.folder / "agent.log"
            sentence = f"{self.name} is not ready after {UP_WITHIN:g} s ({cause}): look at {log}"
            raise WaError(sentence) from None


class Trial:
    """The processes of one fleet, and keeping them."""

    def __init__(self, folder: Path, machines: int, host: str, port: int) -> None:
        self._folder, self._host = folder, host
        self.cluster = Cluster(folder / "postgres", port + 20)
        self.machines = [
            Machine(f"m{n + 1}", folder / f"m{n + 1}", f"{host}:{port + n}")
            for n in range(machines)
        ]
        self._lay_out(port)

    def _lay_out(self, port: int) -> None:
        key = self._folder / "fleet.key"
        if not key.exists():
            key.touch(0o600)
            key.write_bytes(secrets.token_bytes(32))
        for number, machine in enumerate(self.machines):
            machine.folder.mkdir(mode=0o700, exist_ok=True)
            settings = SETTINGS.format(
                name=machine.name,
                database=self.cluster.address,
                password=self.cluster.password_file,
                key=key,
                port=port + 10 + number,
                ttl=TTL,
            )
            (machine.folder / "agent.toml").write_text(settings)

    async def run(self) -> None:
        self.cluster.start()
        try:
            await self.cluster.until_ready()
            for machine in self.machines:
                machine.start()
            await asyncio.gather(*(machine.until_ready() for machine in self.machines))
            await self._make_sessions()
            self._greet()
            await asyncio.gather(
                self._keep("PostgreSQL", self.cluster),
                *(self._keep(machine.name, machine) for machine in self.machines),
            )
        finally:
            await asyncio.shield(self._end())

    async def _make_sessions(self) -> None:
        first = self.machines[0]
        if (await first.ask("GET", "/api/instances?limit=1"))[1]["total"]:
            return
        for number in range(SESSIONS_EACH * len(self.machines)):
            await first.create(f"shop-{number + 1}")

    def _greet(self) -> None:
        last = self.machines[-1]
        for machine in self.machines:
            assert machine.process is not None
            print(f"{machine.name}:  http://{machine.listen}/   agent {machine.process.pid}")
        assert last.process is not None and self.cluster.process is not None
        agent, database = last.process.pid, self.cluster.process.pid
        socket, programs = self.machines[0].socket, Path(sys.executable).parent
        print(
            f"Before:     export WA_AGENT_SOCKET={shlex.quote(str(socket))}"
            f" PATH={shlex.quote(str(programs))}:$PATH\n"
            "Watch:      watch -n 1 'wa-agent fleet status; wa-agent list'\n"
            f"Kill:       kill -9 {agent}      {TTL:g} s later its sessions run elsewhere\n"
            f"Freeze:     kill -STOP {agent}   the same; kill -CONT {agent}: it has lost them\n"
            f"Database:   kill -9 {database}      every session goes on\n"
            f"Move:       wa-agent fleet move shop-1 --to {last.name}\n"
            "Stop:       Ctrl+C",
            flush=True,
        )

    async def _keep(self, name: str, kept: "Machine | Cluster") -> None:
        """Start it again a while after it was killed, as a machine that boots."""
        while True:
            process = kept.process
            assert process is not None
            while process.poll() is None:  # noqa: ASYNC110 - a child that only a look can tell of
                await asyncio.sleep(0.5)
            print(f"{name} ended; it is started again in {AGAIN_AFTER:g} s", flush=True)
            await asyncio.sleep(AGAIN_AFTER)
            kept.start()
            assert kept.process is not None
            print(f"{name} runs again, as {kept.process.pid}", flush=True)

    async def _end(self) -> None:
        """Agents first: they end their sessions and say so in the database."""
        await asyncio.gather(*(_end(it.process, signal.SIGTERM) for it in self.machines))
        await _end(self.cluster.process, signal.SIGINT)
        print(f"The fleet stays in {self._folder}; the next run goes on with it.", flush=True)


async def _end(process: "subprocess.Popen[bytes] | None", number: signal.Signals) -> None:
    if process is None or process.poll() is not None:
        return
    process.send_signal(signal.SIGCONT)
    process.send_signal(number)
    try:
        await asyncio.to_thread(process.wait, ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        await asyncio.to_thread(process.wait)


async def _until_a_signal(trial: Trial) -> None:
    running = asyncio.create_task(trial.run(), name="fleet")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/run --fleet N",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("machines", type=int, choices=range(1, 10), help="number of machines")
    parser.add_argument("--state", type=Path, required=True, help="folder of the fleet")
    parser.add_argument("--listen", required=True, help="address of the first dashboard")
    options = parser.parse_args(argv)
    host, _, port = options.listen.rpartition(":")
    os.umask(0o077)
    folder = options.state.absolute() / "fleet"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(_until_a_signal(Trial(folder, options.machines, host, int(port))))
    except WaError as error:
        print(f"scripts/run: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
