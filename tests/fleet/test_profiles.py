"""Browser profiles in a real restic repository: saved, moved, refused."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.core.model import InstanceId
from agent.errors import ConfigError, Refused, TryLater, VaultError, WaError
from agent.fleet.copies.env_file import read_env_file
from agent.fleet.copies.profile import Pointer, parse_pointer, render_pointer
from agent.fleet.copies.restic import Restic
from agent.fleet.key import copy_context
from agent.supervise.facts import Facts
from agent.supervise.fleet.stored.profiles import Profiles
from agent.vault.copies.snapshots import list_snapshots
from agent.vault.identity import read_identity
from agent.vault.trash import list_trash
from tests.conftest import Eventually
from tests.fleet.sites import KEY, Site, names
from tests.lacking import lacks

WEB = InstanceId("web-1")
STORE = "profile/Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.leveldb"

MakeSite = Callable[[str], Awaitable[Any]]


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Making a repository takes seconds: its password is made slow on purpose."""
    if shutil.which("restic") is None:
        lacks("restic is not installed")
    folder = tmp_path_factory.mktemp("restic")
    restic = Restic(str(folder / "repository"), KEY.profiles_password, folder / "cache")
    asyncio.run(restic.make())
    return folder / "repository"


@pytest.fixture
def restic(made_once: Path, tmp_path: Path) -> Restic:
    repository = tmp_path / "repository"
    shutil.copytree(made_once, repository)
    return Restic(str(repository), KEY.profiles_password, tmp_path / "cache")


def with_profiles(site: Site, restic: Restic) -> None:
    site.arrivals.restic = restic
    site.replicas.profiles = Profiles(restic, site.coordinator, KEY, site.keeping, site.root)


async def web_of(site: Site, restic: Restic) -> Facts:
    with_profiles(site, restic)
    facts = await site.add(WEB, "web")
    (site.root / WEB / "session" / STORE).mkdir(parents=True)
    change(site, b"1")
    return facts


def change(site: Site, content: bytes) -> None:
    folder = site.root / WEB / "session" / STORE
    (folder / "CURRENT").write_text("MANIFEST-000001\n")
    (folder / "MANIFEST-000001").write_bytes(b"m")
    (folder / "000005.ldb").write_bytes(content + os.urandom(200_000))


def content_of(site: Site) -> bytes:
    return (site.root / WEB / "session" / STORE / "000005.ldb").read_bytes()[:1]


async def pointer_of(site: Site) -> Pointer:
    stored = await site.coordinator.stored(WEB)
    assert stored is not None
    return parse_pointer(KEY.open(copy_context(WEB, stored.epoch), stored.packed))


async def snapshots_of(restic: Restic) -> list[dict[str, Any]]:
    return list(json.loads(await restic._run("snapshots", "--json")))


async def test_a_planned_move_of_a_profile_is_exact(site: MakeSite, restic: Restic):
    a, b = await site("a"), await site("b")
    facts = await web_of(a, restic)
    await a.replicas.flush(facts)
    (snapshot,) = await snapshots_of(restic)
    assert sorted(snapshot["tags"]) == ["epoch=0", f"instance={WEB}"]
    assert snapshot["id"].startswith((await pointer_of(a)).snapshot)
    owned = await a.hand_over(b, WEB)
    with pytest.raises(Refused) as refused:
        await b.arrivals.fetch(owned)
    assert refused.value.code == "no_profiles"

    with_profiles(b, restic)
    arrived = await b.arrivals.fetch(owned)
    assert arrived.copied
    assert content_of(b) == b"1"
    identity = read_identity(b.root / WEB)
    assert (identity.paired, identity.instance.leased) == (True, True)
    assert identity.lineage == read_identity(a.root / WEB).lineage
    assert [one.good for one in list_snapshots(b.root, WEB)] == [True]
    assert names(b.root / ".staging") == []

    # And home again, where the old folder and the old snapshots are.
    change(b, b"2")
    back = b.registry.add(identity.instance, arrived.record)
    await b.replicas.flush(back)
    again = await a.arrivals.fetch(await b.hand_over(a, WEB))
    assert content_of(a) == b"2"
    assert [one.name for one in list_trash(a.root)] == [again.trash]


