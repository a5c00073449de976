"""Each file operation of the vault, of the agent's database and of what keeps messages fails once,
and from there on: the error has a code, nothing is lost or half there, and the next try succeeds.
What keeps messages is killed at each operation, too."""

import asyncio
import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from agent.core.model import Instance, InstanceId, SessionRecord
from agent.daemon.state_folder import MARK, StateMark, read_mark
from agent.errors import StoreError, VaultError, WaError
from agent.messages.outbox import NAME, Outbox, OutMessage
from agent.messages.outcomes import State
from agent.store.database import Store, check_whole
from agent.store.rows import KeyRow
from agent.supervise import act
from agent.vault import tree
from agent.vault.folders import list_trash, restore_trash, retire
from agent.vault.identity import Identity, create, lineage_of, read_identity, replace_identity
from agent.vault.restore import MESSAGES, bring_back, finish, restore_snapshot
from agent.vault.snapshots import (
    Snapshot,
    Subject,
    list_snapshots,
    newest_good,
    open_files,
    prune_snapshots,
    sweep_snapshots,
    take_snapshot,
)
from tests.in_memory import folder_in_memory
from tests.messages.records import file_at, messages, newest, numbers_of, read_all, settle
from tests.standin.failing_operations import KILL, FailingOperations, Fault
from tests.store.conftest import entry
from tests.vault.conftest import contents, sandbox_file
from tests.vault.test_planted import told

CODES = {errno.ENOSPC: "disk_full", errno.EROFS: "read_only", errno.EIO: "vault"}
FAULTS = [(errno.ENOSPC, 2), (errno.EIO, 1)]
SALES = Instance(InstanceId("sales"), "sandbox", True, {"scan": "auto"}, 1_700_000_000.0)
SUBJECT = Subject(SALES, True, "49151", "a test")


class Failing(AbstractContextManager["Failing"]):
    """Inside it the disk fails. An error ends the block, and must say what the disk has."""

    def __init__(self, fault: Fault) -> None:
        self.fault, self.disk = fault, FailingOperations.inside()
        self.error: WaError | None = None
        self.count = 0

    def __enter__(self) -> "Failing":
        self.disk.begin(self.fault)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        self.count = self.disk.count
        self.disk.begin(None)
        if error is None:
            return False
        assert isinstance(error, StoreError | VaultError), repr(error)
        if isinstance(error, VaultError) or self.fault.error == errno.EROFS:
            assert error.code == CODES[self.fault.error], (error.code, str(error))
        self.error = error
        return True


def paired(root: Path) -> Path:
    """The session's folder of a paired instance."""
    folder = create(root, SALES)
    replace_identity(root, Identity(SALES, True, "49151"))
    (folder / "session" / "keys").mkdir()
    (folder / "session" / "keys" / "one").write_bytes(b"key" * 50)
    (folder / "session" / "sandbox.json").write_bytes(sandbox_file())
    return folder / "session"


def newest_of(root: Path, count: int) -> Snapshot | None:
    """Return the newest of `count` snapshots of a paired session. They are made once for each
    count, and copied from then on."""
    kept = root.with_name(f"{count} snapshots")
    if not kept.exists():
        kept.mkdir(mode=0o700)
        paired(kept)
        for _ in range(count):
            take_snapshot(kept, SUBJECT)
    shutil.copytree(kept, root, dirs_exist_ok=True)
    return newest_good(root, SALES.id)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def is_good(root: Path, snapshot: Snapshot) -> bool:
    """True if it is of a whole session. One that is not as it was made ends the test."""
    with open_files(root, snapshot) as (files, manifest):
        tree.read_back(files, manifest.listing)
    return snapshot.good


def identity(root: Path, failing: Failing) -> None:
    folder = paired(root).parent
    before = read_identity(folder)
    with failing:
        replace_identity(root, Identity(SALES, True, "49152"))
    assert read_identity(folder).account in ("49152", "49151" if failing.error else "")
    replace_identity(root, Identity(SALES, True, "49152"))
    now = read_identity(folder)
    assert (now.account, now.lineage) == ("49152", before.lineage)
    assert names(folder) == ["instance.json", "session"]


