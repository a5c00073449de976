"""A conversation in JSON lines with the client: calls with deadlines out, answers and events in."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from agent.errors import EngineError

log = logging.getLogger(__name__)

LONGEST_LINE = 1 << 20
"""Of records, a line has up to 768 KiB."""
MOST_GARBAGE = 3
"""So many lines that are no JSON object end a client."""
MOST_LINES, LINES_WITHIN = 50_000, 10.0
"""So many lines within so many seconds are a flood, which ends a client."""
AT_ONCE = 100
"""So many lines are read before the worker's other tasks have their turn."""

INTERRUPTED = "interrupted"

OnEvent = Callable[[Mapping[str, Any]], None]
OnEnd = Callable[[str], None]


class Conversation:
    """One end of it; `ended` says why the client stopped."""

    owns_pipe = True
    """False: other conversations use the pipe as well, and it outlives this one."""

    def __init__(self, commands: asyncio.StreamWriter, on_event: OnEvent) -> None:
        self.ended = ""
        self.heard_at = time.monotonic()
        """When the client last wrote a line: its loop turned then."""
        self.fatal = ""
        """Its last words, before it ends by itself."""
        self.ready: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self.commands = commands
        self._on_event = on_event
        self._answers: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._next = 0
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
            raise EngineError(
                f"cannot {do}: the client did not answer within {within:g} s", code="timeout"
            ) from error
        except OSError as error:
            raise EngineError(f"cannot {do}: the client is gone", code=INTERRUPTED) from error
        finally:
            self._answers.pop(number, None)

    def end(self, why: str) -> bool:
        """True the first time."""
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
        """Read its lines; return why it must end, "" where it wrote its last line."""
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
        """Why the client must end; "" where all is well."""
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
