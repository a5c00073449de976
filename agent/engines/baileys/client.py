"""The client's process: started without blocking, spoken to in JSON lines, ended as a whole.

It reads commands from its descriptor 3 and writes events to its descriptor 4. It ends with its
worker: the end of the command pipe is the end of the client, and the kernel kills one that hangs.
"""

import asyncio
import ctypes
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.engines.baileys.node import ENVIRONMENT, FLAGS
from agent.errors import EngineError

log = logging.getLogger(__name__)

START = 20.0
"""Seconds until a new client must be ready."""
LONGEST_LINE = 256 << 10
MOST_GARBAGE = 3
"""So many lines that are no JSON object end a client."""
MOST_LINES, LINES_WITHIN = 50_000, 10.0
"""So many lines within so many seconds are a flood, which ends a client."""
AT_ONCE = 100
"""So many lines are read before the worker's other tasks have their turn."""
MAIN = Path(__file__).parent / "client" / "main.mjs"
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

OnEvent = Callable[[Mapping[str, Any]], None]
OnEnd = Callable[[str], None]


class Client:
    """A running Node; `ended` says in words why it does no more."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        commands: asyncio.StreamWriter,
        on_event: OnEvent,
    ) -> None:
        self.pid = process.pid
        self.ended = ""
        self.heard_at = time.monotonic()
        """When it last wrote a line: its loop turned then."""
        self._process = process
        self._commands = commands
        self._on_event = on_event
        self._answers: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._next = 0
        self._garbage = 0
        self._lines, self._counted_from = 0, self.heard_at
        self._fatal = ""
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, node: Path, packages: Path, on_event: OnEvent, on_end: OnEnd) -> "Client":
        """`on_end` hears why the client ended, unless `close` or `kill` ended it."""
        theirs, commands = os.pipe()
        events, written = os.pipe()
        line = [str(node), *FLAGS, str(MAIN), str(theirs), str(written), str(packages)]
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
            raise EngineError(
                f"cannot start {node}: {error.strerror}", code="node_failed"
            ) from error
        finally:
            os.close(theirs)
            os.close(written)
        client = cls(process, await _writer(commands), on_event)
        client._reading = asyncio.create_task(client._read(events, on_end), name="client")
        try:
            async with asyncio.timeout(START):
                await asyncio.shield(client._ready)
        except TimeoutError as error:
            await client.kill()
            raise EngineError(
                f"cannot start the client: it was not ready within {START:.0f} s",
                code="node_failed",
            ) from error
        except BaseException:
            await client.kill()  # a caller that gave up leaves no process behind
            raise
        return client

    @property
    def alive(self) -> bool:
        return not self.ended

    async def call(self, do: str, within: float, **more: Any) -> Mapping[str, Any]:
        """EngineError `timeout` where the client's loop did not answer in time."""
        if self.ended:
            raise EngineError(f"cannot {do}: the client ended: {self.ended}", code="not_ready")
        self._next += 1
        number = self._next
        answer: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        line = json.dumps({"id": number, "do": do, **more}).encode() + b"\n"
        try:
            async with asyncio.timeout(within):
                # One buffer for all callers: lines never mix, whoever gives up meanwhile.
                self._commands.write(line)
                await self._commands.drain()
                return await answer
        except TimeoutError as error:
            raise EngineError(
                f"cannot {do}: the client did not answer within {within:g} s", code="timeout"
            ) from error
        except OSError as error:
            raise EngineError(f"cannot {do}: the client is gone", code="not_ready") from error
        finally:
            self._answers.pop(number, None)

    async def close(self, within: float = 5.0) -> None:
        """End it in order: what it was to write is on the disk before (the caller saved)."""
        self._end("it was closed")
        if self._process.returncode is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._process.wait()
        await self.kill()

    async def kill(self, why: str = "it was killed") -> None:
        self._end(why)
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self._reading is not None and self._reading is not asyncio.current_task():
            self._reading.cancel()
            await asyncio.wait({self._reading})

    def _end(self, why: str) -> bool:
        """True the first time."""
        if self.ended:
            return False
        self.ended = why
        self._commands.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(EngineError(f"the client ended: {why}", code="not_ready"))
        return True

    async def _read(self, events: int, on_end: OnEnd) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=LONGEST_LINE)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(events, "rb", 0)
        )
        why = ""
        try:
            while not why:
                try:
                    line = await reader.readline()
                except ValueError:
                    why = f"it sent a line of more than {LONGEST_LINE} bytes"
                    break
                if not line:
                    break
                self.heard_at = time.monotonic()
                why = self._count() or self._take(line)
                if self._lines % AT_ONCE == 0:
                    await asyncio.sleep(0)
        except Exception as error:
            log.exception("an event of the client cannot be used")
            why = f"the worker could not use an event of it ({type(error).__name__})"
        finally:
            transport.close()
        if not why:
            status = await self._process.wait()
            why = self._fatal or _how_ended(status)
        if self._end(why):
            if self._process.returncode is None:
                self._process.kill()
            if not self._ready.done():
                self._ready.set_exception(
                    EngineError(f"cannot start the client: {why}", code="node_failed")
                )
                return
            on_end(why)

    def _count(self) -> str:
        if self.heard_at - self._counted_from > LINES_WITHIN:
            self._lines, self._counted_from = 0, self.heard_at
        self._lines += 1
        if self._lines <= MOST_LINES:
            return ""
        return f"it sent more than {MOST_LINES} lines within {LINES_WITHIN:.0f} s"

    def _take(self, line: bytes) -> str:
        """Why the client must end; "" where all is well."""
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            self._garbage += 1
            few = self._garbage < MOST_GARBAGE
            return "" if few else f"it sent {self._garbage} lines that are no JSON objects"
        if "answer" in event:
            self._take_answer(event)
        elif event.get("event") == "ready":
            if not self._ready.done():
                self._ready.set_result(None)
        elif event.get("event") == "fatal":
            self._fatal = f"{event.get('name')} {event.get('code') or ''}".strip()
            log.error("the client failed with %s%s", self._fatal, f"\n{event.get('stack', '')}")
        else:
            self._on_event(event)
        return ""

    def _take_answer(self, event: Mapping[str, Any]) -> None:
        number = event["answer"]
        answer = self._answers.get(number) if isinstance(number, int) else None
        if answer is None or answer.done():
            return
        error = event.get("error")
        if isinstance(error, dict):
            words, code = str(error.get("message", "")), str(error.get("code", "engine"))
            answer.set_exception(EngineError(words[:300], code=code[:40]))
            return
        ok = event.get("ok")
        answer.set_result(ok if isinstance(ok, dict) else {})


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
    """No bus, no notify socket, no settings of ours."""
    kept = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")
    return {name: os.environ[name] for name in kept if name in os.environ} | ENVIRONMENT