def creation(root: Path, failing: Failing) -> None:
    with failing:
        create(root, SALES)
    folder = create(root, SALES)
    assert read_identity(folder).instance == SALES
    assert read_identity(folder).lineage
    assert names(folder) == ["instance.json", "session"]


def taking_over(root: Path, failing: Failing) -> None:
    folder = create(root, SALES)
    replace_identity(root, before := replace(read_identity(folder), needs_passkey=True))
    with failing:
        create(root, SALES)
    now = read_identity(folder)
    assert (now.needs_passkey, now.lineage) == (True, before.lineage)


def taking(root: Path, failing: Failing) -> None:
    session = paired(root)
    first = take_snapshot(root, SUBJECT)
    (session / "keys" / "one").write_bytes(b"newer")
    before = contents(session)
    with failing:
        take_snapshot(root, SUBJECT)
    found = list_snapshots(root, SALES.id)
    assert first in [its for its in found if is_good(root, its)]
    assert {its.manifest and its.manifest.lineage for its in found} == {lineage_of(root / "sales")}
    assert len(found) == 2 or failing.error
    last = take_snapshot(root, SUBJECT)
    assert contents(session) == before == contents(last.path / "files") and is_good(root, last)
    assert len(names(last.path.parent)) == len(found) + 1


def pruning(root: Path, failing: Failing) -> None:
    newest = newest_of(root, 3)
    with failing:
        prune_snapshots(root, SALES.id, 1)
    assert newest_good(root, SALES.id) == newest
    assert all(is_good(root, its) for its in list_snapshots(root, SALES.id))
    prune_snapshots(root, SALES.id, 1)
    sweep_snapshots(root, {SALES.id}, 9.0, 0.0)
    assert names(newest.path.parent) == [newest.name]
    assert is_good(root, newest)


def restoring(root: Path, failing: Failing, *, starts: bool = False) -> None:
    taken, session = newest_of(root, 1), root / "sales/session"
    (session / "keys" / "one").write_bytes(b"newer")
    before = contents(session)
    (session.parent / MESSAGES).mkdir()
    with failing:
        restore_snapshot(root, SALES, taken, "a test")
    if starts:
        finish(root)
        bring_back(root)
        assert read_identity(session.parent).paired
    kept = [session, *(its.path / "session" for its in list_trash(root))]
    assert before in [contents(its) for its in kept if its.is_dir()]
    assert is_good(root, taken)
    restore_snapshot(root, SALES, taken, "again")
    assert contents(session) == contents(taken.path / "files")
    now = read_identity(session.parent)
    assert (now.paired, now.account, now.lineage) == (True, "49151", taken.manifest.lineage)
    assert (session.parent / MESSAGES).is_dir()
    assert before in [contents(its.path / "session") for its in list_trash(root)]
    assert names(root / ".staging") == names(root / ".carried") == []


def starting(root: Path, failing: Failing) -> None:
    restoring(root, failing, starts=True)


def retiring(root: Path, failing: Failing) -> None:
    session = paired(root)
    before = contents(session)
    with failing:
        retire(root, SALES.id, "a test")
    assert failing.error or not session.exists()
    if session.exists():
        assert list_trash(root) == []
        retire(root, SALES.id, "a test")
    (retired,) = list_trash(root)
    restore_trash(root, retired.name)
    assert contents(session) == before
    assert read_identity(session.parent).paired


def giving_back(root: Path, failing: Failing) -> None:
    session = paired(root)
    before, retired = contents(session), retire(root, SALES.id, "a test")
    with failing:
        restore_trash(root, retired.name)
    assert failing.error or session.exists()
    if not session.exists():
        restore_trash(root, retired.name)
    assert list_trash(root) == []
    assert contents(session) == before
    assert read_identity(session.parent).paired


