"""Keys in an auth folder: only what is corrupted goes, and nothing is lost."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent.backends.whaticket import damage
from agent.backends.whaticket.folder import FolderKeys
from agent.backends.whaticket.keys import SessionKeys
from agent.backends.whaticket.shelf import KEEP, Removal, Shelf
from agent.core.model import InstanceId
from agent.errors import EngineError, InvalidRequest
from tests.backends.whaticket.conftest import LIDS, OTHER, PEER, Bench, OpenBench
from tests.standin.whaticket.keys import FolderKeys as TheirFolder
from tests.standin.whaticket.keys import file_name, paired_keys

SEVEN, LID = InstanceId("i7"), LIDS[PEER]
REMOVED = {
    f"identity-key-{LID}_1.0.json",
    f"sender-key-120363000000000001@g.us--{LID}_1--0.json",
    f"sender-key-120363000000000001@g.us--{PEER}--0.json",
    f"session-{LID}_1.0.json",
    f"session-{PEER}.0.json",
    f"session-{PEER}.12.json",
}


def removals(at: Bench) -> list[Removal]:
    return at.api.keys.shelf.all("7")


async def test_one_peers_keys_go_and_can_be_put_back(bench: OpenBench) -> None:
    at = await bench()
    theirs = await at.paired()
    await at.paired("70")
    neighbour = at.auth("70")
    await theirs.damage(PEER)
    before = at.auth()
    await at.api.new_keys("7", [f"{PEER}.12"])
    after = at.auth()
    assert set(before) - set(after) == REMOVED and at.auth("70") == neighbour
    assert all(after[name] == before[name] for name in after)
    assert theirs.status == "CONNECTED" and theirs.logouts == 0 and theirs.receive(PEER)
    assert [it.kind for _, it in at.happened] == ["repair_step"] * 4

    await at.until(lambda: theirs.rests, 5)
    [shown] = await at.api.removed("7")
    assert (shown["state"], shown["files"], shown["whole"]) == ("done", len(REMOVED), False)
    await at.api.put_back("7", shown["name"])
    assert theirs.status == "CONNECTED" and not theirs.receive(PEER)  # the damaged one is back
    assert {name: at.auth()[name] for name in before} == before
    assert len(removals(at)) == 2  # what stood in its way was not lost either
    with pytest.raises(EngineError) as caught:
        await at.api.put_back("7", shown["name"])
    assert caught.value.code == "put_back_already"
    for name in ("../..", "20260101T000000Z", 7, None):
        with pytest.raises(InvalidRequest):
            await at.api.put_back("7", name)


async def test_without_a_peer_the_damaged_records_go(bench: OpenBench) -> None:
    at = await bench()
    theirs = await at.paired()
    await theirs.damage(PEER)
    await theirs.damage(OTHER)
    before = set(at.auth())
    await at.api.new_keys("7", [])
    assert before - set(at.auth()) == {f"session-{PEER}.0.json", f"session-{OTHER}.0.json"}
    assert theirs.receive(PEER) and theirs.receive(OTHER)


async def test_nothing_to_remove_is_no_reason_to_interrupt(bench: OpenBench) -> None:
    at = await bench()
    await at.paired()
    for peers in (["5599888887777"], []):
        with pytest.raises(EngineError) as caught:
            await at.api.new_keys("7", peers)
        assert caught.value.code == "nothing_to_remove"
    assert at.acts == [] and removals(at) == []


Case = tuple[Callable[[Bench], None], str, bool, bool | None]
"""A fault, the error's code, whether the session was taken down, and whether its keys are gone."""


def _lie(name: str, value: object = True) -> Callable[[Bench], None]:
    return lambda at: setattr(at.standin.faults, name, value)


def _cut_creds(at: Bench) -> None:
    path = at.root / "auth/7/creds.json"
    path.write_bytes(path.read_bytes()[:20])


def _link(at: Bench) -> None:
    path = at.root / f"auth/7/session-{PEER}.0.json"
    path.unlink()
    path.symlink_to("/etc/passwd")


