"""`scripts/chaos messages` at a small load; it fails where something is lost or doubled."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from scripts.messages import __main__ as program
from scripts.messages import hours, load
from scripts.messages.beds import SandboxBed
from scripts.messages.faults import Faults
from scripts.messages.hardships import fill, own_disk
from scripts.messages.supervised import Supervised
from scripts.messages.tally import Tally, table
from tests.daemon.conftest import RunningAgent
from tests.lacking import lacks

SMALL = ["--engine", "sandbox", "--messages", "24", "--sessions", "2", "--rate", "12", "--markdown"]


def whole(name: str = "s1") -> Tally:
    tally = Tally(name)
    for number in range(3):
        tally.said[f"in {number}"] = f"ID{number}"
        tally.read[f"in {number}"].add(number + 10)
        tally.posted[f"in {number}"]["m:1"] += 1
        tally.accepted.add(f"out {number}")
        tally.got[f"out {number}"].add(f"OUT{number}")
    return tally


def test_what_came_once_in_both_directions_held() -> None:
    tally = whole()
    tally.posted["in 0"]["m:1"] += 1  # again, by the same id: at least once is what is promised
    assert (tally.broke(), tally.is_done()) == ([], True)
    assert table([tally]).splitlines()[-1] == "| s1 | 3 | 3 | 3 | 0 | 0 | 3 | 3 | 0 | 0 |"
    assert table([tally, whole("s2")]).splitlines()[-1].startswith("| all | 6 | 6 | 6 |")


def test_each_loss_and_each_double_is_told() -> None:
    tally = whole()
    del tally.read["in 0"], tally.posted["in 1"], tally.got["out 0"]
    tally.read["in 2"].add(99)
    tally.posted["in 2"] = Counter({"m:1": 1, "m:2": 1})
    tally.got["out 1"].add("OTHER")
    tally.gaps = 4
    assert not tally.is_done()
    assert tally.row() == [3, 1, 2, 2, 1, 3, 1, 1, 1]
    assert [line.partition(": ")[2] for line in tally.broke()] == [
        "a reader was told of 4 missing",
        "no reader got in 0 (1 in all)",
        "the webhook did not get in 1 (1 in all)",
        "kept twice in 2 (1 in all)",
        "posted under two ids in 2 (1 in all)",
        "no contact got out 0 (1 in all)",
        "shown twice out 1 (1 in all)",
    ]


@pytest.mark.timeout(180)
def test_a_small_load_under_faults_loses_and_doubles_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert program.main([*SMALL, "--every", "0.7"]) == 0
    said = capsys.readouterr().out
    assert "| all | 24 | 24 | 24 | 0 | 0 | 24 | 24 | 0 | 0 |" in said


def test_what_only_baileys_has_is_refused_before_anything_begins(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "why_not", lambda _: "")
    for given, word in (
        ([*SMALL, "--pack", "2"], "of the engine baileys"),
        (["--pack", "0"], "1 or more"),
    ):
        assert program.main(given) == 2
        assert word in capsys.readouterr().err


def test_the_processes_of_a_packed_session_are_its_worker_and_its_packs(tmp_path: Path) -> None:
    agent = RunningAgent(tmp_path, tmp_path / "agent.toml")
    faults = Faults(
        bed=SandboxBed(),
        agent=agent,
        ids=["s1"],
        packed=True,
        target=Supervised(["true"], tmp_path / "log"),
        plain=[],
        chance=Random(1),
    )
    assert faults._processes("s1") == (0, 0, [])
    own, keeper = os.getpid(), os.getppid()
    for place, note in (
        ("run/s1/run.json", {"pid": own}),
        ("run-packs/baileys-1/members.json", {"boot": "b", "members": {"s1": 0}}),
        ("run-packs/baileys-1/run.json", {"pid": keeper}),
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(json.dumps(note))
    worker, pack, below = faults._processes("s1")
    assert (worker, pack) == (own, keeper)
    assert own in below and keeper not in below


class Forgetful(SandboxBed):
    """A WhatsApp that says that it has a message, and has not."""

    async def say(self, id: str, contact: str, text: str, number: int) -> str:
        return "LOST" if number == 3 else await super().say(id, contact, text, number)


@pytest.mark.timeout(180)
def test_a_message_that_is_lost_ends_it_with_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(load, "STILL", 2.0)
    monkeypatch.setattr(load, "LOOK", 0.2)
    monkeypatch.setattr(program.tempfile, "mkdtemp", lambda **_: str(tmp_path))
    monkeypatch.setitem(program.BEDS, "sandbox", lambda _: Forgetful())
    assert program.main([*SMALL, "--every", "1000"]) == 1
    assert "no reader got in s" in capsys.readouterr().err


class Told:
    """What one run of `hours` says of its sessions."""

    def __init__(self, lost: int, codes: Sequence[str] = ()) -> None:
        tally = whole()
        for number in range(lost):
            del tally.read[f"in {number}"]
        self.ours, self.codes = {"s1": tally}, [*codes]

    def broke(self) -> list[str]:
        return [line for tally in self.ours.values() for line in tally.broke()]


@pytest.mark.parametrize(
    ("packed", "alone", "status"),
    [
        pytest.param(Told(0), Told(0), 0, id="nothing is lost"),
        pytest.param(Told(1), Told(1), 0, id="the pack lost what the sessions alone lost"),
        pytest.param(Told(2), Told(1), 1, id="the pack lost more"),
        pytest.param(Told(0, ["s1"]), Told(0), 1, id="a pairing is lost"),
    ],
)
def test_hours_in_a_pack_are_held_against_the_same_alone(
    packed: Told,
    alone: Told,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    runs = iter([packed, alone])
    monkeypatch.setattr(hours, "_play_one", lambda *_: next(runs))
    root = tmp_path / "root"
    root.mkdir()
    assert hours.play(root, 3, 1.0, 1) == status
    assert root.exists() == bool(packed.broke() or alone.broke()), "where something is to be seen"


def test_a_disk_of_its_own_is_full_until_the_filling_goes(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        lacks("only root has a disk of its own")
    disk = tmp_path / "disk"
    with own_disk(disk):
        fill(disk / "filled")
        with pytest.raises(OSError, match="No space left"):
            (disk / "other").write_bytes(b"x" * 4096)
        (disk / "filled").unlink()
        (disk / "other").write_bytes(b"x" * 4096)
    assert [*disk.iterdir()] == []
