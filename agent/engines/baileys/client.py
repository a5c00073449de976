"""The client's process: started without blocking, ended as a whole; spoken to in JSON lines: calls
with deadlines out, answers and events in.

It reads commands from its descriptor 3 and writes events to its descriptor 4. It ends with its
worker: at the end of the command pipe, and the kernel kills one that hangs.
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

from agent.errors import EngineError

log = logging.getLogger(__name__)

LONGEST_LINE = 1 << 20
"""Bytes of a line. One with records has up to 768 KiB."""
MOST_GARBAGE = 3
"""Lines that are no JSON object after which a client is ended."""
MOST_LINES, LINES_WITHIN = 50_000, 10.0
"""Lines within these seconds after which a client is ended: it floods the worker."""
AT_ONCE = 100
"""Lines read before the worker's other tasks have their turn."""

INTERRUPTED = "interrupted"

OnEvent = Callable[[Mapping[str, Any]], None]
OnEnd = Callable[[str], None]


class Conversation:
    """The worker's end of the conversation; `ended` says why the client stopped."""

    owns_pipe = True
    """False if other conversations use the pipe as well, which outlives this one."""
    hangs_after = 10.0
    """Seconds without an asked line after which the client's loop stands still."""

    def __init__(self, commands: asyncio.StreamWriter, on_event: OnEvent) -> None:
        self.ended = ""
        self.heard_at = time.monotonic()
        """Monotonic time of the client's last line: its loop turned then."""
        self.fatal = ""
        """Last words of the client before it ends by itself."""
        self.ready: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self.commands = commands
        self._on_event = on_event
        self._answers: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._next = 0
        self._asked_at: float | None = None
        self._garbage = 0
        self._lines, self._counted_from = 0, self.heard_at
        self.most_lines = MOST_LINES

    @property
    def alive(self) -> bool:
        return not self.ended

    async def call(self, do: str, within: float, **more: Any) -> Mapping[str, Any]:
        """EngineError `timeout` where the client's loop did not answer in time, `interrupted` where
        the client ended meanwhile: it may have done it. Any other is the client's own refusal."""
        if self.ended:
            raise EngineError(f"cannot {do}: the client ended: {self.ended}", code="not_ready")
        self._next += 1
        number = self._next
        answer: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        line = json.dumps({"id": number, "do": do, **more}).encode() + b"\n"
        try:
            async with asyncio.timeout(within):
                # One buffer for all callers: lines never mix, even when a caller is cancelled.
                self.commands.write(line)
                await self.commands.drain()
                return await answer
        except TimeoutError as error:
            why = f"cannot {do}: the client did not answer within {within:g} s"
            raise EngineError(why, code="timeout") from error
        except OSError as error:
            raise EngineError(f"cannot {do}: the client is gone", code=INTERRUPTED) from error
        finally:
            self._answers.pop(number, None)

    async def look(self, limit: float, *, ask: bool) -> Mapping[str, Any]:
        """Return the client's answer to a probe."""
        if self._asked_at is None or self.heard_at > self._asked_at:
            self._asked_at = time.monotonic()
        answer = await self.call("look", limit, ask=ask, seconds=limit * 0.8)
        self._asked_at = None
        return answer

    def hangs(self, error: EngineError) -> str:
        """Why to kill it after this error of `look`; "" = there is no cause: one late answer on a
        busy machine is none."""
        silent = time.monotonic() - max(self._asked_at or 0.0, self.heard_at)
        late = error.code == "timeout" and silent >= self.hangs_after
        return f"its loop did not answer within {silent:.0f} s; it was killed" if late else ""

    def end(self, why: str) -> bool:
        """End the conversation; True the first time."""
        if self.ended:
            return False
        self.ended = why
        if self.owns_pipe:
            self.commands.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(EngineError(f"the client ended: {why}", code=INTERRUPTED))
        return True

    async def read(self, reader: asyncio.StreamReader) -> str:
        """Read the client's lines; return why it must end, "" = it wrote its last line."""
        try:
            while True:
                try:
                    line = await reader.readline()
                except ValueError:
                    return f"it sent a line of more than {LONGEST_LINE} bytes"
                if not line:
                    return ""
                self.heard_at = time.monotonic()
                if why := self._count() or self._take(line):
                    return why
                if self._lines % AT_ONCE == 0:
                    await asyncio.sleep(0)
        except ConnectionError:
            return ""  # it ended with something unread in its socket
        except Exception as error:
            log.exception("an event of the client cannot be used")
            return f"the worker could not use an event of it ({type(error).__name__})"

    def _count(self) -> str:
        if self.heard_at - self._counted_from > LINES_WITHIN:
            self._lines, self._counted_from = 0, self.heard_at
        self._lines += 1
        if self._lines <= self.most_lines:
            return ""
        return f"it sent more than {self.most_lines} lines within {LINES_WITHIN:.0f} s"

    def _take(self, line: bytes) -> str:
        """Take in a line; return why the client must end, "" = all is well."""
        if not line.strip():
            return ""
        try:
            event = json.loads(line, parse_constant=lambda _name: None)
            if b"\\u" in line or b"\xed" in line:
                event = _whole(event)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            self._garbage += 1
            few = self._garbage < MOST_GARBAGE
            return "" if few else f"it sent {self._garbage} lines that are no JSON objects"
        self.take(event)
        return ""

    def take(self, event: Mapping[str, Any]) -> None:
        """An answer or an event. Where it names a session, it is the one of a pack that takes it:
        `on_event` passes it on."""
        if "answer" in event and "session" not in event:
            self._take_answer(event)
        elif event.get("event") == "ready":
            if not self.ready.done():
                self.ready.set_result(event)
        elif event.get("event") == "fatal":
            self.fatal = f"{event.get('name')} {event.get('code') or ''}".strip()
            log.error("the client failed with %s%s", self.fatal, f"\n{event.get('stack', '')}")
        else:
            self._on_event(event)

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