def _no_creds(at: Bench) -> None:
    (at.root / "auth/7/creds.json").unlink()


def _full(at: Bench) -> None:
    usage = shutil._ntuple_diskusage(1, 1, 0)
    at.monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param((_lie("stays_connected"), "still_connected", True, False), id="stays up"),
        pytest.param((_lie("writes_when_down"), "written_back", True, None), id="still writes"),
        pytest.param((_lie("refuses_start", 500), "remote_refused", True, True), id="no start"),
        pytest.param((_lie("loses_pairing"), "pairing_lost", True, None), id="pairing lost"),
        pytest.param((_lie("comes_back"), "", True, None), id="comes back by itself"),
        pytest.param((_cut_creds, "session_damaged", False, False), id="damaged creds"),
        pytest.param((_link, "files", False, False), id="a link"),
        pytest.param((_full, "disk_full", False, False), id="a full disk"),
        pytest.param((_no_creds, "session_missing", False, False), id="no creds"),
    ],
)
async def test_what_stops_a_repair(
    bench: OpenBench, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    fault, code, went_down, keys_gone = case
    at = await bench()
    at.monkeypatch = monkeypatch
    theirs = await at.paired()
    await theirs.damage(PEER)
    theirs.pace.write_every = 1000.0
    await at.until(lambda: theirs.rests == 1000.0, 10)
    creds = at.auth()["creds.json"]
    fault(at)
    with pytest.raises(EngineError) as caught:
        await at.api.new_keys("7", [PEER])
    assert caught.value.code == code or not code, caught.value
    assert bool(at.acts) is went_down
    if keys_gone is not None:
        assert (f"session-{PEER}.12.json" not in at.auth()) is keys_gone
    if code == "remote_refused":
        assert at.auth()["creds.json"] == creds
        at.standin.faults.refuses_start = 0
        await at.server.connect(SEVEN)
    if code != "pairing_lost":
        await at.until(lambda: theirs.status == "CONNECTED", 20)


async def test_damaged_creds_are_never_replaced_by_a_start(bench: OpenBench) -> None:
    at = await bench()
    theirs = await at.paired()
    await theirs.end()
    _cut_creds(at)
    theirs.status = "DISCONNECTED"
    await at.until(lambda: at.claim().reason == "session_damaged", 12)
    for act in (at.server.connect, at.server.restart):
        with pytest.raises(EngineError) as caught:
            await act(SEVEN)
        assert caught.value.code == "session_damaged"
    await at.server.renew(SEVEN, confirmed=True)
    [removal] = removals(at)
    assert removal.whole and len(removal.records) > 10


async def test_a_caller_who_leaves_stops_no_repair(bench: OpenBench) -> None:
    at = await bench()
    theirs = await at.paired()
    asking = asyncio.create_task(at.api.new_keys("7", [PEER]))
    await at.until(lambda: theirs.status == "DISCONNECTED", 5)
    asking.cancel()
    with pytest.raises(EngineError) as caught:
        await at.api.new_keys("7", [OTHER])
    assert caught.value.code == "busy"
    await at.end()  # the agent stops
    await at.until(lambda: theirs.status == "CONNECTED", 5)
    assert f"session-{PEER}.0.json" not in at.auth()


@pytest.mark.parametrize("preset", ["spec", "saas"])
async def test_a_renewal_keeps_all_keys_and_shows_a_code(bench: OpenBench, preset: str) -> None:
    at = await bench(preset=preset)
    theirs = await at.paired()
    theirs.pace.write_every = 1000.0
    await at.until(lambda: theirs.rests == 1000.0, 10)
    before = at.auth()
    await at.server.renew(SEVEN, confirmed=True)
    assert theirs.status == "qrcode" and theirs.logouts == 0
    [removal] = removals(at)
    assert {it.name: it.content for it in removal.records} == before
    if preset == "spec":
        theirs.scan()
        await at.until(lambda: theirs.status == "CONNECTED", 10)
        await at.api.put_back("7", removal.name)
        assert at.auth()["creds.json"] == before["creds.json"]


async def test_a_renewal_whose_start_is_refused_puts_the_pairing_back(bench: OpenBench) -> None:
    at = await bench()
    theirs = await at.paired()
    theirs.pace.write_every = 1000.0
    await at.until(lambda: theirs.rests == 1000.0, 10)
    before = at.auth()
    at.standin.faults.refuses_start = 400
    with pytest.raises(EngineError):
        await at.server.renew(SEVEN, confirmed=True)
    assert at.auth() == before


class Killed(BaseException):
    """As by SIGKILL."""


OPERATIONS = ("os.unlink", "os.rename", "os.fsync", "agent.backends.whaticket.shelf.write_whole")


@pytest.mark.parametrize("whole", [False, True])
async def test_killed_at_each_step_and_run_again_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """Taken out, and put back: each change of the disk in turn is the last one."""
    reached, killed = 0, 0
    for step in range(200):
        root = tmp_path / str(step)
        theirs = TheirFolder(root / "auth")
        keys = SessionKeys(Shelf(root / "removed"), (FolderKeys(f"{root}/auth/{{id}}"),))
        for name, text in paired_keys("551100000007", [PEER, OTHER], LIDS).items():
            await theirs.write("7", name, text)
        before = await theirs.load("7")

        async def work(keys: SessionKeys = keys) -> None:
            plan = await (
                keys.plan_all("7") if whole else keys.plan_records("7", [PEER], damaged=False)
            )
            removed = keys.shelf.all("7")
            if plan:
                await keys.take_out("7", plan, "a test")
            removed = removed or keys.shelf.all("7")
            await keys.put_back("7", removed[0])

        if not await _dies(work, step, monkeypatch):
            break
        killed += 1
        stored = {r.name: r.content for it in keys.shelf.all("7") for r in it.records}
        stored |= {file_name(n): t.encode() for n, t in (await theirs.load("7")).items()}
        assert {name: stored[file_name(name)].decode() for name in before} == before
        for removal in keys.shelf.all("7"):
            if removal.state != "put_back":
                await keys.put_back("7", removal)
        assert await theirs.load("7") == before
        reached += 1
    assert reached == killed > 15


async def _dies(
    work: Callable[[], Awaitable[None]], step: int, monkeypatch: pytest.MonkeyPatch
) -> bool:
    """True if it was killed before its so manieth change of the disk."""
    count = 0
    with monkeypatch.context() as patched:
        for name in OPERATIONS:
            module, _, function = name.rpartition(".")
            target = __import__(module, fromlist=[function])

            def change(*args: object, _do: object = getattr(target, function), **more: object):  # type: ignore[no-untyped-def]
                nonlocal count
                count += 1
                if count > step:
                    raise Killed
                return _do(*args, **more)  # type: ignore[operator]

            patched.setattr(name, change)
        try:
            await work()
        except Killed:
            return True
    return False


def test_only_old_removals_are_swept_and_damaged_ones_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, now = Shelf(tmp_path), [1_800_000_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    shelf.keep("7", "old", [], whole=False)
    now[0] += KEEP
    young = shelf.keep("7", "young", [], whole=False)
    (tmp_path / "7/20200101T000000Z.json").write_text("mine")
    now[0] += 1.0
    assert shelf.sweep() == 1 and shelf.all("7") == [young]
    path = tmp_path / f"7/{young.name}.json"
    path.write_text(path.read_text().replace("young", "other"))
    with pytest.raises(InvalidRequest):
        shelf.find("7", young.name)
    for remote in ("../7", "", "/etc", "a\0b"):
        with pytest.raises(EngineError):
            shelf.keep(remote, "x", [], whole=False)


@pytest.mark.parametrize("name", sorted(paired_keys("55", [PEER], LIDS)))
def test_a_whole_record_is_whole_and_a_cut_one_is_not(name: str) -> None:
    text = paired_keys("55", [PEER], LIDS)[name]
    assert damage.is_record(name, text.encode()) and damage.is_record(name, b"null")
    if damage.worth_reading(name):
        assert not damage.is_record(name, text[:-3].encode())
        assert not damage.is_record(name, b"") and not damage.is_record(name, b"7")
