"""Tasks that an engine runs beside its calls, and blocking work in threads."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Tasks:
    """The running tasks of one engine. `crashed` gets each error that is not `expected`."""

    def __init__(
        self,
        crashed: Callable[[BaseException], None],
        expected: tuple[type[BaseException], ...] = (),
    ) -> None:
        self._crashed, self._expected = crashed, expected
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def wait(self, within: float | None = None) -> None:
        if self._running:
            await asyncio.wait(set(self._running), timeout=within)

    async def cancel(self) -> None:
        await cancel(*self._running)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, self._expected):
            self._crashed(error)


def runs(task: "asyncio.Task[Any] | None") -> bool:
    return task is not None and not task.done()


async def cancel(*tasks: "asyncio.Task[Any] | None") -> None:
    """Cancel the tasks that run, but for the caller's own, and wait for their ends."""
    others = {it for it in tasks if it is not None and not it.done()} - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others)


async def until_set(event: asyncio.Event, seconds: float | None) -> None:
    """Wait until the event is set or the time is over; None: without an end."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do blocking work in a thread, and wait for its end."""
    return await to_end(asyncio.to_thread(work, *args, **kwargs))


async def to_end(work: Awaitable[T]) -> T:
    """A cancelled caller waits for the end of the work first: a thread cannot be stopped, and two
    of them must not change the same files."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
