"""Logs that a program writes: any command's output, or journalctl's. One run of the program, in a
group of its own that ends with the worker; its owner starts the next run."""

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import signal
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.core.findings.crypto_patterns import CryptoPattern
from agent.engines.whaticket.keys.files import cause_of
from agent.engines.whaticket.logs.records import parse_record
from agent.engines.whaticket.logs.stream import Batch, Splitter, Stream
from agent.engines.whaticket.settings import Source
from agent.errors import EngineError

_CHUNK = 256 << 10
_QUIET = 0.7
_GRACE = 2.0
_MOST_PROCESSES = 64


@dataclass(slots=True)
class Program:
    """What one source's program writes."""

    source: Source
    log_session: re.Pattern[str] | None = None
    own: tuple[CryptoPattern, ...] = ()
    cursor: str = ""
    """Where the journal was read up to."""
    complaint: str = ""
    """The last line on journalctl's error stream."""
    _splitter: Splitter = field(default_factory=Splitter)
    _streams: dict[str, Stream] = field(default_factory=dict)

    async def run(self) -> AsyncGenerator[Batch, None]:
        """Every batch until it ends; EngineError when it cannot be started."""
        process = await self._start()
        assert process.stdout is not None
        complaints = asyncio.create_task(self._complaints(process), name="complaints")
        take = self._take_journal if self.source.kind == "journal" else self._take_text
        try:
            while True:
                chunk = None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_QUIET):
                        chunk = await process.stdout.read(_CHUNK)
                if chunk == b"":
                    yield self._idle(ends=True)
                    return
                if chunk is None:
                    yield self._idle(ends=False)
                else:
                    begun = time.monotonic()
                    yield await asyncio.to_thread(take, chunk)
                    # Half of one processor at most, however much it writes: its pipe fills.
                    await asyncio.sleep(time.monotonic() - begun)
        finally:
            complaints.cancel()
            await _end(process)

    async def _start(self) -> asyncio.subprocess.Process:
        arguments = self._arguments()
        own_errors = self.source.kind == "journal"
        try:
            return await asyncio.create_subprocess_exec(
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE if own_errors else asyncio.subprocess.STDOUT,
                start_new_session=True,
                limit=_CHUNK,
            )
        except OSError as error:
            cause = cause_of(error)
            raise EngineError(f"cannot run {arguments[0]}: {cause}", code="log_source") from error

    def _arguments(self) -> list[str]:
        if self.source.kind == "command":
            return shlex.split(self.source.what)  # the settings refuse one that cannot be split
        program = shutil.which("journalctl")
        if program is None:
            raise EngineError(
                f"cannot read {self.source}: journalctl is not installed here", code="log_source"
            )
        since = f"--after-cursor={self.cursor}" if self.cursor else "--lines=0"
        unit = f"--unit={self.source.what}"
        fields = "--output-fields=MESSAGE,_PID"
        return [program, "--follow", "--output=json", "--no-pager", unit, fields, since]

    def _take_text(self, chunk: bytes) -> Batch:
        batch = Batch()
        self._stream("").feed(chunk, time.monotonic(), batch)
        return batch

    def _take_journal(self, chunk: bytes) -> Batch:
        batch, now = Batch(), time.monotonic()
        for line in self._splitter.feed(chunk):
            if (raw := parse_record(line)) is None:
                continue
            if isinstance(cursor := raw.get("__CURSOR"), str):
                self.cursor = cursor[:500]
            stream = self._stream(str(raw.get("_PID", ""))[:20])
            stream.feed_lines(_message(raw).split(b"\n"), now, batch)
        return batch

    def _idle(self, *, ends: bool) -> Batch:
        batch, now = Batch(), time.monotonic()
        for stream in self._streams.values():
            stream.idle(now, batch, ends=ends)
        return batch

    def _stream(self, process: str) -> Stream:
        """Several processes of one unit write at once: each has its own stacks."""
        if process not in self._streams and len(self._streams) >= _MOST_PROCESSES:
            self._streams.pop(next(iter(self._streams)))
        return self._streams.setdefault(process, Stream("", self.log_session, self.own))

    async def _complaints(self, process: asyncio.subprocess.Process) -> None:
        if process.stderr is None:
            return
        while chunk := await process.stderr.read(4096):
            lines = chunk.decode("utf-8", "replace").split("\n")
            self.complaint = next((line for line in reversed(lines) if line.strip()), "")[:200]


def _message(raw: Mapping[str, Any]) -> bytes:
    """journalctl writes text that is not UTF-8 as an array of its bytes."""
    message = raw.get("MESSAGE")
    if isinstance(message, str):
        return message.encode("utf-8", "replace")
    if isinstance(message, list):
        with contextlib.suppress(ValueError, TypeError):
            return bytes(message)
    return b""


async def _end(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal_group(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await process.wait()
                return


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
