"""Copies of sessions in a real PostgreSQL: sent while they change, and made folders elsewhere."""

import asyncio
import fcntl
import hashlib
import io
import itertools
import json
import tarfile
import time
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import pytest

from agent.clock import boot_now
from agent.core.model import (
    Instance,
    UnitState,
    UnitStatus,
)
from agent.engines.sandbox.files import SessionFile, read_session, write_session
from agent.errors import Refused, TooLarge, TryLater, VaultError, WaError
from agent.files import write_whole
from agent.fleet.coordinator import NewSession, Owned, Stored
from agent.fleet.copies import take
from agent.fleet.copies.arrive import EPOCH, epoch_here, open_copy
from agent.fleet.copies.take import take_copy
from agent.fleet.key import FleetKey, copy_context
from agent.instance_file import NAME, parse_object
from agent.supervise.facts import Facts
from agent.supervise.fleet.stored.replicas import LONGEST_PAUSE
from agent.vault.archives.pack import INNER
from agent.vault.archives.untar import Limits
from agent.vault.identity import Identity, create, read_identity
from agent.vault.trash import list_trash
from agent.vault.tree import read_file
from tests.conftest import Eventually
from tests.fleet.sites import KEY, SHOP, names
from tests.waiting import Pauses

UNUSED = asyncio.TaskGroup()
"""It was not entered: a task begun in it is an error."""


def counter_of(stored: Stored | None, tmp_path: Path) -> int | None:
    """What the stored copy holds, read as another machine would."""
    if stored is None:
        return None
    root = tmp_path / "elsewhere"
    root.mkdir(exist_ok=True)
    owned = Owned(SHOP, stored.epoch, "sandbox", "running", "newest", {}, "", {})
    archive = open_copy(owned, stored, KEY)
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        inside = tar.extractfile(f"{INNER}sandbox.json")
        assert inside is not None
        (root / "sandbox.json").write_bytes(inside.read())
    found = read_session(root)
    return found.counter if found else None


async def holds(site: Any, counter: int, tmp_path: Path) -> bool:
    """Its stored copy is of that state, and it knows of nothing newer."""
    known = site.replicas.of(SHOP)
    stored = await site.coordinator.stored(SHOP)
    return counter_of(stored, tmp_path) == counter and known.mark is not None


async def test_a_change_is_stored_within_the_lag_and_what_rests_is_not_sent_again(
    site, tmp_path: Path, eventually: Eventually, pauses: Pauses
):
    a = await site("a")
    await a.add()
    sent = []
    store_copy = a.coordinator.store_copy

    async def counted(*words):
        sent.append(words[1])
        return await store_copy(*words)

    a.coordinator.store_copy = counted
    async with a.sending():
        await eventually(lambda: a.replicas.of(SHOP) and a.replicas.of(SHOP).stored_at)
        assert a.replicas.behind_seconds() == 0.0
        assert a.replicas.stored_bytes() == len((await a.coordinator.stored(SHOP)).packed)
        for counter in range(1, 4):
            a.write(SHOP, counter)
            begun, held = time.monotonic(), None
            while held != counter:
                held = counter_of(await a.coordinator.stored(SHOP), tmp_path)
                await asyncio.sleep(0.01)
                assert time.monotonic() - begun < 5.0 + pauses.total
        await eventually(lambda: a.replicas.of(SHOP).mark is not None)
        before = len(sent)
        a.replicas.of(SHOP).not_before = 0.0
        await a.replicas._look_at_all(UNUSED)
        assert len(sent) == before <= 2 * 4


async def test_a_session_that_never_rests_is_copied_all_the_same(
    site, tmp_path: Path, eventually: Eventually
):
    a = await site("a")
    await a.add()
    writing = True

    def write() -> None:
        counter = 0
        while writing:
            counter += 1
            a.write(SHOP, counter)

    busy = asyncio.create_task(asyncio.to_thread(write))
    try:
        async with a.sending():
            first = await eventually(lambda: a.replicas.of(SHOP) and a.replicas.of(SHOP).stored_at)
            await eventually(lambda: a.replicas.of(SHOP).stored_at > first)
            writing = False
            await busy
            await eventually(lambda: holds(a, a.read().counter, tmp_path))
    finally:
        writing = False


async def test_a_change_within_a_tick_of_the_clock_is_copied_with_the_next_look(
    site, monkeypatch: pytest.MonkeyPatch
):
    a = await site("a")
    facts = await a.add()
    replica = a.replicas._replica(SHOP, 0)
    for quiet, settled in ((3600.0, False), (0.0, True)):
        monkeypatch.setattr("agent.fleet.copies.take.QUIET", quiet)
        await a.replicas._send(facts, replica, exact=False)
        assert (replica.mark is not None) is settled


