"""The client's process: started without blocking, spoken to in JSON lines, ended as a whole.

It reads commands from its descriptor 3 and writes events to its descriptor 4. It ends with its
worker: at the end of the command pipe, and the kernel kills one that hangs.
"""

import asyncio
import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path

from agent.engines.baileys.conversation import LONGEST_LINE, Conversation, OnEnd, OnEvent
from agent.engines.baileys.node import ENVIRONMENT, FLAGS
from agent.errors import EngineError

START = 20.0
"""Seconds until a new client must be ready."""
MAIN = Path(__file__).parent / "client" / "main.mjs"
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Client(Conversation):
    hangs_after = 10.0
    """Seconds without a line of a client that was asked for one: its loop stands still."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        commands: asyncio.StreamWriter,
        on_event: OnEvent,
    ) -> None:
        super().__init__(commands, on_event)
        self.pid = process.pid
        self._process = process
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls, node: Path, packages: Path, on_event: OnEvent, on_end: OnEnd, *flags: str
    ) -> "Client":
        """`on_end` is called with the cause when the client ended, unless `close` or `kill` ended
        it. `flags`: more of Node's."""
        theirs, commands = os.pipe()
        events, written = os.pipe()
        line = [str(node), *FLAGS, *flags, str(MAIN), str(theirs), str(written), str(packages)]
        try:
            process = await asyncio.create_subprocess_exec(
                *line,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs, written),
                env=_environment(),
                preexec_fn=_die_with_parent,
            )
        except OSError as error:
            os.close(commands)
            os.close(events)
            why = f"cannot start {node}: {error.strerror}"
            raise EngineError(why, code="node_failed") from error
        finally:
            os.close(theirs)
            os.close(written)
        client = cls(process, await _writer(commands), on_event)
        client._reading = asyncio.create_task(client._read(events, on_end), name="client")
        try:
            async with asyncio.timeout(START):
                await asyncio.shield(client.ready)
        except TimeoutError as error:
            await client.kill()
            why = f"cannot start the client: it was not ready within {START:.0f} s"
            raise EngineError(why, code="node_failed") from error
        except BaseException:
            await client.kill()  # a cancelled caller leaves no process
            raise
        return client

    async def close(self, within: float = 5.0) -> None:
        """End it in order; the caller has saved before."""
        self.end("it was closed")
        if self._process.returncode is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._process.wait()
        await self.kill()

    async def kill(self, why: str = "it was killed") -> None:
        self.end(why)
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self._reading is not None and self._reading is not asyncio.current_task():
            self._reading.cancel()
            await asyncio.wait({self._reading})

    async def _read(self, events: int, on_end: OnEnd) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=LONGEST_LINE)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(events, "rb", 0)
        )
        try:
            why = await self.read(reader)
        finally:
            transport.close()
        if not why:
            status = await self._process.wait()
            why = self.fatal or _how_ended(status)
        if self.end(why):
            if self._process.returncode is None:
                self._process.kill()
            if not self.ready.done():
                self.ready.set_exception(
                    EngineError(f"cannot start the client: {why}", code="node_failed")
                )
                return
            on_end(why)


async def _writer(fd: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), os.fdopen(fd, "wb", 0)
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)


def _how_ended(status: int) -> str:
    if status < 0:
        return f"it was ended by {signal.Signals(-status).name}"
    return f"it ended with status {status}"


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _environment() -> dict[str, str]:
    """No bus, no notify socket, no settings of the agent."""
    kept = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")
    return {name: os.environ[name] for name in kept if name in os.environ} | ENVIRONMENT
