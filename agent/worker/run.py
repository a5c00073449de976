"""The worker of one instance, from its identity to its exit status."""

import asyncio
import logging
import os
import stat
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.engines import base, catalog
from agent.errors import EngineError, FolderUnusable
from agent.files import DEEPEST, MOST_ENTRIES, opened
from agent.link.server import LinkServer
from agent.link.wire import Call
from agent.worker import empty_store, stop, watch
from agent.worker.calls import Answer, Work, answer_with, plain, session_works
from agent.worker.identity import Identity
from agent.worker.life import Life, ProcessLife
from agent.worker.reports import Pairing, Reports

if TYPE_CHECKING:
    from agent.messages.intake import Intake

log = logging.getLogger(__name__)

# Opens an engine's files to the group that worker and agent share. A browser makes its files for
# its user alone, whatever the umask says; the agent, another user, could then neither copy a
# session nor throw it away.

_FOR_THE_GROUP = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


def share_session(folder: Path) -> int:
    """Give our own entries below session/ the group's bits that the instance's folder has.

    Returns how many were changed. Follows no link; what cannot be changed stays as it is.
    """
    with suppress(OSError), opened(folder / "session", _FOR_THE_GROUP) as top:
        if wanted := folder.stat().st_mode & stat.S_IRWXG:
            return sum(islice(_share(top, wanted, 1), MOST_ENTRIES))
    return 0


def _share(folder: int, wanted: int, depth: int) -> Iterator[bool]:
    """Yield for each entry True if it was changed."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):  # gone since, or not ours
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode) and depth < DEEPEST:
                    with opened(entry.name, _FOR_THE_GROUP, within=folder) as inner:
                        yield _open_up(inner, wanted)
                        yield from _share(inner, wanted, depth + 1)
                elif stat.S_ISREG(status.st_mode):
                    if status.st_mode & wanted & ~stat.S_IXGRP == wanted & ~stat.S_IXGRP:
                        yield False
                        continue
                    with opened(entry.name, _FILE, within=folder) as file:
                        yield _open_up(file, wanted & ~stat.S_IXGRP)


def _open_up(fd: int, wanted: int) -> bool:
    status = os.fstat(fd)
    # A second name may lie where it is not ours to open anything.
    linked = stat.S_ISREG(status.st_mode) and status.st_nlink > 1
    if linked or status.st_uid != os.geteuid() or status.st_mode & wanted == wanted:
        return False
    # Without a set-group-id bit, which our unit may not set: all that we make has that group.
    os.fchmod(fd, (status.st_mode | wanted) & 0o777)
    return True


class OwnFolder:
    """Which folders this worker really has: the agent compares them with what lies at their paths.
    A folder that was deleted or replaced keeps its inode for us, and our session goes on in
    nowhere: an engine that saves by path must not write into the one that took its place."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self._open: dict[str, tuple[Path, int]] = {}
        for name, path in (("folder", folder), ("session", folder / "session")):
            with suppress(OSError):  # an engine without a session folder
                self._open[name] = path, os.open(path, _FOR_THE_GROUP)
                weakref.finalize(self, os.close, self._open[name][1])

    def refuse_another(self) -> None:
        """Raise FolderUnusable if another folder stands in the place of one of ours."""
        for path, fd in self._open.values():
            with suppress(OSError):  # nothing is there to write into
                if not os.path.samestat(path.lstat(), os.fstat(fd)):
                    raise FolderUnusable(f"cannot save into {path}: another folder stands there")

    async def stay(self, crashed: Callable[[BaseException], None]) -> None:
        """Ends a worker whose folder gave its place to another one, unless it was deleted: then
        this worker alone has the pairing."""
        while True:
            await asyncio.sleep(watch.PROBE_EVERY)
            try:
                self.refuse_another()
            except FolderUnusable as error:
                if not self.describe()["deleted"]:
                    crashed(error)

    def describe(self) -> Mapping[str, object]:
        """Return inodes by name, and names of those that are in no folder any more."""
        return {
            "inodes": {name: os.fstat(fd).st_ino for name, (_, fd) in self._open.items()},
            "deleted": [name for name, (_, fd) in self._open.items() if not os.fstat(fd).st_nlink],
        }


FIRST_CONNECT = 60.0
"""Seconds an engine may take to begin to connect."""