def test_the_files_of_a_copy_fit_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What changes while another file is read is read again, and what went away is left out."""
    create(tmp_path, Instance(SHOP, "sandbox", True))
    folder = tmp_path / SHOP / "session"
    write_session(folder, SessionFile(True, "49151", "phone", 1))
    for name in ("a", "b", "z"):
        (folder / name).write_bytes(b"1")
    changes = iter(("a", "b"))

    def read_and_change(top, path):
        yield from read_file(top, path)
        if path == "z" and (name := next(changes, None)):
            (folder / f".{name}.tmp").write_bytes(b"2")
            (folder / f".{name}.tmp").rename(folder / name)
            (folder / "z").unlink()
            (folder / "z").write_bytes(b"2")

    monkeypatch.setattr(take, "read_file", read_and_change)
    assert files_of(archive_of(tmp_path)) == {"a": b"2", "b": b"2", "z": b"2"}
    changes = (name for name in itertools.repeat("a"))
    with pytest.raises(TryLater) as changing:
        archive_of(tmp_path)
    assert changing.value.code == "changing"


def files_of(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        inside = {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]
    return {
        name.removeprefix(INNER): raw for name, raw in inside.items() if len(name) == len(INNER) + 1
    }


def test_a_store_too_large_for_a_row_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    create(tmp_path, Instance(SHOP, "sandbox", True))
    folder = tmp_path / SHOP / "session"
    write_session(folder, SessionFile(True, "49151", "phone", 1))
    monkeypatch.setattr(take, "LARGEST", 100)
    with pytest.raises(TooLarge, match="100 are allowed") as packed_size:
        archive_of(tmp_path)
    monkeypatch.setattr(take, "LIMITS", Limits(unpacked=100))
    with pytest.raises(TooLarge, match="1 files of") as size:
        archive_of(tmp_path)
    assert packed_size.value.code == size.value.code == "copy_too_large"


async def test_files_that_are_not_whole_replace_no_copy(
    site, tmp_path: Path, eventually: Eventually
):
    a = await site("a")
    facts = await a.add()
    await a.replicas.flush(facts)
    (a.root / SHOP / "session" / "sandbox.json").write_bytes(b"")
    with pytest.raises(VaultError) as refused:
        await a.replicas.flush(facts)
    assert refused.value.code == "not_whole"
    (a.root / SHOP / "session" / "sandbox.json").unlink()
    async with a.sending():
        await eventually(lambda: "it is paired" in a.replicas.behind(SHOP)[1])
        assert 0 < a.replicas.behind(SHOP)[0] <= a.replicas.behind_seconds()
    assert counter_of(await a.coordinator.stored(SHOP), tmp_path) == 0


async def test_a_store_in_the_middle_of_its_pairing_is_copied_as_soon_as_it_is_whole(
    site, tmp_path: Path, eventually: Eventually, caplog, monkeypatch: pytest.MonkeyPatch
):
    a = await site("a")
    await a.add()
    file = a.root / SHOP / "session" / "sandbox.json"
    whole = file.read_bytes()
    file.unlink()
    async with a.sending():
        await eventually(lambda: a.replicas.of(SHOP) and a.replicas.of(SHOP).problem)
        assert await a.coordinator.stored(SHOP) is None
        assert "cannot copy" not in caplog.text
        write_whole(file, whole)
        await eventually(lambda: a.replicas.of(SHOP).stored_at, within=LONGEST_PAUSE - 5)
        assert a.replicas.of(SHOP).problem == ""
        assert "cannot copy" not in caplog.text
        monkeypatch.setattr("agent.supervise.fleet.stored.replicas.PATIENCE", 0.0)
        file.unlink()
        await eventually(lambda: "cannot copy shop" in caplog.text)
    assert caplog.text.count("cannot copy shop") == 1


async def test_a_refused_copy_ends_the_sending_and_is_said(site, eventually: Eventually, caplog):
    a, b = await site("a"), await site("b")
    facts = await a.add()
    await a.replicas.flush(facts)
    owned = dict(a.owned)
    await a.hand_over(b)
    a.owned = owned  # it did not hear of it yet
    a.write(SHOP, 7)
    async with a.sending():
        await eventually(lambda: a.replicas.of(SHOP).refused)
        assert "another machine owns the session" in a.replicas.of(SHOP).problem
        a.coordinator.store_copy = None  # a further try would fail loudly
        a.write(SHOP, 8)
        a.replicas.of(SHOP).not_before = 0.0
        a.replicas.of(SHOP).changed_at = -1000.0
        await a.replicas._look_at_all(UNUSED)
    assert (await b.coordinator.stored(SHOP)).epoch == 0
    assert caplog.text.count("refused a copy of shop") == 1


async def test_while_the_database_is_away_copies_wait_and_none_is_lost(
    site, tmp_path: Path, eventually: Eventually
):
    a = await site("a")
    await a.add()
    store_copy, away = a.coordinator.store_copy, True
    tries = []

    async def broken(*words):
        tries.append((boot_now(), a.replicas._pause))
        if away:
            raise TryLater("cannot reach the fleet's database", code="fleet_database")
        return await store_copy(*words)

    a.coordinator.store_copy = broken
    a.replicas._pause = 0.5
    async with a.sending():
        await eventually(lambda: len(tries) >= 4)
        for (tried, pause), (again, longer) in itertools.pairwise(tries):
            assert again - tried >= pause
            assert longer == 2 * pause, "each pause is longer"
        assert a.replicas.behind_seconds() > 1
        a.write(SHOP, 5)
        away = False
        await eventually(lambda: holds(a, 5, tmp_path), within=60)


@pytest.mark.parametrize(
    ("trouble", "stored_ago", "again"),
    [
        (("", True), 5.0, True),
        (("", True), 100.0, False),
        (("records were lost", False), 100.0, True),
    ],
)
async def test_a_copy_that_the_database_may_have_lost_is_sent_again(
    site, eventually: Eventually, trouble: tuple[str, bool], stored_ago: float, again: bool
):
    a = await site("a")
    await a.add()
    async with a.sending():
        await eventually(lambda: a.replicas.of(SHOP) and a.replicas.of(SHOP).mark)
    replica = a.replicas.of(SHOP)
    replica.stored_at, replica.not_before = replica.stored_at - stored_ago, 0.0
    before = replica.stored_at
    a.replicas.trouble = lambda: trouble
    async with a.sending():
        if again:
            await eventually(lambda: replica.stored_at > before)
    await a.replicas._look_at_all(UNUSED)
    assert (replica.stored_at > before) is again


async def test_a_planned_move_brings_the_exact_files(site):
    a, b = await site("a"), await site("b")
    facts = await a.add()
    a.write(SHOP, 41)
    facts.record = replace(facts.record, reason="logout", needs_passkey=True)
    await a.replicas.flush(facts)
    owned = await a.hand_over(b)
    arrived = await b.arrivals.fetch(owned)
    assert b.read() == a.read()
    assert (arrived.copied, arrived.trash) == (True, "")
    identity = read_identity(b.root / SHOP)
    assert identity == arrived.identity
    assert (identity.paired, identity.account, identity.ended) == (True, "49151", "logout")
    assert identity.instance.leased
    assert identity.needs_passkey
    assert identity.lineage == read_identity(a.root / SHOP).lineage
    assert arrived.record.reason == "logout"
    assert arrived.record.first_messages
    assert epoch_here(b.root, SHOP) == owned.epoch == 1
    assert names(b.root / ".staging") == []
    # Asked again, as after a crash before it was recorded: the folder stays as it is.
    b.write(SHOP, 42)
    again = await b.arrivals.fetch(owned)
    assert (again.copied, again.identity) == (False, arrived.identity)
    assert b.read().counter == 42


async def test_a_folder_from_an_earlier_ownership_is_retired_and_never_run(site):
    a, b = await site("a"), await site("b")
    facts = await a.add()
    await a.replicas.flush(facts)
    await b.arrivals.fetch(await a.hand_over(b))
    b_facts = b.registry.add(read_identity(b.root / SHOP).instance, replace(facts.record))
    b.write(SHOP, 9)
    await b.replicas.flush(b_facts)
    arrived = await a.arrivals.fetch(await b.hand_over(a))
    assert a.read().counter == 9
    (trash,) = list_trash(a.root)
    assert trash.name == arrived.trash
    assert read_session(trash.path / "session").counter == 0  # type: ignore[union-attr]
    assert epoch_here(a.root, SHOP) == 2


async def test_a_worker_that_still_holds_the_folder_keeps_it(site):
    a, b = await site("a"), await site("b")
    facts = await a.add()
    await a.replicas.flush(facts)
    owned = await a.hand_over(b)
    create(b.root, replace(facts.instance, settings={}))
    with (b.root / SHOP / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Refused) as refused:
            await b.arrivals.fetch(owned)
    assert refused.value.code == "still_running"
    assert names(b.root / ".staging") == []
    assert read_session(b.root / SHOP / "session") is None


async def test_a_session_that_never_ran_begins_empty_and_every_other_waits_for_its_files(site):
    a, b = await site("a"), await site("b")
    assert await a.coordinator.create(a.member, NewSession("new", "sandbox"), b.member.id)
    await b.renew()
    arrived = await b.arrivals.fetch(b.owned["new"])
    assert names(b.root / "new" / "session") == []
    assert (arrived.copied, arrived.identity.paired) == (False, False)
    await a.add()
    # It paired after this was said, and before a copy was stored.
    await a.coordinator.publish(a.member, {SHOP: {"paired": False}})
    owned = await a.hand_over(b)
    with pytest.raises(VaultError) as missing:
        await b.arrivals.fetch(owned)
    assert missing.value.code == "copy_missing"
    assert "a had its folder last" in str(missing.value)
    assert not (b.root / SHOP).exists()


async def test_an_unpaired_session_moves_with_what_it_has(site):
    a, b = await site("a"), await site("b")
    facts = await a.add(paired=False)
    await a.replicas.flush(facts)
    arrived = await b.arrivals.fetch(await a.hand_over(b))
    assert (arrived.copied, arrived.identity.paired, arrived.record.first_messages) == (
        True, False, "",
    )  # fmt: skip


async def test_in_the_first_epoch_the_folder_here_is_all_there_is(site):
    """Of a fleet that was left and joined again: its database counts from the beginning."""
    a = await site("a")
    await a.add()
    told = parse_object((a.root / SHOP / NAME).read_bytes())
    (a.root / SHOP / NAME).write_text(json.dumps(told | {EPOCH: 5}))
    arrived = await a.arrivals.fetch(a.owned[SHOP])
    assert not arrived.copied
    assert a.read().counter == 0
    assert list_trash(a.root) == []


# What may not come in


def archive_of(root: Path, **changes: Any) -> bytes:
    identity = Identity(Instance(SHOP, "sandbox", True), True, "49151")
    return take_copy(root, replace(identity, **changes), exact=True, wall=1.0).packed


def packed(manifest: bytes, *members: tuple[str, bytes, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        for name, content, kind in (("manifest.json", manifest, tarfile.REGTYPE), *members):
            member = tarfile.TarInfo(name)
            member.size, member.type = len(content), kind
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def slipping(whole: bytes, path: str) -> bytes:
    """The same archive with one more file, which leads out of the folder, listed and all."""
    with tarfile.open(fileobj=io.BytesIO(whole), mode="r:gz") as tar:
        told = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
        content = tar.extractfile(f"{INNER}sandbox.json").read()  # type: ignore[union-attr]
    told["files"].insert(0, {"path": path, "size": 1, "sha256": hashlib.sha256(b"x").hexdigest()})
    told["folders"] = [str(each) for each in reversed(PurePath(path).parents)][1:]
    return packed(
        json.dumps(told).encode(),
        (INNER + path, b"x", tarfile.REGTYPE),
        (f"{INNER}sandbox.json", content, tarfile.REGTYPE),
    )


def sealed(content: bytes, id: str = SHOP, epoch: int = 0) -> bytes:
    return KEY.seal(copy_context(id, epoch), content)


def flipped(content: bytes) -> bytes:
    """With another last byte, whatever it was."""
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    ("make", "code"),
    [
        pytest.param(lambda it: flipped(sealed(it)), "damaged", id="tampered"),
        pytest.param(lambda it: sealed(it)[:-40], "damaged", id="truncated"),
        pytest.param(lambda it: b"", "damaged", id="empty"),
        pytest.param(lambda it: it, "damaged", id="not sealed"),
        pytest.param(lambda it: sealed(it, "other"), "damaged", id="of another session"),
        pytest.param(lambda it: sealed(it, epoch=1), "damaged", id="of another epoch"),
        pytest.param(
            lambda it: FleetKey(b"x" * 32).seal(copy_context(SHOP, 0), it),
            "other_key",
            id="of another fleet",
        ),
        pytest.param(lambda it: sealed(it[:-9]), "bad_archive", id="an archive cut short"),
        pytest.param(lambda it: sealed(it + b"x"), "bad_archive", id="an archive with more"),
        pytest.param(lambda it: sealed(slipping(it, "../../x")), "bad_archive", id="zip slip"),
        pytest.param(lambda it: sealed(slipping(it, "/etc/x")), "bad_archive", id="absolute"),
        pytest.param(
            lambda _it: sealed(bytes(take.LARGEST_SEALED)),
            "copy_too_large",
            id="too large",
        ),
    ],
)
async def test_a_copy_that_is_not_what_it_should_be_leaves_nothing_behind(site, make, code):
    a, b = await site("a"), await site("b")
    await a.add()
    assert await a.coordinator.store_copy(a.member, SHOP, 0, make(archive_of(a.root)))
    owned = await a.hand_over(b)
    create(b.root, Instance(SHOP, "sandbox", True, leased=True))  # from an earlier ownership
    before = names(b.root / SHOP)
    with pytest.raises(WaError) as refused:
        await b.arrivals.fetch(owned)
    assert refused.value.code == code
    assert names(b.root / SHOP) == before
    assert names(b.root / ".staging") == []
    assert list_trash(b.root) == []


async def test_a_copy_of_a_later_epoch_than_ours_is_not_used(site):
    a, b = await site("a"), await site("b")
    facts = await a.add()
    await a.replicas.flush(facts)
    owned = await a.hand_over(b)
    assert await b.coordinator.store_copy(b.member, SHOP, 1, sealed(archive_of(a.root), epoch=1))
    with pytest.raises(TryLater) as refused:
        await b.arrivals.fetch(replace(owned, epoch=-1))
    assert refused.value.code == "copy_newer"


async def test_a_copy_from_older_records_than_those_that_named_the_owner_is_not_used(site):
    a, b = await site("a"), await site("b")
    await a.replicas.flush(await a.add())
    owned = await a.hand_over(b)
    with pytest.raises(TryLater, match="lost records") as refused:
        await b.arrivals.fetch(replace(owned, copy=owned.copy + 100))
    assert refused.value.code == "copy_older"


async def test_a_whole_archive_of_another_engine_or_id_is_refused(site):
    a, b = await site("a"), await site("b")
    facts = await a.add()
    await a.replicas.flush(facts)
    owned = await a.hand_over(b)
    with pytest.raises(VaultError) as refused:
        await b.arrivals.fetch(replace(owned, engine="baileys"))
    assert refused.value.code == "damaged"
    assert not (b.root / SHOP).exists()
    assert names(b.root / ".staging") == []


async def test_a_paired_copy_with_damaged_files_is_refused(site):
    a, b = await site("a"), await site("b")
    await a.add()
    unpaired = archive_of(a.root, paired=False)
    with tarfile.open(fileobj=io.BytesIO(unpaired), mode="r:gz") as tar:
        told = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
    told["files"], told["paired"] = [], True
    content = sealed(packed(json.dumps(told).encode()))
    assert await a.coordinator.store_copy(a.member, SHOP, 0, content)
    with pytest.raises(VaultError) as refused:
        await b.arrivals.fetch(await a.hand_over(b))
    assert refused.value.code == "not_whole"
    assert not (b.root / SHOP).exists()
    assert names(b.root / ".staging") == []


# What is not handed over


async def test_a_flush_reads_back_what_the_database_took(site):
    a = await site("a")
    facts = await a.add()
    stored = a.coordinator.stored

    async def another(session):
        found = await stored(session)
        return replace(found, packed=found.packed[:-1])

    a.coordinator.stored = another
    with pytest.raises(TryLater) as refused:
        await a.replicas.flush(facts)
    assert refused.value.code == "copy_differs"


async def test_a_session_that_cannot_be_moved_has_a_reason(site):
    a = await site("a")
    facts = await a.add()
    facts.unit = UnitStatus(UnitState.ACTIVE, "run1", 1234)
    with pytest.raises(Refused) as running:
        await a.replicas.flush(facts)
    assert running.value.code == "still_running"
    web = await a.add("web-1", "web")
    with pytest.raises(Refused, match=r"\[fleet\] profiles") as profile:
        await a.replicas.flush(web)
    assert profile.value.code == "no_profiles"
    remote = Instance(SHOP, "evolution", True, {"backend": "evo"})
    with pytest.raises(Refused) as backend:
        await a.replicas.flush(replace_instance(facts, remote))
    assert backend.value.code == "on_a_backend"
    a.owned = {}
    with pytest.raises(Refused) as foreign:
        await a.replicas.flush(facts)
    assert foreign.value.code == "not_owned"


def replace_instance(facts: Facts, instance: Instance) -> Facts:
    facts.instance, facts.unit = instance, UnitStatus(UnitState.INACTIVE)
    return facts
