"""One thread that owns the one connection. Writes that queue together share one commit; a write's
awaiter wakes after it, so what was acknowledged is on the disk."""

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlite_utils import Database

from agent import clock, errors, files, log
from agent.store.connect import code_of, copy_verified, explain

T = TypeVar("T")

LARGEST_BATCH = 512
PUT_BACK_EVERY = 30.0
"""Seconds between two tries to put a file back."""


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
    """Runs jobs in order; `open` returns when the connection is there.

    If the file is removed, the writer writes it again from its open connection;
    until then it refuses writes.
    """

    def __init__(self, path: Path, connect: Callable[[], Database]) -> None:
        self._path, self._connect = path, connect
        self._back = path.with_name(f"{path.name}.back")
        self._kept = f"{self._back.name} has what the agent had"
        self.left = self._kept if self._back.exists() else ""
        """A sentence that names what an earlier run left for a person to look at; "" = nothing."""
        self.fault: errors.StoreError | None = None
        """The error that refuses each write; None while writes are taken."""
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._closed, self._try_at = False, 0.0
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)

    @classmethod
    async def open(cls, path: Path, connect: Callable[[], Database]) -> "Writer":
        """`connect` makes a connection that any thread may use."""
        writer = cls(path, connect)
        await asyncio.to_thread(writer._open)
        writer._thread.start()
        return writer

    async def read(self, work: Callable[[Database], T]) -> T:
        return await self._submit(_Job(work, self._loop.create_future(), write=False))

    async def write(
        self, work: Callable[[Database], T], committed: Callable[[T], None] | None = None
    ) -> T:
        return await self._submit(_Job(work, self._loop.create_future(), True, committed))

    async def close(self) -> None:
        """Finish the queue, then close the connection."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    async def _submit(self, job: _Job[T]) -> T:
        if self._closed:
            raise errors.StoreError(f"cannot use {self._path}: it is closed", code="closed")
        self._queue.put(job)
        return await job.future

    # -- from here on everything runs in the thread

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            jobs = [job]
            # No other thread takes from the queue; None ends it.
            while len(jobs) < LARGEST_BATCH and not self._queue.empty():
                if (more := self._queue.get()) is None:
                    self._queue.put(None)
                    break
                jobs.append(more)
            self._do(jobs)
        self._db.close()

    def _open(self) -> None:
        self._db = self._connect()
        self._standing = files.standing(self._path)

    def _do(self, jobs: Sequence[_Job[Any]]) -> None:
        self._keep_in_place()
        if writes := [job for job in jobs if job.write]:
            self._commit(self._db, writes)
        for job in jobs:
            if not job.write:  # after the commit: a read never sees what may not stay
                self._attempt(self._db, job)
        try:
            self._loop.call_soon_threadsafe(_deliver, jobs)
        except RuntimeError:
            log.warning("the caller of a write to %s has ended", self._path)

    def _keep_in_place(self) -> None:
        if files.in_place(self._standing):
            self.fault = None
        elif self.fault is None or clock.boot_now() >= self._try_at:
            told, self._try_at = str(self.fault), clock.boot_now() + PUT_BACK_EVERY
            try:
                self._put_back()
                self.fault = None
            except (OSError, sqlite3.Error, errors.StoreError) as error:
                self.fault = explain("write", self._path, error)
                if str(self.fault) != told:
                    log.error("%s", self.fault)

    def _put_back(self) -> None:
        """The connection has all that a removed file or log had. It is written beside its place,
        and put there if no other file has that name."""
        path, ((_, folder), (_, file), *_) = self._path, self._standing
        if not os.path.samestat(path.parent.lstat(), folder):
            raise errors.StoreError("another folder stands in the place of its own: put that back")
        copy_verified(self._db, self._back)
        if os.path.lexists(path) and not os.path.samestat(path.lstat(), file):
            # That one must not replay this one's log.
            self._db.execute("pragma wal_checkpoint(truncate)").fetchall()
            raise errors.StoreError(f"another file took its place; {self._kept}", code="damaged")
        for left in ("-wal", "-shm"):
            path.with_name(path.name + left).unlink(missing_ok=True)
        files.put_in_place(self._back, path)
        self._standing[1] = str(path), path.lstat()  # not another one's where opening it fails
        old = self._db
        self._open()
        old.close()
        log.error("%s, or a file beside it, was removed; the agent wrote it again, whole", path)

    def _commit(self, db: Database, writes: Sequence[_Job[Any]]) -> None:
        """Commit all writes in one transaction; each is on the disk, or has its error."""
        try:
            if self.fault is not None:
                raise self.fault
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
            named = isinstance(error, errors.StoreError)
            shown = error if named else explain("write", self._path, error)
            for job in writes:
                job.error, job.result = job.error or shown, None

    def _attempt(self, db: Database, job: _Job[Any]) -> None:
        try:
            with db.atomic() if job.write else nullcontext():
                job.result = job.work(db)
        except errors.WaError as error:
            job.error = error
        except Exception as error:
            job.error = explain("write" if job.write else "read", self._path, error)


def _deliver(jobs: Sequence[_Job[Any]]) -> None:
    for job in jobs:
        if job.error is None and job.committed is not None:
            try:
                job.committed(job.result)
            except Exception:  # an error of a listener is not the writer's
                log.exception("cannot report a committed write")
        if job.future.done():  # its awaiter was cancelled
            continue
        if job.error is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(job.error)
