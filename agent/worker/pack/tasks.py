"""Which tasks of a pack's worker belong to which run of which member."""

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any

from agent.core.words import InstanceId

_RUN: ContextVar["Run | None"] = ContextVar("run", default=None)


@dataclass(slots=True, eq=False)
class Run:
    """One run of a member, and what it started."""

    member: InstanceId
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    cause: str = ""
    """"signal": it was killed."""

    def cancel(self) -> None:
        for task in list(self.tasks):
            task.cancel()


def present_member() -> InstanceId | None:
    """Whose run the present task is a part of."""
    run = _RUN.get()
    return None if run is None else run.member


def follow_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Note each task at the run that began it."""

    def make(
        loop: asyncio.AbstractEventLoop,
        work: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        **more: Any,
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(work, loop=loop, **more)
        context: Context | None = more.get("context")
        run = _RUN.get() if context is None else context.get(_RUN)
        if run is not None:
            run.tasks.add(task)
            task.add_done_callback(run.tasks.discard)
        return task

    loop.set_task_factory(make)


def context_of(run: Run) -> Context:
    """What is begun in it is a part of this run."""
    context = copy_context()
    context.run(_RUN.set, run)
    return context