@pytest.mark.parametrize("files", [True, False])
async def test_an_unpaired_profile_moves_with_nothing(site: MakeSite, restic: Restic, files: bool):
    a, b = await site("a"), await site("b")
    with_profiles(a, restic)
    facts = await a.add(WEB, "web", paired=False)
    if files:
        (a.root / WEB / "session" / "profile").mkdir()
        (a.root / WEB / "session" / "profile" / "Local State").write_text("{}")
    await a.replicas.flush(facts)
    arrived = await b.arrivals.fetch(await a.hand_over(b, WEB))
    assert not arrived.identity.paired
    assert names(b.root / WEB / "session") == []
    assert await snapshots_of(restic) == []


async def test_a_paired_profile_without_its_files_is_not_handed_over(
    site: MakeSite, restic: Restic
):
    a = await site("a")
    facts = await web_of(a, restic)
    await a.keeping.take(facts, "while all was well")
    shutil.rmtree(a.root / WEB / "session" / "profile")
    with pytest.raises(WaError):
        await a.replicas.flush(facts)
    (a.root / WEB / "session" / "profile").mkdir()
    (a.root / WEB / "session" / "profile" / "Local State").write_text("{}")
    with pytest.raises(VaultError) as refused:
        await a.replicas.flush(facts)
    assert refused.value.code == "not_whole", "and no older snapshot goes for it"


async def test_every_new_snapshot_is_saved_once_and_a_few_are_kept(
    site: MakeSite, restic: Restic, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("agent.fleet.copies.restic.KEEP", 1)
    monkeypatch.setattr("agent.supervise.fleet.stored.profiles.TIDY_AFTER", 2)
    a = await site("a")
    facts = await web_of(a, restic)
    saved = set()
    async with a.sending():
        for number in range(2):
            change(a, b"%d" % number)
            await a.keeping.take(facts, "a test")
            mark = (facts.last_snapshot_wall,)
            await eventually(lambda: a.replicas.of(WEB) and a.replicas.of(WEB).mark, mark)
            saved.add((await pointer_of(a)).snapshot)
        await eventually(lambda: len(snapshot_files(restic)) == 1, within=30)
    assert len(saved) == 2
    left = await snapshots_of(restic)
    newest = (await pointer_of(a)).snapshot
    assert any(each["id"].startswith(newest) for each in left)
    # The next agent of this machine knows it by what is stored.
    a.replicas._of.clear()
    async with a.sending():
        await eventually(lambda: a.replicas.of(WEB) and a.replicas.of(WEB).mark, within=30)
    assert (await pointer_of(a)).snapshot == newest


async def test_nothing_is_handed_over_that_the_repository_does_not_give_back(
    site: MakeSite, restic: Restic
):
    a = await site("a")
    facts = await web_of(a, restic)
    save = Restic.save

    async def saved_and_spoiled(*words: Any) -> str:
        found = await save(*words)
        packs = sorted(
            Path(restic.repository, "data").rglob("*/*"), key=lambda it: it.stat().st_size
        )
        packs[-1].chmod(0o600)
        with packs[-1].open("r+b") as file:
            file.seek(100)
            file.write(b"spoiled" * 10)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Restic, "save", saved_and_spoiled)
        with pytest.raises(VaultError):
            await a.replicas.flush(facts)
    assert await a.coordinator.stored(WEB) is None


async def test_files_that_differ_from_their_manifest_are_found(
    site: MakeSite, restic: Restic, tmp_path: Path
):
    a = await site("a")
    taken = await a.keeping.take(await web_of(a, restic), "a test")
    assert taken.manifest is not None
    listing = taken.manifest.listing
    found = await restic.save(taken.path, WEB, 0)
    await restic.verify(found, "files/", listing)
    first, *rest = listing.files
    changed = replace(listing, files=(replace(first, sha256="0" * 64), *rest))
    with pytest.raises(VaultError, match="differs"):
        await restic.verify(found, "files/", changed)
    more = replace(listing, files=(*listing.files, replace(first, path="more")))
    with pytest.raises(VaultError, match="is missing"):
        await restic.verify(found, "files/", more)


async def test_a_snapshot_that_is_gone_leaves_nothing_behind(site: MakeSite, restic: Restic):
    a, b = await site("a"), await site("b")
    facts = await web_of(a, restic)
    await a.replicas.flush(facts)
    gone = render_pointer(Pointer("deadbeef", "x"))
    sealed = KEY.seal(copy_context(WEB, 0), gone)
    assert await a.coordinator.store_copy(a.member, WEB, 0, sealed)
    b.arrivals.restic = restic
    with pytest.raises(VaultError):
        await b.arrivals.fetch(await a.hand_over(b, WEB))
    assert not (b.root / WEB).exists()
    assert names(b.root / ".snapshots" / WEB) == []


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b'{"snapshot": "a"}', b'{"snapshot": "-x", "name": ""}']
)
def test_a_pointer_that_names_no_snapshot_is_refused(raw: bytes):
    with pytest.raises(VaultError) as refused:
        parse_pointer(raw)
    assert refused.value.code == "damaged"


