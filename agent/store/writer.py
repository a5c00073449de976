"""One thread that owns the one connection. Writes that queue together share one commit; a write's
awaiter wakes after it, so what was acknowledged is on the disk."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlite_utils import Database

from agent import errors, files, log
from agent.store.connect import code_of, explain

T = TypeVar("T")

LARGEST_BATCH = 512


@dataclass(slots=True)
class _Job(Generic[T]):
    work: Callable[[Database], T]
    future: asyncio.Future[T]
    write: bool
    committed: Callable[[T], None] | None = None
    """Called in the loop after the commit, also when its caller has stopped waiting."""
    result: Any = None
    error: Exception | None = None


class Writer:
    """Runs jobs in order; `open` returns when the connection is there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._closed = False
        self._thread: threading.Thread

    @classmethod
    async def open(cls, path: Path, connect: Callable[[], Database]) -> "Writer":
        """`connect` runs in the thread. It may fail: that is raised here."""
        writer = cls(path)
        opened: asyncio.Future[None] = writer._loop.create_future()
        run = partial(writer._run, connect, opened)
        writer._thread = threading.Thread(target=run, name="store", daemon=True)
        writer._thread.start()
        await opened
        return writer

    async def read(self, work: Callable[[Database], T]) -> T:
        return await self._submit(_Job(work, self._loop.create_future(), write=False))

    async def write(
        self, work: Callable[[Database], T], committed: Callable[[T], None] | None = None
    ) -> T:
        return await self._submit(_Job(work, self._loop.create_future(), True, committed))

    async def close(self) -> None:
        """Finish the queue, then close the connection."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    async def _submit(self, job: _Job[T]) -> T:
        if self._closed:
            raise errors.StoreError(f"cannot use {self._path}: it is closed", code="closed")
        self._queue.put(job)
        return await job.future

    # -- from here on everything runs in the thread

    def _run(self, connect: Callable[[], Database], opened: asyncio.Future[None]) -> None:
        try:
            db = connect()
        except BaseException as error:
            self._call(_settle, opened, None, error)
            return
        self._call(_settle, opened, None, None)
        job = self._queue.get()
        while job is not None:
            jobs = [job]
            # No other thread takes from the queue; None ends it.
            while len(jobs) < LARGEST_BATCH and not self._queue.empty():
                if (more := self._queue.get()) is None:
                    self._queue.put(None)
                    break
                jobs.append(more)
            self._do(db, jobs)
            job = self._queue.get()
        db.close()

    def _do(self, db: Database, jobs: Sequence[_Job[Any]]) -> None:
        if writes := [job for job in jobs if job.write]:
            self._commit(db, writes)
        for job in jobs:
            if not job.write:  # after the commit: a read never sees what may not stay
                self._attempt(db, job)
        self._call(_deliver, jobs)

    def _commit(self, db: Database, writes: Sequence[_Job[Any]]) -> None:
        """One transaction with all writes; each is on the disk, or knows why not."""
        try:
            db.conn.execute("begin immediate")
            for job in writes:
                self._attempt(db, job)
                full = job.error is not None and code_of(job.error) == "disk_full"
                if full or not db.conn.in_transaction:
                    # A full disk may have ended the whole transaction, with the jobs before this
                    # one; going on would commit the rest one by one.
                    raise job.error or errors.StoreError("the transaction was lost")
            files.failpoint("before_commit")
            db.conn.execute("commit")
            files.failpoint("after_commit")
        except Exception as error:
            with suppress(sqlite3.Error):
                db.rollback()
            shown = error if isinstance(error, errors.StoreError) else self._explain("write", error)
            for job in writes:
                job.error, job.result = job.error or shown, None

    def _attempt(self, db: Database, job: _Job[Any]) -> None:
        try:
            with db.atomic() if job.write else nullcontext():
                job.result = job.work(db)
        except errors.WaError as error:
            job.error = error
        except Exception as error:
            job.error = self._explain("write" if job.write else "read", error)

    def _explain(self, verb: str, error: Exception) -> errors.StoreError:
        shown = explain(verb, self._path, error)
        shown.__cause__ = error
        return shown

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            log.warning("the caller of a write to %s has ended", self._path)


def _deliver(jobs: Sequence[_Job[Any]]) -> None:
    for job in jobs:
        if job.error is None and job.committed is not None:
            try:
                job.committed(job.result)
            except Exception:  # an error of a listener is not the writer's
                log.exception("cannot report a committed write")
        _settle(job.future, job.result, job.error)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # its awaiter was cancelled
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
