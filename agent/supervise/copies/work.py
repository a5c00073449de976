"""The file work of copies, in threads of its own: few at a time, its progress shown, and given up
where its disk does not answer."""

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from agent.core.model import InstanceId
from agent.errors import TryLater
from agent.vault.tree import Tick

AT_ONCE = 2
"""Copies going on at the same time: disks are shared."""
STANDS_STILL = 120.0
"""Seconds without a byte or a file after which a copy is given up."""
LONGEST = 3600.0
"""Seconds that a whole copy may take."""

Result_co = TypeVar("Result_co", covariant=True)


class Ticking(Protocol[Result_co]):
    """File work that calls `tick` as it goes."""

    def __call__(self, *, tick: Tick) -> Result_co: ...


@dataclass(slots=True)
class Progress:
    what: str
    begun_wall: float
    done: int = 0
    """Bytes."""
    total: int = 0
    """0 = not known."""
    moved: float = field(default_factory=time.monotonic)
    """When it last went on."""


class CopyWork:
    """A thread that hangs in the kernel cannot be ended: it is left to itself, and keeps neither
    other sessions' copies nor the agent's end waiting. It ends at its next piece."""

    def __init__(self) -> None:
        self.under_way: dict[InstanceId, Progress] = {}
        self._few = asyncio.Semaphore(AT_ONCE)
        self._left: dict[InstanceId, str] = {}
        """What was given up and has not ended, by its session."""
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End copies under way in threads at their next piece: the agent's stop must not wait."""
        self._stopping.set()

    async def run(
        self, id: InstanceId, what: str, work: Ticking[Result_co], total: int = 0
    ) -> Result_co:
        async with self._few:
            if (left := self._left.get(id)) is not None:
                raise TryLater(
                    f"cannot begin the {what} of {id}: the {left} of before still waits for its"
                    " disk",
                    code="copy_stands_still",
                )
            progress = Progress(what, time.time(), total=total)
            self.under_way[id] = progress
            try:
                return await self._watched(id, progress, work)
            finally:
                if self.under_way.get(id) is progress:
                    del self.under_way[id]

    async def _watched(
        self, id: InstanceId, progress: Progress, work: Ticking[Result_co]
    ) -> Result_co:
        given_up = threading.Event()

        def tick(count: int) -> None:
            progress.done += count
            progress.moved = time.monotonic()
            if given_up.is_set() or self._stopping.is_set():
                cause = "it was given up" if given_up.is_set() else "the agent stops"
                raise TryLater(f"cannot finish the {progress.what} of {id}: {cause}")

        ended = _begin(f"{progress.what} of {id}", work, tick)
        latest = progress.moved + LONGEST
        try:
            while not ended.done():
                left = min(progress.moved + STANDS_STILL, latest) - time.monotonic()
                if left <= 0:
                    raise _given_up(id, progress)
                await asyncio.wait({ended}, timeout=left)
            return ended.result()
        finally:
            if not ended.done():
                given_up.set()
                self._left[id] = progress.what
                ended.add_done_callback(lambda ended: self._has_ended(id, ended))

    def _has_ended(self, id: InstanceId, ended: "asyncio.Future[Any]") -> None:
        self._left.pop(id, None)
        if not ended.cancelled():
            ended.exception()  # its caller was told already


def _begin(name: str, work: Ticking[Result_co], tick: Tick) -> "asyncio.Future[Result_co]":
    """In a daemon thread: the interpreter's end joins those of a pool."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Result_co] = loop.create_future()

    def tell(result: Result_co | None, error: BaseException | None) -> None:
        if ended.cancelled():
            return
        if error is not None:
            ended.set_exception(error)
        else:
            ended.set_result(result)  # type: ignore[arg-type]

    def body() -> None:
        result, failed = None, None
        try:
            result = work(tick=tick)
        except BaseException as error:
            failed = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, result, failed)

    try:
        threading.Thread(target=body, name=name, daemon=True).start()
    except RuntimeError as error:
        raise TryLater(
            f"cannot begin the {name}: the machine allows no further thread", code="no_thread"
        ) from error
    return ended


def _given_up(id: InstanceId, progress: Progress) -> TryLater:
    after = f"after {progress.done} bytes"
    if time.monotonic() - progress.moved >= STANDS_STILL:
        cause = f"its disk has not answered for {STANDS_STILL:g} s, {after}"
        return TryLater(
            f"cannot finish the {progress.what} of {id}: {cause}", code="copy_stands_still"
        )
    cause = f"it took longer than {LONGEST:g} s, {after}: the disk is too slow"
    return TryLater(f"cannot finish the {progress.what} of {id}: {cause}", code="copy_slow")