def renewing(root: Path, failing: Failing) -> None:
    """A bot's own files come back from the trash when its pairing ends."""
    facts = told(root)
    with failing:
        act.set_aside(root, facts, "logout")
    if failing.error:
        act.set_aside(root, facts, "logout")
    assert names(root / "shop" / "session") == ["media", "orders.sqlite"]
    assert [its for its in list_trash(root) if "creds.json" in str(contents(its.path))]


def marking(root: Path, failing: Failing) -> None:
    """A mark that cannot be read is not taken for none, which another would replace."""
    (root / MARK).write_text('{"id": "ab12", "generation": 7}')
    with failing:
        assert read_mark(root) == StateMark("ab12", 7)


KEY = KeyRow("ab12cd34", "f" * 64, ("admin",), "ops", 5.0)


async def lay_filled(root: Path) -> Path:
    """A database, and a copy that has all that is in it: those that the first such test made."""
    kept = root.with_name("filled")
    if not kept.exists():
        kept.mkdir()
        store = await Store.open(kept / "agent.db")
        await store.add(SALES, SessionRecord(attempts=1), entry("made", "sales"))
        await store.add_key(KEY)
        await store.copy_to(kept / "agent.db.copy")
        await store.close()
    shutil.copytree(kept, root, dirs_exist_ok=True)
    return root / "agent.db"


async def opening(root: Path, failing: Failing) -> None:
    path = await lay_filled(root)
    with failing:
        await (await Store.open(path)).close()
    store = await Store.open(path)
    assert store.rebuilt_from == ()
    assert await store.keys() == [KEY]
    await store.close()


async def writing(root: Path, failing: Failing) -> None:
    path, done = await lay_filled(root), 1
    store = await Store.open(path)
    with failing:
        await store.save(SALES, SessionRecord(attempts=2), entry("changed"))
        done = 2
        await store.copy_to(path.with_name("agent.db.copy"))
    check_whole(path.with_name("agent.db.copy"))
    assert done == 2 or failing.error
    await store.append(entry("after"))
    await store.copy_to(path.with_name("agent.db.copy"))
    await store.close()
    again = await Store.open(path)
    assert again.rebuilt_from == ()
    ((_, record),) = await again.instances()
    assert record.attempts in (done, 2)
    changes = ["changed"] * (record.attempts - 1)
    assert [its.kind for its in await again.history()] == ["after", *changes, "made"]
    await again.close()


async def rebuilding(root: Path, failing: Failing) -> None:
    path, damage = await lay_filled(root), b"damaged" * 1000
    path.write_bytes(damage)
    with failing:
        await (await Store.open(path)).close()
    store = await Store.open(path)
    assert not await store.instances(), "they come from their folders"
    assert await store.keys() == [KEY]
    await store.close()
    assert damage in [its.read_bytes() for its in root.glob("agent.db.damaged-*")]


def play_out(root: Path, failing: Failing, work: Callable[[], None]) -> None:
    """A process of its own is killed. What it did stands in the file `said` beside the disk."""
    root.with_name("said").write_text("")
    if failing.fault.error != KILL:
        with failing:
            work()
        return
    with failing:
        if pid := os.fork():
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, -9)
            return
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)


def say(root: Path, *numbers: int) -> None:
    with root.with_name("said").open("a") as file:
        file.writelines(f"{number}\n" for number in numbers)


def said(root: Path) -> list[int]:
    return [int(line) for line in root.with_name("said").read_text().split()]


