"""A full disk takes nothing and loses nothing: who hands over hears it, and it goes on later."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import WaError
from agent.wings.messages.spool.page import Bounds
from agent.wings.messages.spool.spool import Spool
from tests.wings.messages.conftest import KeepingBench
from tests.wings.messages.spools import entries, numbers_of, read_all, segments, spool_at


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return ballast


def test_a_full_disk_keeps_what_it_has_and_takes_the_rest_when_it_has_room(
    small_disk: Callable[[str], Path],
) -> None:
    disk = small_disk("size=512k,mode=0700")
    (disk / "before").write_bytes(b"x" * 200_000)
    spool = spool_at(disk)
    kept = 0
    with pytest.raises(OSError, match="No space"):
        while True:
            spool.append(entries([kept], "x" * 3000))
            kept += 1
    fill(disk)
    for _ in range(20):
        with pytest.raises(OSError, match="No space"):
            spool.append(entries([kept, kept + 1], "x" * 3000))
    assert numbers_of(read_all(spool)) == list(range(kept)), "all can still be read"
    spool.settle(spool.newest)
    assert len(segments(disk)) <= 2
    newest = spool.newest
    for each in (spool, spool_at(disk)):
        assert numbers_of(read_all(each)) == list(range(kept))
        assert each.newest == newest
    (disk / "before").unlink()
    spool = spool_at(disk)
    assert spool.append(entries(range(kept - 3, kept + 2))) == 2
    assert numbers_of(read_all(spool)) == list(range(kept + 2))
    assert [each["cursor"] for each in read_all(spool)][-1] == newest + 2


def test_a_disk_that_turned_read_only_is_still_read(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=1m,mode=0700")
    spool = spool_at(disk)
    spool.append(entries(range(5)))
    spool.close()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    spool = spool_at(disk)
    assert numbers_of(read_all(spool)) == list(range(5))
    with pytest.raises(OSError, match="Read-only"):
        spool.append(entries([5]))
    spool.settle(spool.newest)
    spool.trim()
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert spool.append(entries([4, 5])) == 1
    assert numbers_of(read_all(spool_at(disk))) == list(range(6))


async def test_the_session_says_that_its_disk_takes_nothing_and_that_it_does_again(
    make_keeping: Callable[[Path], KeepingBench], small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("size=1m,mode=0770")
    keeping = make_keeping(disk)
    await keeping.connected(settings={"messages_per_minute": 0})
    await keeping.arrive(0)
    ballast = fill(disk)
    for _ in range(3):
        with pytest.raises(WaError) as caught:
            await keeping.arrive(1, text="x" * 9000)
        assert (caught.value.code, "No space left" in str(caught.value)) == ("not_kept", True)
    assert (await keeping.link.call("messages_state"))["refused"] is True
    assert (await keeping.link.call("probe"))["claim"]["status"] == "CONNECTED"
    assert numbers_of((await keeping.page())["records"]) == [0]
    ballast.unlink()
    await keeping.arrive(1, text="x" * 9000)
    assert (await keeping.link.call("messages_state"))["refused"] is False
    assert numbers_of((await keeping.page())["records"]) == [0, 1]
    await keeping.until(lambda: "kept_again" in [each.kind for each in keeping.happened])
    texts = [str(each.detail["text"]) for each in keeping.happened if each.kind == "not_kept"]
    assert len(texts) == 1 and "No space left on device" in texts[0]
    keeping.process.terminate()
    assert await keeping.ended() == 0


def test_a_folder_that_was_made_and_got_no_file_begins_with_the_time(tmp_path: Path) -> None:
    """A disk that failed in between. Two workers looked at it since."""
    (tmp_path / "messages").mkdir()
    before = time.time() * 1000 - 1
    for _ in range(2):
        assert Spool(tmp_path / "messages", Bounds(), "shop").newest >= before - 1
    spool = Spool(tmp_path / "messages", Bounds(), "shop")
    spool.append(entries([1]))
    assert spool.newest > before
    again = Spool(tmp_path / "messages", Bounds(), "shop")
    assert numbers_of(read_all(again)) == [1] and not again.damaged