def _whole(value: Any) -> Any:
    """Half a character, as JavaScript makes it by cutting within one, is replaced: no text of ours
    could be written with it."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_whole(name): _whole(item) for name, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


FLAGS = (
    *("--max-semi-space-size=1", "--optimize-for-size", "--v8-pool-size=1", "--single-threaded-gc"),
    *("--expose-gc", "--initial-heap-size=48", "--inspect-port=192.0.2.1:9229"),
)
"""The first heap holds all that a start reads: collections would take a sixth of its processor
time. The library's WebAssembly excludes --lite-mode and --jitless. SIGUSR1 opens a debugger without
a password, which any user of the machine could read the keys with: at an address that no machine
has (RFC 5737) it cannot listen."""
ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(128 << 10),
    "NODE_ENV": "production",
    "UV_THREADPOOL_SIZE": "16",
}
"""With FLAGS 60 % of a plain Node's memory; `scripts/bench baileys` measures it. Each operation on
the disk holds a thread until it ends, a flush among them: with two threads the messages of a pack's
sessions wait for each other's flushes. A thread takes 8 KiB."""
KEPT = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")
"""Variables of the worker that Node gets: no bus, no notify socket, no settings of the agent."""
START = 20.0
"""Seconds until a new client must be ready."""
MAIN = Path(__file__).parent / "client" / "main.mjs"
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Client(Conversation):
    def __init__(
        self, process: asyncio.subprocess.Process, commands: asyncio.StreamWriter, on_event: OnEvent
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
                env=ENVIRONMENT | {it: os.environ[it] for it in KEPT if it in os.environ},
                preexec_fn=die_with_worker,
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
        """End the client in order; the caller has saved before."""
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
            why = self.fatal or how_ended(status)
        if self.end(why):
            if self._process.returncode is None:
                self._process.kill()
            if not self.ready.done():
                error = EngineError(f"cannot start the client: {why}", code="node_failed")
                self.ready.set_exception(error)
                return
            on_end(why)


async def _writer(fd: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), os.fdopen(fd, "wb", 0)
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)


def how_ended(status: int) -> str:
    if status < 0:
        return f"it was ended by {signal.Signals(-status).name}"
    return f"it ended with status {status}"


def die_with_worker() -> None:
    """Let the kernel end this process with its worker; called between fork and exec."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
