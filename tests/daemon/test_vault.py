"""Snapshots, restore, export and import of a real agent with real workers, killed at each step."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import aiohttp
import pytest

from agent.vault.walk import LARGEST_FILE
from tests.daemon.conftest import SETTINGS
from tests.forked import can_fork, fork_agent

REPOSITORY = Path(__file__).parents[2]
BY_THE_CLOCK = "[sessions]\nsnapshot_interval = 0.5\nsnapshot_stable = 0.1\nsnapshots = 2\n"


async def connected(agent, eventually, id="a", **settings):
    """Paired by this one scan: a session that asks for another never connects again."""
    await agent.create(id, scan="manual", **settings)
    await eventually(lambda: agent.status(id), "QR_REQUIRED")
    await agent.do("POST", f"/api/instance/{id}/sandbox/scan")
    await eventually(lambda: agent.status(id), "CONNECTED")


def session_of(agent, id="a"):
    file = agent.state / "sessions" / id / "session" / "sandbox.json"
    return json.loads(file.read_bytes())


def staging(agent):
    return [part.name for part in (agent.state / "sessions" / ".staging").iterdir()]


async def scans_asked_for(agent, id="a"):
    """1 is the first pairing."""
    story = await agent.story(id)
    return sum("→ QR_REQUIRED" in sentence for kind, sentence in story if kind == "status")


async def names(agent, id="a"):
    found = await agent.do("GET", f"/api/instance/{id}/snapshots")
    assert all(not one["problem"] for one in found["snapshots"])
    return [one["name"] for one in found["snapshots"]]


async def cli(agent, *words):
    """The program, forked where it can be; its exit status and what it said."""
    argv = (*map(str, words), "--socket", str(agent.state / "api.sock"))
    with tempfile.TemporaryFile() as out:
        if can_fork(os.environ):
            process = fork_agent(argv, os.environ, out)
        else:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "agent", *argv), stdout=out, stderr=out, cwd=REPOSITORY
            )
        try:
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        out.seek(0)
        return process.returncode, out.read().decode()


async def killed_at(agent, eventually, point, ask):
    """Start the agent with a failpoint, ask, and see it die there; then start it again without.

    The same workers go on, as they do when an agent is killed.
    """
    await agent.stop()
    await agent.start({"WA_FAILPOINT": f"{point}:kill"})
    await eventually(lambda: agent.status("a"), "CONNECTED")
    asked = asyncio.ensure_future(ask())
    assert agent.process is not None
    async with asyncio.timeout(60):
        assert await agent.process.wait() == -signal.SIGKILL
    # A command would wait for the next agent, and ask it again.
    asked.cancel()
    with contextlib.suppress(asyncio.CancelledError, aiohttp.ClientError, ConnectionError):
        await asked
    await agent.start()


async def test_a_snapshot_of_a_running_session_is_whole_and_comes_back(agent, eventually):
    await connected(agent, eventually)
    made = await agent.do("POST", "/api/instance/a/snapshots")
    assert (made["good"], made["state"], made["files"]) == (True, "whole", 1)
    assert await names(agent) == [made["name"]]
    await agent.do("POST", "/api/instance/a/stop")

    async def worker() -> str:
        return str((await agent.show("a"))["unit"]["state"])

    await eventually(worker, "inactive")  # it has saved its session
    file = agent.state / "sessions" / "a" / "session" / "sandbox.json"
    before = session_of(agent)
    file.write_bytes(b"")
    done = await agent.do("POST", f"/api/instance/a/snapshots/{made['name']}/restore", {})
    assert done["trash"].startswith("a.")
    assert session_of(agent)["account"] == before["account"]
    assert await agent.status("a") == "DISCONNECTED", "an operator stopped it"
    await agent.do("POST", "/api/instance/a/start")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    story = await agent.story("a")
    assert await scans_asked_for(agent) == 1
    assert {"snapshot", "restoring", "snapshot_restored"} <= {kind for kind, _ in story}


async def test_restoring_a_running_session_stops_it_and_starts_it_again(agent, eventually):
    await connected(agent, eventually)
    made = await agent.do("POST", "/api/instance/a/snapshots")
    before = await agent.pid("a")
    status, out = await cli(agent, "restore", "a", made["name"])
    assert (status, "a is as it was at" in out) == (0, True), out

    async def back():
        shown = await agent.show("a")
        pid = shown["unit"]["main_pid"]
        return shown["connection_status"] == "CONNECTED" and pid not in (0, before)

    await eventually(back)
    assert (await agent.show("a"))["override"] == "none"
    assert "stopped its unit" not in str(await agent.story("a"))
    status, told = await cli(agent, "why", "a")
    assert (status, "begins to restore" in told) == (0, True)
    assert "the trash has the old session as a." in told


async def test_snapshots_are_made_by_the_clock_and_few_are_kept(make_agent, eventually):
    agent = make_agent(BY_THE_CLOCK)
    await agent.start()
    await connected(agent, eventually)
    await eventually(lambda: names(agent))
    first = (await names(agent))[-1]

    async def pruned():
        found = await names(agent)
        return len(found) == 2 and first not in found

    await eventually(pruned)
    metrics = await agent.do("GET", "/metrics")
    assert 'wa_session_last_snapshot_timestamp_seconds{session="a"}' in metrics
    unpaired = "b"
    await agent.create(unpaired, scan="manual")
    await eventually(lambda: agent.status(unpaired), "QR_REQUIRED")
    assert await names(agent, unpaired) == []


async def test_a_session_whose_snapshots_fail_is_told_as_that_in_the_list_until_one_is_made(
    make_agent, eventually
):
    agent = make_agent(BY_THE_CLOCK)
    await agent.start()
    await connected(agent, eventually)
    link = agent.state / "sessions" / "a" / "session" / "creds"
    link.symlink_to("/etc/passwd")

    async def failure():
        [listed] = (await agent.do("GET", "/api/instances"))["instances"]
        return listed["snapshot_failure"]

    async def is_told():
        return f"{link}: it is a symbolic link" in await failure()

    await eventually(is_told)
    for words in (("list",), ("why", "a")):
        status, told = await cli(agent, *words)
        assert (status, "could not make a snapshot" in told) == (0, True), told
    link.unlink()
    await eventually(failure, "")


async def names_on_disk(agent, id="a"):
    shelf = agent.state / "sessions" / ".snapshots" / id
    return sorted(part.name for part in shelf.iterdir())


async def test_a_session_that_does_not_stop_changing_is_not_copied(agent, eventually):
    await connected(agent, eventually)
    file = agent.state / "sessions" / "a" / "session" / "busy"
    long = file.with_name("long")  # each try takes longer than this process ever stands still
    with long.open("wb") as hole:
        hole.truncate(128 << 20)
    done = asyncio.Event()

    async def write():
        number = 0
        while not done.is_set():
            number += 1
            file.write_bytes(b"%d" % number * 5000)
            await asyncio.sleep(0.001)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        status, said = await agent.ask("POST", "/api/instance/a/snapshots")
        done.set()
    assert (status, said["error"]) == (503, "changing")
    assert await names(agent) == []
    assert await names_on_disk(agent) == []
    long.unlink()
    await agent.do("POST", "/api/instance/a/snapshots")


async def test_a_worker_that_cannot_save_gives_no_snapshot(impatient, eventually):
    agent = impatient
    await connected(agent, eventually)
    os.kill(await agent.pid("a"), signal.SIGSTOP)
    status, said = await agent.ask("POST", "/api/instance/a/snapshots")
    assert (status, said["error"]) == (503, "not_saved")
    assert await names(agent) == []
    await eventually(lambda: agent.status("a"), "CONNECTED")


async def test_f80_a_planted_link_is_named_to_who_asks(agent, eventually):
    await connected(agent, eventually)
    link = agent.state / "sessions" / "a" / "session" / "creds"
    link.symlink_to("/etc/passwd")
    status, said = await agent.ask("POST", "/api/instance/a/snapshots")
    assert status == 507
    assert f"{link}: it is a symbolic link" in said["message"]


async def test_a_session_in_a_folder_of_somebodys_own_is_deleted_and_the_folder_stays(
    agent, eventually, tmp_path
):
    await connected(agent, eventually)
    await agent.do("POST", "/api/instance/a/stop")
    await eventually(lambda: agent.pid("a"), 0)
    session = agent.state / "sessions" / "a" / "session"
    own = session.rename(tmp_path / "own")
    session.symlink_to(own)
    status, said = await cli(agent, "delete", "a")
    assert status == 0, said
    assert list(own.iterdir())
    events = (await agent.do("GET", "/api/events"))["events"]
    told = [str(event) for event in events if event["kind"] == "deleted"]
    assert told and f"; {own}, to which its folder was a link, stays" in told[0]


@pytest.mark.parametrize("step", ["begun", "copied", "manifest", "verified", "visible"])
async def test_an_agent_killed_in_a_snapshot_leaves_no_partial_one(agent, eventually, step):
    await connected(agent, eventually)
    before = session_of(agent)
    await killed_at(
        agent,
        eventually,
        f"snapshot_{step}",
        lambda: agent.ask("POST", "/api/instance/a/snapshots"),
    )
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert session_of(agent)["account"] == before["account"]
    visible = await names(agent)
    assert len(visible) == (step == "visible")

    async def swept():
        return await names_on_disk(agent) == visible

    await eventually(swept)
    await agent.do("POST", "/api/instance/a/snapshots")
    assert len(await names(agent)) == len(visible) + 1


RESTORE_POINTS = (
    *("restore_copied", "staging_made", "staging_ready", "retire_manifest", "retire_moved"),
    *("staging_way_free", "staging_in_place"),
)


@pytest.mark.parametrize("point", RESTORE_POINTS)
async def test_an_agent_killed_in_a_restore_finishes_it_or_leaves_the_old(agent, eventually, point):
    await connected(agent, eventually)
    made = await agent.do("POST", "/api/instance/a/snapshots")
    mark = agent.state / "sessions" / "a" / "session" / "newer"
    mark.write_bytes(b"of the present session")
    path = f"/api/instance/a/snapshots/{made['name']}/restore"
    await killed_at(agent, eventually, point, lambda: agent.ask("POST", path, {}))
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert staging(agent) == []
    finished = point in ("retire_moved", "staging_way_free", "staging_in_place")
    assert mark.exists() is not finished
    trash = (await agent.do("GET", "/api/trash"))["trash"]
    assert len(trash) == finished
    if finished:
        kept = agent.state / "sessions" / ".trash" / trash[0]["name"] / "session" / "newer"
        assert kept.read_bytes() == b"of the present session"
    assert await scans_asked_for(agent) == 1
    assert await names(agent) == [made["name"]]


# moving to another machine


async def test_export_and_import_move_a_session_to_another_machine(
    make_agent, eventually, tmp_path
):
    here, there = make_agent(name="here"), make_agent(name="there")
    await here.start()
    await there.start()
    await connected(here, eventually, messages_per_minute=0)
    file = tmp_path / "a.tar.gz"
    status, out = await cli(here, "export", "a", file)
    assert status == 0, out
    assert file.stat().st_mode & 0o777 == 0o600
    sha256 = out.split()[0]
    await here.do("POST", "/api/instance/a/disable")
    status, out = await cli(there, "import", file, "--enable")
    assert (status, sha256 in out) == (0, True), out
    await eventually(lambda: there.status("a"), "CONNECTED")
    assert session_of(there)["account"] == session_of(here)["account"]
    shown = await there.show("a")
    assert (shown["paired"], shown["account"]) == (True, session_of(here)["account"])
    assert await scans_asked_for(there) == 0
    status, out = await cli(there, "import", file)
    assert (status, "it exists" in out) == (4, True), out
    status, out = await cli(there, "import", file, "b")
    assert (status, "instance a is the same linked device" in out) == (4, True), out
    assert staging(there) == []


async def test_x11_a_damaged_session_is_not_exported(agent, eventually, tmp_path):
    """Another machine would refuse the archive, when the session is gone from this one."""
    await connected(agent, eventually, messages_per_minute=0)
    whole = await agent.do("POST", "/api/instance/a/snapshots")
    await agent.do("POST", "/api/instance/a/disable")
    await eventually(lambda: agent.pid("a"), 0)  # it has saved its session for the last time
    file = agent.state / "sessions/a/session/sandbox.json"
    file.write_text(file.read_text()[:40])
    target = tmp_path / "a.tar.gz"
    status, out = await cli(agent, "export", "a", target, "--json")
    assert (status, json.loads(out)["error"]) == (4, "not_good"), out
    assert not target.exists()
    status, out = await cli(agent, "export", "a", target, "--snapshot", whole["name"])
    assert (status, target.exists()) == (0, True), out


async def test_replacing_retires_the_old_session_first(agent, eventually, tmp_path):
    await connected(agent, eventually)
    file = tmp_path / "a.tar.gz"
    await cli(agent, "export", "a", file)
    mark = agent.state / "sessions" / "a" / "session" / "newer"
    mark.write_bytes(b"of the present session")
    status, out = await cli(agent, "import", file, "--replace", "--json")
    assert status == 0, out
    trash = json.loads(out)["trash"]
    kept = agent.state / "sessions" / ".trash" / trash / "session" / "newer"
    assert kept.read_bytes() == b"of the present session"
    assert not mark.exists()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    kinds = [kind for kind, _ in await agent.story("a")]
    assert [kind for kind in kinds if kind in ("replacing", "replaced", "imported")] == [
        "replacing",
        "replaced",
        "imported",
    ]


@pytest.mark.parametrize(
    "point",
    ["import_unpacked", "staging_made", "staging_ready", "retire_moved", "staging_way_free"],
)
async def test_an_agent_killed_in_an_import_leaves_the_old_or_the_new(
    agent, eventually, tmp_path, point
):
    await connected(agent, eventually)
    file = tmp_path / "a.tar.gz"
    await cli(agent, "export", "a", file)
    mark = agent.state / "sessions" / "a" / "session" / "newer"
    mark.write_bytes(b"of the present session")
    await killed_at(
        agent, eventually, point, lambda: cli(agent, "import", file, "--replace", "--enable")
    )
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert staging(agent) == []
    replaced = point in ("retire_moved", "staging_way_free")
    assert mark.exists() is not replaced
    trash = (await agent.do("GET", "/api/trash"))["trash"]
    assert len(trash) == replaced
    assert (await agent.show("a"))["paired"] is True
    assert await scans_asked_for(agent) == 1


async def test_a_damaged_archive_changes_nothing(agent, eventually, tmp_path):
    await connected(agent, eventually)
    file = tmp_path / "a.tar.gz"
    await cli(agent, "export", "a", file)
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    file.write_bytes(raw)
    before = await agent.pid("a")
    status, out = await cli(agent, "import", file, "--replace", "--json")
    assert (status, "bad_archive" in out) == (2, True), out
    assert await agent.pid("a") == before
    assert await agent.status("a") == "CONNECTED"
    assert staging(agent) == []


async def test_an_upload_over_the_limit_is_refused(make_agent, tmp_path):
    agent = make_agent("[sessions]\nimport_packed = 100000\n")
    await agent.start()
    file = tmp_path / "big"
    file.write_bytes(b"\x1f\x8b" + os.urandom(5_000_000))
    status, out = await cli(agent, "import", file)
    assert (status, "more than 100000 bytes" in out) == (2, True), out
    assert staging(agent) == []


async def test_a_local_auth_folder_comes_in(agent, tmp_path):
    store = "session-shop/Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.leveldb"
    folder = tmp_path / ".wwebjs_auth" / store
    folder.mkdir(parents=True)
    (folder / "CURRENT").write_bytes(b"MANIFEST-000001\n")
    (folder / "MANIFEST-000001").write_bytes(b"x")
    source = tmp_path / ".wwebjs_auth"
    status, out = await cli(agent, "import", source, "--from", "wwebjs")
    assert (status, "give one after it" in out) == (2, True), out
    status, out = await cli(agent, "import", source, "shop", "--from", "wwebjs")
    assert (status, "shop imported, disabled" in out) == (0, True), out
    profile = agent.state / "sessions" / "shop" / "session" / "profile"
    assert (profile / store.removeprefix("session-shop/") / "CURRENT").exists()
    shown = await agent.show("shop")
    assert (shown["engine"], shown["paired"]) == ("web", True)
    (folder / "CURRENT").write_bytes(b"")
    status, out = await cli(agent, "import", source, "shop2", "--from", "wwebjs")
    assert (status, "CURRENT: it is empty" in out) == (2, True), out
    assert (await agent.ask("GET", "/api/instance/shop2"))[0] == 404


# what the agent does with them by itself


async def back_from_a_snapshot(agent):
    kinds = [kind for kind, _ in await agent.story("a")]
    return "snapshot_restored" in kinds and await agent.status("a") == "CONNECTED"


async def test_f43_a_damaged_session_comes_back_from_its_snapshot_without_a_scan(
    make_agent, eventually
):
    """Not from one that was made while the clock was ahead."""
    agent = make_agent("[sessions]\nsnapshots = 2\n")
    await agent.start()
    await connected(agent, eventually)
    early = await agent.do("POST", "/api/instance/a/snapshots")
    shelf = agent.state / "sessions" / ".snapshots" / "a"
    ahead = "20361119T" + early["name"].partition("T")[2]
    (shelf / early["name"]).rename(shelf / ahead)
    fresh = await agent.do("POST", "/api/instance/a/snapshots")
    await agent.fault("a", "corrupt-files")
    await eventually(lambda: back_from_a_snapshot(agent), within=60)
    assert await scans_asked_for(agent) == 1
    (said,) = [text for kind, text in await agent.story("a") if kind == "snapshot_restored"]
    assert fresh["name"] in said
    found = (await agent.do("GET", "/api/instance/a/snapshots"))["snapshots"]
    assert [(one["backup"], one["state"]) for one in found] == [(True, "damaged"), (False, "whole")]
    assert found[1]["name"] == fresh["name"], "the backup before the repair pruned the other one"


async def test_f42_a_deleted_session_comes_back_from_its_snapshot(make_agent, eventually):
    # A folder that is away may come back; nothing is restored over it before this time.
    agent = make_agent("\n[recovery]\nsuspect_settle = 1\n")
    await agent.start()
    await connected(agent, eventually)
    await agent.do("POST", "/api/instance/a/snapshots")
    folder = agent.state / "sessions" / "a"
    folder.rename(agent.state / "lost")
    os.kill(await agent.pid("a"), signal.SIGKILL)
    await eventually(lambda: back_from_a_snapshot(agent), within=60)
    assert await scans_asked_for(agent) == 1
    assert folder.exists()


async def test_a_stop_does_not_wait_for_a_long_copy(agent, eventually):
    await connected(agent, eventually)
    big = agent.state / "sessions" / "a" / "session" / "big"
    big.mkdir()
    for number in range(12):
        with (big / str(number)).open("wb") as file:
            file.truncate(LARGEST_FILE)
    asking = asyncio.create_task(agent.ask("POST", "/api/instance/a/snapshots"))

    async def copies():
        found = await agent.do("GET", "/api/instance/a/snapshots")
        return found["under_way"] is not None and found["under_way"]["done"] > 0

    await eventually(copies)
    assert await agent.stop(within=8.0) == 0
    with contextlib.suppress(aiohttp.ClientError):
        status, said = await asking
        assert (status, "the agent stops" in said["message"]) == (503, True)
    shutil.rmtree(big)
    assert await names_on_disk(agent) == []
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert await names(agent) == []


@pytest.mark.parametrize(
    "point", ["deletion_begun", "retire_manifest", "retire_moved", "deletion_retired"]
)
async def test_a_deletion_that_was_cut_off_is_finished_by_the_next_agent(agent, eventually, point):
    await connected(agent, eventually)
    account = session_of(agent)["account"]
    await killed_at(agent, eventually, point, lambda: agent.ask("DELETE", "/api/instance/a"))

    async def gone() -> bool:
        return (await agent.ask("GET", "/api/instance/a"))[0] == 404

    await eventually(gone)
    assert agent.worker_pids() == []
    (retired,) = (await agent.do("GET", "/api/trash"))["trash"]
    await agent.do("POST", f"/api/trash/{retired['name']}/restore", {})
    assert session_of(agent)["account"] == account
    assert await agent.status("a") == "DISCONNECTED", "restored ones are not started unasked"


async def test_room_is_looked_at_before_a_worker_is_stopped_for_a_restore(
    make_agent, eventually, small_disk
):
    disk = small_disk("size=300m,mode=0700")
    base = SETTINGS.replace(
        'host = "process"', f'host = "process"\nsession_storage_path = "{disk}"'
    )
    agent = make_agent(base=base)
    await agent.start()
    await agent.create("a")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    made = await agent.do("POST", "/api/instance/a/snapshots")
    pid = await agent.pid("a")
    with (disk / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
        while True:
            file.write(bytes(1 << 20))
    path = f"/api/instance/a/snapshots/{made['name']}/restore"
    status, answer = await agent.ask("POST", path, {"force": True})
    assert (status, answer["error"]) == (507, "disk_full"), "500 is for what nobody foresaw"
    assert (await agent.pid("a"), await agent.status("a")) == (pid, "CONNECTED")
    (disk / "filler").unlink()
    await agent.do("POST", path, {"force": True})
    await eventually(lambda: agent.status("a"), "CONNECTED")