async def work_alone(identity: Identity, link_path: Path) -> int:
    return await run_session(identity, link_path, ProcessLife(identity), catalog.load_engine)


async def run_session(
    identity: Identity, link_path: Path, life: Life, load: Callable[[str], base.OpenEngine]
) -> int:
    """Run a session once, whose folder is locked; return the exit status."""
    reports = Reports(identity.id, asyncio.Event(), life.crashed, Pairing(identity.paired))
    share_session(identity.folder)  # of a worker that was killed
    if (intake := open_intake(identity, reports)) is not None:
        reports.keeper = intake
    engine = empty_store.open_engine(identity, reports, load)
    own = OwnFolder(identity.folder)
    works = _works(own, engine, reports, life)
    if intake is not None:
        intake.serve(engine)
        works = {**intake.works, **works}
    closing, fence = False, None
    if identity.leased:
        from agent.worker.fence import Fence  # with ctypes

        fence = Fence(engine, reports, life.notifier)
        works["lease"] = fence.lease

    async def answer(call: Call) -> Answer:
        if closing:
            raise EngineError(f"cannot {call.do}: the session is being closed", code="stopping")
        if fence is not None:
            fence.admit(call.do)
        return await answer_with(works, call)

    async def end() -> bool:
        own.refuse_another()
        return await stop.stop_in_order(engine, reports, life.notifier, life.hurry)

    reports.server = await LinkServer.open(link_path, life.hello, answer, reports.current)
    try:
        return await life.spend(
            {
                "connect": _connect(engine, fence.opened() if fence else None),
                "status": watch.tell_status(reports.changed, reports.status_text, life.notifier),
                "watch": watch.watch_engine(engine, reports, life.notifier, life.watchdog),
                "folder": own.stay(life.crashed),
            },
            reports.status_text,
            end,
        )
    finally:
        closing = True
        try:
            if abandon := getattr(engine, "abandon", None):
                await abandon()  # of an engine that shares something, nothing goes on
            share_session(identity.folder)
            if intake is not None:
                await intake.close()
        finally:
            if fence is not None and not isinstance(life, ProcessLife):
                fence.close()  # a process keeps it to its end, which may hang
            await life.end(reports.server)


def open_intake(identity: Identity, reports: Reports) -> "Intake | None":
    """Return the intake that keeps messages; None where they are not kept."""
    settings = identity.of_rooms.get("messages", {})
    if settings.get("keep") is False:
        return None
    from agent.messages.intake import Intake  # with sqlite3

    return Intake(identity.folder, identity.id, settings, reports.happened)


def _works(own: OwnFolder, engine: base.Engine, reports: Reports, life: Life) -> dict[str, Work]:
    works = session_works(engine, reports)

    async def save() -> None:
        own.refuse_another()
        try:
            await engine.save()
        finally:
            share_session(own.path)

    async def probe(args: Mapping[str, Any]) -> Answer:
        fds = open_files(os.getpid()) - 1  # the folder that was read is closed again
        return {**await works["probe"](args), "open_fds": fds, "folder": own.describe()}

    own_works: dict[str, Work] = {"save": plain(save), "close": plain(life.stop), "probe": probe}
    return works | own_works | {"own_use": own_use}


async def _connect(engine: base.Engine, allowed: Awaitable[None] | None) -> None:
    if allowed is not None:
        await allowed
    try:
        async with asyncio.timeout(FIRST_CONNECT):
            await engine.connect()
    except EngineError as error:
        log.warning("%s", error)
    except TimeoutError:
        log.error("cannot connect: the engine did not begin in %g s", FIRST_CONNECT)


async def own_use(_args: Mapping[str, Any]) -> Answer:
    """Memory and processor time of this process and all its children, as the kernel shows them.

    The agent is another user, behind a wall: it cannot count a worker's files, and where the kernel
    keeps no account of a unit's memory it cannot measure that either.
    """
    # Only where an agent asks: most machines tell it themselves.
    from agent.host.machine import measure_trees

    me = os.getpid()
    return asdict(measure_trees(frozenset({me}))[me])


def open_files(pid: int) -> int:
    """Count open files of a process and its children; a sandboxed renderer's cannot be counted."""
    count = 0
    with suppress(OSError):  # it ended, or belongs to another user
        count = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - strings will do
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        count += sum(open_files(int(child)) for child in children)
    return count