def arriving(root: Path, failing: Failing) -> None:
    """WhatsApp gives again what it heard nothing of."""

    def keep() -> None:
        file, waiting = file_at(root), list[int]()
        for begin, end in ((0, 1), (1, 13)):
            waiting += range(begin, end)
            with suppress(OSError, sqlite3.Error, StoreError):
                file.append(messages(waiting))
                say(root, *waiting)
                waiting.clear()
                settle(file, newest(file))
        assert not file.said, "a whole file counts as damaged"

    play_out(root, failing, keep)
    file = file_at(root)
    found = numbers_of(read_all(file))
    assert len(found) == len({*found}) and {*said(root)} <= {*found}
    file.append(messages(range(20)))
    assert sorted(numbers_of(read_all(file))) == [*range(20)] and not file.said
    file.close()


def leaving(root: Path, failing: Failing) -> None:
    """The numbers of messages as they were taken, and negative once each was sent."""

    async def send() -> None:
        with suppress(StoreError):
            box = await Outbox.open(root / NAME)
            await box.begin(None)
            for number in (1, 2):
                with suppress(StoreError):
                    await take(box, number)
                    say(root, number)
            with suppress(StoreError):
                for row in (await box.waiting())[:1]:
                    say(root, 100 + number_of(row))
                    await box.change(row.number, State.SENDING, begun_wall=1.0, tries=1)
                    await box.change(row.number, State.SENT, message_id=f"W{row.id}")
                    say(root, -number_of(row))
            await box.writer.close()

    def number_of(row: OutMessage) -> int:
        return int(row.id.removeprefix("out_"))

    async def take(box: Outbox, number: int) -> None:
        now, of = time.time(), (SALES.id, 0.0, "", "1", "1", "text", State.ACCEPTED)
        row = OutMessage(0, f"out_{number}", *of, now, now, now + 3600)
        await box.take(row, '{"text": "x"}', lambda _row, _again: None)

    async def look() -> None:
        box = await Outbox.open(root / NAME)
        await box.begin(None)
        waits, told = {number_of(row) for row in await box.waiting()}, {*said(root)}
        lost = {it for it in told if 0 < it < 100 and 100 + it not in told} - waits
        assert (box.opened_so, lost, {it for it in waits if -it in told}) == ("", set(), set())
        await take(box, 9)
        assert len(await box.waiting()) == len(waits) + 1
        await box.writer.close()

    play_out(root, failing, lambda: asyncio.run(send()))
    asyncio.run(look())


KEEPERS = (arriving, leaving)
VAULT = (
    *(identity, creation, taking_over, taking, pruning, retiring, giving_back, renewing),
    *(restoring, starting, marking),
)
SCENARIOS = {"vault": VAULT, "databases": (opening, writing, rebuilding, *KEEPERS)}


def sweep(play: Callable[[Path, Failing], Coroutine[Any, Any, None] | None]) -> None:
    """In the program whose operations fail."""
    tree._COARSE = 0.0
    root = Path(os.environ["WA_TESTS_FOLDER"])
    lasting = (errno.EIO if play in VAULT else errno.EROFS, 1000)
    for error, many in [*FAULTS, lasting, *[(KILL, 1)] * (play in KEEPERS)]:
        for first in count():
            root.mkdir(mode=0o700)
            failing = Failing(Fault(first, many, error))
            try:
                if coroutine := play(root, failing):
                    asyncio.run(coroutine)
            except BaseException:
                fault = f"{errno.errorcode.get(error)} from {first} on, {many} times"
                print(f"{play.__name__}: {fault}: {failing.error!r}")
                raise
            shutil.rmtree(root)
            if failing.count <= first:
                break
        assert first > 0 or play is marking, "it has operations"


@pytest.mark.parametrize("of", SCENARIOS)
def test_whichever_operation_fails_nothing_is_lost_and_the_next_try_succeeds(of: str) -> None:
    """One program for many: to start one takes as long as many a sweep."""
    all_of = f"[sweep(play) for play in SCENARIOS[{of!r}]]"
    with folder_in_memory() as place:
        disk = FailingOperations(place, place / "disk")
        done = subprocess.run(
            [sys.executable, "-c", f"from {__name__} import SCENARIOS, sweep; {all_of}"],
            env={**os.environ, **disk.environment},
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
