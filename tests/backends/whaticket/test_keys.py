"""Keys in an auth folder: only what is corrupted goes, and nothing is lost."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.backends.whaticket.api import CLOSE_WITHIN
from agent.backends.whaticket.keys import JUDGED, KEEP, FolderKeys, SessionKeys, Shelf, is_record
from agent.clock import boot_now
from agent.errors import EngineError, InvalidRequest
from tests.backends.whaticket.conftest import LIDS, OTHER, PEER, Bench, Killed, OpenBench, die_at
from tests.standin.whaticket.keys import FolderKeys as TheirFolder
from tests.standin.whaticket.keys import file_name, paired_keys
from tests.standin.whaticket.session import Session

LID = LIDS[PEER]
REMOVED = {
    *(f"identity-key-{LID}_1.0.json", f"session-{LID}_1.0.json", f"session-{PEER}.0.json"),
    f"sender-key-120363000000000001@g.us--{LID}_1--0.json",
    *(f"sender-key-120363000000000001@g.us--{PEER}--0.json", f"session-{PEER}.12.json"),
}


async def resting(bench: OpenBench, **own: object) -> tuple[Bench, Session]:
    """A session of which one peer's record is damaged, and that writes nothing more."""
    at = await bench(**own)
    theirs = await at.paired()
    await theirs.damage(PEER)
    theirs.pace.write_every = 1000.0
    await at.until(lambda: theirs.rests == 1000.0, 10)
    return at, theirs


async def test_one_peers_keys_go_and_can_be_put_back(bench: OpenBench) -> None:
    at, theirs = await resting(bench)
    await at.paired("70")
    neighbour, before = at.auth("70"), at.auth()
    await at.do("regenerate_keys", "7", peers=[f"{PEER}.12"])
    after = at.auth()
    assert set(before) - set(after) == REMOVED and at.auth("70") == neighbour
    assert all(after[name] == before[name] for name in after)
    assert theirs.status == "CONNECTED" and theirs.logouts == 0 and theirs.receive(PEER)

    at.standin.requests.clear()
    assert await at.refusal("regenerate_keys", "7", peers=["5599888887777"]) == "nothing_to_remove"
    assert at.acts == []
    [shown] = (await at.do("command", "7", name="removed"))["removed"]
    asked = {"name": "restore_removed", "arguments": {"name": shown["name"]}}
    await at.do("command", "7", **asked)
    assert theirs.status == "CONNECTED" and not theirs.receive(PEER)  # the damaged one is back
    assert {name: at.auth()[name] for name in before} == before
    assert await at.refusal("command", "7", **asked) == "put_back_already"
    at.standin.sessions["8"] = at.standin.sessions.pop("7")  # the server has it no more
    # Records that stood in its way were not lost either.
    assert len((await at.do("command", "7", name="removed"))["removed"]) == 2


def _lie(name: str, value: object = True) -> Callable[[Bench], None]:
    return lambda at: setattr(at.standin.faults, name, value)


def _cut_creds(at: Bench) -> None:
    path = at.root / "auth/7/creds.json"
    path.write_bytes(path.read_bytes()[:20])


def _link(at: Bench) -> None:
    path = at.root / f"auth/7/session-{PEER}.0.json"
    path.unlink()
    path.symlink_to("/etc/passwd")


FAULTS = {
    "still_connected": _lie("comes_back"),
    "written_back": _lie("writes_when_down"),
    "remote_refused": _lie("refuses_start", 500),
    "pairing_lost": _lie("loses_pairing"),
    "session_damaged": _cut_creds,
    "files": _link,
}


@pytest.mark.parametrize("code", FAULTS)
async def test_what_stops_a_repair(bench: OpenBench, code: str) -> None:
    at, theirs = await resting(bench)
    creds = at.auth()["creds.json"]
    FAULTS[code](at)
    with pytest.raises(EngineError) as caught:
        await at.do("regenerate_keys", "7", peers=[PEER])
    assert PEER not in str(caught.value)
    assert caught.value.code == code and bool(at.acts) is (code not in ("session_damaged", "files"))
    if code in ("still_connected", "session_damaged"):
        assert set(at.auth()) >= REMOVED
    if code == "remote_refused":
        assert at.auth()["creds.json"] == creds and not set(at.auth()) & REMOVED
        return
    if code == "session_damaged":  # a start would replace them with empty ones
        assert await at.refusal("restart", "7")
        await at.do("renew", "7", confirmed=True)
        assert ((await at.do("command", "7", name="removed"))["removed"])[0]["whole"]
    elif code != "pairing_lost":
        await at.until(lambda: theirs.status == "CONNECTED", 20)


