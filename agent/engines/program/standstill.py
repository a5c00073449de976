"""Whether a program that has told nothing stands still: stopped by a signal, or a Node whose loop
turns no more. One that tells nothing by design does neither."""

import time
from contextlib import suppress
from dataclasses import dataclass, field

from agent.engines.program.process import Process
from agent.engines.program.tree import descendants
from agent.errors import EngineError

STOPPED_AFTER = 10.0
TURNS_WITHIN = 30.0
"""Seconds without a turn of Node's loop, and without processor time of it."""
ASK_EVERY = 5.0


@dataclass(slots=True)
class Standstill:
    """Of one run. It is looked at every second or so."""

    run: Process
    node: int = 0
    """The process in which the preloaded module is; 0: none told so."""
    _parts: set[int] = field(default_factory=set)
    """Node processes that the program started, which may have its library."""
    _stopped_since: float | None = None
    _idle_since: float = 0.0
    _used: int = -1
    _asked_at: float = 0.0

    def note_node(self, pid: object, *, child: bool = False) -> None:
        if isinstance(pid, int) and pid in (self.run.pid, *descendants(self.run.pid)):
            if child:
                self._parts.add(pid)
            else:
                self.node = pid

    async def why_end(self) -> str:
        """Why the program must be ended; "" = it need not."""
        return self._why_stopped() or await self._why_idle()

    def _why_stopped(self) -> str:
        """A debugger's stop is none (`t`), so a person may look as long as it takes."""
        now = time.monotonic()
        own = {self.run.pid, self.node or self.run.pid}
        if not self.run.speech.ready.done():
            own |= self._parts & set(descendants(self.run.pid))
        if not any(_state_of(pid)[0] == "T" for pid in own):
            self._stopped_since = None
            return ""
        self._stopped_since = self._stopped_since or now
        stopped = now - self._stopped_since
        return f"it was stopped by a signal for {stopped:.0f} s" if stopped > STOPPED_AFTER else ""

    async def _why_idle(self) -> str:
        """One that has a child may wait for it, one with notices of systemd's tells by these, and
        one that uses the processor works: none of them is known to hang."""
        run, now = self.run, time.monotonic()
        if not self.node or run.noticed or run.speech.ready.done():
            return ""
        if now - self._asked_at > ASK_EVERY:
            self._asked_at = now
            with suppress(EngineError):
                await run.speech.call("turn", 1.0)
        state, used = _state_of(self.node)
        if used != self._used or state != "S" or descendants(self.node):
            self._used, self._idle_since = used, time.monotonic()
        silent = time.monotonic() - max(self._idle_since, run.speech.heard_at)
        return f"its loop did not turn for {silent:.0f} s" if silent > TURNS_WITHIN else ""


def _state_of(pid: int) -> tuple[str, int]:
    """The state of a process, and the ticks that it used; of one that is gone ("", -1)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            words = file.read().rpartition(b")")[2].split()
    except OSError:
        return "", -1
    return words[0].decode(), int(words[11]) + int(words[12])
