"""What damage took is counted: a reader hears of about as many records as are gone, and those that
nobody had read count as lost, once. What is not this session's folder is no spool of it."""

from pathlib import Path

import pytest

from agent.wings.messages.spool.damage import merge
from agent.wings.messages.spool.page import Bounds
from agent.wings.messages.spool.spool import Spool
from tests.wings.messages.spools import entries, numbers_of, read_all, segments, spool_at


@pytest.mark.parametrize(
    ("known", "found", "settled", "holes", "lost"),
    [
        pytest.param([], [[5, 9, 5]], 0, [[5, 9, 5]], 5, id="new"),
        pytest.param([], [[5, 9, 5]], 7, [[5, 9, 5]], 2, id="a part was delivered"),
        pytest.param([[5, 9, 5]], [[5, 9, 5]], 0, [[5, 9, 5]], 0, id="known"),
        pytest.param([[5, 9, 2]], [[5, 9, 5]], 0, [[5, 9, 2]], 0, id="some were never given"),
        pytest.param([[5, 9, 2]], [[4, 10, 7]], 0, [[4, 10, 4]], 2, id="it grew"),
        pytest.param([], [[5, 8000, 3]], 6, [[5, 8000, 3]], 1, id="an end, one undelivered"),
    ],
)
def test_a_hole_counts_once(known, found, settled, holes, lost) -> None:
    assert merge(known, found, settled) == (holes, lost)


@pytest.mark.parametrize("hit", [1, 10])
@pytest.mark.parametrize("how", ["flipped", "zeros"])
def test_a_damaged_end_says_about_how_many_are_gone_and_counts_them(
    tmp_path: Path, hit: int, how: str
) -> None:
    spool = spool_at(tmp_path)
    spool.append(entries(range(100)))
    newest, oldest = spool.newest, spool.newest - 99
    spool.settle(oldest + 94)  # the last five were not delivered
    spool.close()
    (file,) = segments(tmp_path)
    lines = file.read_bytes().splitlines(keepends=True)
    for at in range(100 - hit, 100):
        if how == "flipped":
            lines[at] = lines[at].replace(b'"text":"m', b'"text":"M')
        else:
            lines[at] = bytes(len(lines[at]))
    file.write_bytes(b"".join(lines))
    for _ in range(2):  # the second look counts nothing again
        spool = spool_at(tmp_path)
        found = numbers_of(read_all(spool))
        assert found[:-1] == list(range(100 - hit))
        most = hit * 8 if how == "zeros" else hit
        assert hit <= -found[-1] <= most
        assert spool.newest >= newest, "no cursor comes a second time"
        lost = spool.state()["lost"]
        assert min(hit, 5) <= lost <= max(most - max(hit - 5, 0), 0)
        spool.close()
    spool.append(entries([200]))
    assert numbers_of(read_all(spool_at(tmp_path)))[-2:] == [found[-1], 200]
    assert spool_at(tmp_path).state()["lost"] == lost


def own(folder: Path, id: str) -> Spool:
    return Spool(folder / "messages", Bounds(), id)


def test_folders_swapped_between_sessions_are_set_aside_and_said(tmp_path: Path) -> None:
    for id, number in (("a", 1), ("b", 2)):
        (tmp_path / id).mkdir()
        spool = own(tmp_path / id, id)
        spool.append(entries([number]))
        spool.close()
    (tmp_path / "a" / "messages").rename(tmp_path / "x")
    (tmp_path / "b" / "messages").rename(tmp_path / "a" / "messages")
    (tmp_path / "x").rename(tmp_path / "b" / "messages")
    for id, other in (("a", "b"), ("b", "a")):
        spool = own(tmp_path / id, id)
        assert read_all(spool) == []
        (sentence,) = spool.foreign
        (aside,) = (tmp_path / id).glob("messages.aside-*")
        assert aside.name in sentence and f"session {other}" in sentence
        spool.append(entries([7]))
        again = own(tmp_path / id, id)
        assert numbers_of(read_all(again)) == [7] and not again.foreign
        # Put back by hand, it is read again.
        home = tmp_path / other / "put-back"
        aside.rename(home)
    assert numbers_of(read_all(Spool(tmp_path / "a" / "put-back", Bounds(), "a"))) == [1]


@pytest.mark.parametrize("what", ["link", "file"])
def test_what_is_no_folder_is_set_aside_and_the_session_keeps(tmp_path: Path, what: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    place = tmp_path / "messages"
    if what == "file":
        place.write_text("mine")
    else:
        place.symlink_to(tmp_path / "elsewhere")
    spool = own(tmp_path, "a")
    assert spool.page(0, 10).records == []
    assert len(spool.foreign) == 1
    spool.append(entries([1]))
    assert numbers_of(read_all(own(tmp_path, "a"))) == [1]
    (aside,) = tmp_path.glob("messages.aside-*")
    assert aside.is_symlink() == (what != "file")
    assert not any((tmp_path / "elsewhere").iterdir())