# restic itself


async def failing(restic: Restic, folder: Path) -> WaError:
    with pytest.raises(WaError) as failed:
        await restic.save(folder, WEB, 0)
    return failed.value


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "file").write_bytes(os.urandom(2_000_000))
    return folder


async def test_another_fleets_key_does_not_open_the_repository(restic: Restic, source: Path):
    restic.password = "another"
    failed = await failing(restic, source)
    assert failed.code == "profiles_password"
    assert restic.repository not in str(failed)


async def test_a_machine_without_restic_says_what_to_install(
    restic: Restic, source: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(source))
    failed = await failing(restic, source)
    assert failed.code == "no_restic"
    assert "apt install restic" in str(failed)


async def test_a_full_repository_is_named(
    restic: Restic, source: Path, small_disk: Callable[[str], Path]
):
    disk = small_disk("size=1m")
    shutil.copytree(restic.repository, disk / "repository")
    restic.repository = str(disk / "repository")
    assert (await failing(restic, source)).code == "profiles_full"


async def test_of_two_machines_at_once_one_makes_the_repository(
    site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """restic alone would let both of them, and neither could read it then."""
    sites = [await site("a"), await site("b")]
    for number, each in enumerate(sites):
        cache = tmp_path / f"cache{number}"
        with_profiles(each, Restic(str(tmp_path / "new"), KEY.profiles_password, cache))
    exists, make = Restic.exists, Restic.make
    looked, made, both_looked = [], [], asyncio.Event()

    async def look_together(restic: Restic) -> bool:
        found = await exists(restic)
        looked.append(found)
        if len(looked) == 2:
            both_looked.set()
        await both_looked.wait()
        return found

    async def note_and_make(restic: Restic) -> None:
        made.append(restic)
        await make(restic)

    monkeypatch.setattr(Restic, "exists", look_together)
    monkeypatch.setattr(Restic, "make", note_and_make)
    both = [each.replicas.profiles.make_repository() for each in sites]
    ends = await asyncio.gather(*both, return_exceptions=True)
    assert [getattr(end, "code", "") for end in ends if end] in ([], ["profiles_absent"])
    assert looked[:2] == [False, False]
    assert len(made) == 1
    for each in sites:
        await each.replicas.profiles.make_repository()
        assert await snapshots_of(each.arrivals.restic) == []
    assert len(made) == 1


def snapshot_files(restic: Restic) -> list[str]:
    return names(Path(restic.repository, "snapshots"))


def locks(restic: Restic) -> list[str]:
    return names(Path(restic.repository, "locks"))


def started(restic: Restic, *words: str) -> "subprocess.Popen[bytes]":
    """A restic of another program."""
    return subprocess.Popen(
        ["restic", "-r", restic.repository, "--cache-dir", str(restic.cache), *words],
        env={**os.environ, "RESTIC_PASSWORD": restic.password},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


async def test_the_lock_of_a_killed_restic_is_removed_and_of_a_living_one_is_kept(
    restic: Restic, source: Path, eventually: Eventually
):
    await restic.save(source, WEB, 0)
    living = started(restic, "backup", "--stdin")  # it waits for what to save
    try:
        await eventually(lambda: len(locks(restic)) == 1)
        with pytest.raises(TryLater) as refused:
            await restic.prune()
        assert refused.value.code == "profiles_locked"
        assert len(locks(restic)) == 1
        living.send_signal(signal.SIGKILL)
        living.wait()
        assert len(locks(restic)) == 1, "it was not removed"
        await restic.prune()
        assert locks(restic) == []
    finally:
        living.kill()
        living.wait()
        assert living.stdin is not None
        living.stdin.close()


LOCKED_TWICE = """#!/bin/sh
if [ "$1" = backup ] && [ "$(wc -l < {folder}/tries)" -lt 3 ]; then
    echo x >> {folder}/tries
    echo 'Fatal: unable to create lock in backend: repository is already locked exclusively' >&2
    exit 1
fi
exec {restic} "$@"
"""


async def test_n15_a_save_waits_for_a_machine_that_has_the_repository_for_itself(
    restic: Restic, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("agent.fleet.copies.restic.LOOK_AGAIN", 0.01)
    folder = tmp_path / "locked"
    folder.mkdir()
    (folder / "tries").touch()
    (folder / "restic").write_text(
        LOCKED_TWICE.format(folder=folder, restic=shutil.which("restic"))
    )
    (folder / "restic").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    saved = await restic.save(source, WEB, 1)
    assert any(each["id"].startswith(saved) for each in await snapshots_of(restic))
    assert (folder / "tries").read_text() == "x\n" * 3


async def test_n15_what_was_just_saved_stays_wherever_the_clocks_are(
    restic: Restic, source: Path, monkeypatch: pytest.MonkeyPatch
):
    """The clock of the machine that saved it is behind those of the owners before it."""
    monkeypatch.setattr("agent.fleet.copies.restic.KEEP", 2)
    save = [await restic.save(source, WEB, epoch) for epoch in range(3)]
    command = ["backup", "--json", "--host", "wa-fleet", "--time", "2020-01-01 00:00:00"]
    await restic._run(*command, "--tag", f"instance={WEB},epoch=3", ".", cwd=source)
    (behind,) = [it["id"] for it in await snapshots_of(restic) if it["time"].startswith("2020")]
    other = await restic.save(source, InstanceId("web-2"), 0)
    await restic.forget({WEB: behind[:8]})
    left = {it["id"] for it in await snapshots_of(restic)}
    assert {id[:8] for id in left} == {behind[:8], save[2][:8], other[:8]}


HANGING = """#!/bin/sh
tr '\\0' '\\n' < /proc/self/environ > {folder}/environ
tr '\\0' '\\n' < /proc/$$/cmdline > {folder}/words
touch {folder}/written
sleep 300 &
wait
"""


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A restic that never ends, and whose child holds its pipes."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "restic").write_text(HANGING.format(folder=folder))
    (folder / "restic").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def sleepers() -> list[int]:
    return [each.pid for each in psutil.Process().children() if each.name() in ("sh", "restic")]


async def test_a_restic_that_hangs_is_ended_with_its_children(restic: Restic, hanging: Path):
    with pytest.raises(TryLater) as late:
        await restic._run("cat", "config", limit=0.5)
    assert late.value.code == "profiles_timeout"
    assert sleepers() == []


async def test_a_cancelled_move_leaves_no_restic(
    restic: Restic, hanging: Path, source: Path, eventually: Eventually
):
    moving = asyncio.create_task(restic.save(source, WEB, 0))
    await eventually((hanging / "written").exists)
    moving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await moving
    assert sleepers() == []


async def test_no_secret_stands_in_a_command_line_or_the_environment(
    restic: Restic, hanging: Path, source: Path, eventually: Eventually
):
    restic.env = {"AWS_SECRET_ACCESS_KEY": "storage-secret"}
    running = asyncio.create_task(restic._run("backup", ".", cwd=source))
    await eventually((hanging / "written").exists)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    words, environ = ((hanging / name).read_text() for name in ("words", "environ"))
    for secret in (restic.password, restic.repository, "storage-secret"):
        assert secret not in words
        assert secret not in repr(restic)
    assert restic.password not in environ
    assert "AWS_SECRET_ACCESS_KEY=storage-secret" in environ


async def test_errors_hide_what_the_storage_needs(restic: Restic):
    restic.env = {"AWS_SECRET_ACCESS_KEY": "storage-secret"}
    error = restic._explained(
        "backup", 1, "Fatal: storage-secret is wrong for " + restic.repository
    )
    assert str(error).endswith("restic backup: (hidden) is wrong for (hidden)")


@pytest.mark.parametrize(
    ("content", "mode", "found"),
    [
        ("# a store\nAWS_ACCESS_KEY_ID=a=b\n\n", 0o600, {"AWS_ACCESS_KEY_ID": "a=b"}),
        ("AWS_ACCESS_KEY_ID=a", 0o640, None),
        ("AWS ACCESS=a", 0o600, None),
        ("no equals", 0o600, None),
        ("RESTIC_PASSWORD=x", 0o600, None),
        ("LD_PRELOAD=/tmp/x", 0o600, None),
        ("\udcff", 0o600, None),
    ],
)
def test_the_storages_variables(tmp_path: Path, content: str, mode: int, found: Any):
    path = tmp_path / "env"
    path.write_bytes(content.encode(errors="surrogateescape"))
    path.chmod(mode)
    if found is not None:
        assert read_env_file(path) == found
        return
    with pytest.raises(ConfigError) as refused:
        read_env_file(path)
    assert refused.value.field == "fleet.profiles_env_file"
    assert content not in str(refused.value)