async def test_a_caller_who_leaves_stops_no_repair(bench: OpenBench) -> None:
    at, theirs = await resting(bench)
    asking = asyncio.create_task(at.do("regenerate_keys", "7", peers=[PEER]))
    await at.until(lambda: theirs.status == "DISCONNECTED", 5)
    asking.cancel()
    assert await at.refusal("regenerate_keys", "7", peers=[OTHER]) == "busy"
    await at.end()  # the agent stops
    await at.until(lambda: theirs.status == "CONNECTED", 5)


async def test_a_session_that_does_not_come_up_again_delays_no_stop(bench: OpenBench) -> None:
    at, theirs = await resting(bench)
    at.standin.faults.stuck_opening = True
    asking = asyncio.create_task(at.do("regenerate_keys", "7", peers=[PEER]))
    await at.until(lambda: theirs.status == "OPENING", 10)
    begun = boot_now()
    await at.end()
    assert boot_now() - begun < CLOSE_WITHIN + 5.0
    await asyncio.wait([asking])


@pytest.mark.parametrize("preset", ["spec", "saas"])
async def test_a_renewal_keeps_all_keys_and_shows_a_code(bench: OpenBench, preset: str) -> None:
    at, theirs = await resting(bench, preset=preset)
    before = at.auth()
    if preset == "spec":
        at.standin.faults.refuses_start = 400
        assert await at.refusal("renew", "7", confirmed=True)
        assert at.auth() == before
        at.standin.faults.refuses_start = 0
        await at.do("connect", "7")
        await at.until(lambda: at.status() == "CONNECTED", 10)
    await at.do("renew", "7", confirmed=True)
    assert theirs.status == "qrcode" and theirs.logouts == 0
    removal = Shelf(at.root / "wt/removed").all("7")[-1]
    assert {it.name: it.content for it in removal.records} == before
    if preset == "spec":
        theirs.scan()
        await at.until(lambda: theirs.status == "CONNECTED", 10)
        await at.do("command", "7", name="restore_removed", arguments={"name": removal.name})
        assert at.auth()["creds.json"] == before["creds.json"]


CHANGES = ("os.unlink", "os.rename", "os.fsync", "agent.files.write_whole")


@pytest.mark.parametrize("whole", [False, True])
async def test_killed_at_each_step_and_run_again_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """Taken out, and put back: each change of the disk in turn is the last one."""
    for step in range(500):
        root = tmp_path / str(step)
        theirs = TheirFolder(root / "auth")
        keys = SessionKeys(Shelf(root / "removed"), (FolderKeys(f"{root}/auth/{{id}}"),))
        for name, text in paired_keys("551100000007", [PEER], LIDS).items():
            await theirs.write("7", name, text)
        before = await theirs.load("7")
        plan = keys.all("7") if whole else keys.plan("7", [PEER], damaged=False)
        with monkeypatch.context() as patched:
            die_at(step, patched, *CHANGES)
            try:
                keys.put_back("7", keys.take_out("7", plan, "a test"))
                break
            except Killed:
                pass
        stored = {r.name: r.content for it in keys.shelf.all("7") for r in it.records}
        stored |= {file_name(n): t.encode() for n, t in (await theirs.load("7")).items()}
        assert {name: stored[file_name(name)].decode() for name in before} == before
        for removal in keys.shelf.all("7"):
            keys.put_back("7", removal)
        assert await theirs.load("7") == before
    assert step > 15


async def test_old_removals_are_swept(tmp_path: Path) -> None:
    shelf, now = Shelf(tmp_path), time.time()
    young, old = kept = [shelf.keep("7", why, [], whole=False) for why in ("young", "old")]
    assert shelf.all("7") == kept  # oldest first, also of one second
    shelf.write(replace(old, wall=now - KEEP - 1.0))
    shelf.sweep()
    assert shelf.all("7") == [young]
    path = tmp_path / f"7/{young.name}.json"
    path.write_text(path.read_text().replace("young", "other"))
    for remote, name in (("7", young.name), ("7", "../.."), ("../7", young.name), ("7", None)):
        with pytest.raises((InvalidRequest, EngineError)):
            shelf.find(remote, name)
    folder = FolderKeys(f"{tmp_path}/{{id}}")
    [record] = folder.read("7", [path.name])
    with pytest.raises(EngineError):  # it is not as it was backed up
        folder.remove("7", [replace(record, content=b"old")])


def test_a_whole_record_is_whole_and_a_cut_one_is_not() -> None:
    for key, text in paired_keys("55", [PEER], LIDS).items():
        assert is_record(key, text.encode()) and is_record(key, b"null")
        if JUDGED.fullmatch(key):
            assert not any(is_record(key, it) for it in (text[:-3].encode(), b"", b"7"))
