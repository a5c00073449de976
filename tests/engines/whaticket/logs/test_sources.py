"""Logs on real files and with real programs: rotation, restarts, whose an error is."""

import gzip
import json
import os
import shutil
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.engines.whaticket.logs.sources import Logs
from agent.engines.whaticket.logs.stream import Batch
from agent.engines.whaticket.logs.tail import LogTail
from agent.engines.whaticket.logs.times import LogClock, zone_of
from agent.engines.whaticket.settings import Source, read_settings
from tests.standin.whaticket import words

PEER, OTHER = "5511999990001", "5511999990002"
BASE = {"url": "http://127.0.0.1:1", "key": "k"}


def names(batch: Batch) -> list[str]:
    return sorted(name for (f, _), n in batch.errors.items() for name in [f.peer or f.name] * n)


def follow(kind: str, what: Path | str, **how) -> LogTail:
    follower = LogTail(kind, str(what), **how)
    follower.poll(0.0)
    return follower


def read(follower: LogTail, now: float = 100.0) -> list[str]:
    """Everything that is there now, and nothing waits any more."""
    found = []
    for step in range(50):
        batch = follower.poll(now + step)
        found += names(batch)
    return sorted(found)


async def followed(logs: Logs, eventually) -> None:
    """Its files were found: what is written from now on is news."""
    await eventually(lambda: all(state.where() for state in logs.states))


def error(peer: str) -> str:
    return words.pino(f"{peer}@s.whatsapp.net", "No session record") + "\n"


# --- files -----------------------------------------------------------------------------------


def test_lines_before_the_first_start_are_not_read(tmp_path):
    log = tmp_path / "app.log"
    log.write_text(error(PEER))
    follower = follow("file", log)
    with log.open("a") as file:
        file.write(error(OTHER))
    assert read(follower) == [OTHER]


def test_a_file_that_comes_later_is_read_from_its_beginning(tmp_path):
    log = tmp_path / "app.log"
    follower = follow("file", log)
    assert "no such file" in follower.trouble
    log.write_text(error(PEER))
    assert read(follower) == [PEER]
    assert follower.trouble == ""


def test_half_a_line_waits_for_its_other_half(tmp_path):
    log = tmp_path / "app.log"
    log.touch()
    follower = follow("file", log)
    line = error(PEER)
    with log.open("a") as file:
        file.write(line[:60])
        file.flush()
        assert read(follower) == []
        [place] = follower.positions().values()
        assert place["position"] == 0
        file.write(line[60:])
    assert read(follower, 200.0) == [PEER]


def test_a_renamed_file_is_let_go_in_the_end(tmp_path):
    log = tmp_path / "app.log"
    log.touch()
    follower = follow("file", log)
    for number in range(30):
        log.rename(tmp_path / f"app.log.{number}")
        log.touch()
        follower.poll(100.0 * (number + 1))
    follower.poll(10_000.0)
    assert len(follower.positions()) == 1


def test_a_file_cut_short_is_read_from_its_beginning(tmp_path):
    log = tmp_path / "app.log"
    log.write_text("x" * 5000 + "\n")
    follower = follow("file", log)
    os.truncate(log, 0)
    with log.open("a") as file:
        file.write(error(PEER))
    assert read(follower) == [PEER]


def test_the_stored_positions_hold_no_key_of_a_dump(tmp_path):
    log = tmp_path / "app.log"
    log.touch()
    follower = follow("file", log)
    private = words.secret_buffer(32)
    with log.open("a") as file:
        file.write(words.closing_session(private) + "\n" + words.closing_session(private)[:300])
    read(follower)
    shown = json.dumps(follower.positions()) + repr(read(follower))
    assert private not in shown
    assert "Buffer" not in shown


def test_a_folder_takes_new_files_and_leaves_others(tmp_path):
    (tmp_path / "a.log").write_text("old\n")
    follower = follow("folder", tmp_path)
    (tmp_path / "b.log").write_text(error(PEER))
    (tmp_path / "b.txt").write_text(error(OTHER))
    (tmp_path / ".hidden.log").write_text(error(OTHER))
    os.mkfifo(tmp_path / "pipe.log")
    assert read(follower) == [PEER]
    (tmp_path / "a.log").rename(tmp_path / "a.1.log")
    assert read(follower, 300.0) == []


def test_pm2_has_one_log_per_stream_and_app(tmp_path):
    for name in ("app-out.log", "app-error.log", "other-error.log", "app-error-1.log"):
        (tmp_path / name).touch()
    every, one = follow("pm2", tmp_path), follow("pm2", tmp_path / "app")
    for name in ("app-out.log", "app-error.log", "other-error.log", "app-error-1.log"):
        with (tmp_path / name).open("a") as file:
            file.write(error(PEER))
    # pm2-logrotate copies, then cuts: the copy holds what was read already.
    (tmp_path / "app-error__2026-11-20_00-00-00.log").write_text(error(OTHER))
    assert read(every) == [PEER] * 4
    assert read(one) == [PEER] * 3


def test_a_source_that_cannot_be_followed_is_reported(tmp_path):
    assert "it is no file" in follow("file", tmp_path).trouble
    assert "no such file" in follow("folder", tmp_path / "nowhere").trouble
    for number in range(210):
        (tmp_path / f"{number}.log").touch()
    assert "more than 200" in follow("folder", tmp_path).trouble


@settings(max_examples=60)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(["rotate", "restart", "poll"]),
            st.integers(1, 4).map(lambda count: ("write", count)),
        ),
        max_size=25,
    )
)
def test_every_line_is_read_once_whatever_happens_to_the_file(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("log")
    log = folder / "app.log"
    log.touch()
    follower = follow("file", log)
    written, found, now, rotated = 0, 0, 10.0, 0
    for step in steps:
        now += 1.0
        if step == "rotate":
            log.rename(folder / f"app.log.{rotated}")
            rotated += 1
            log.touch()
            # Two rotations between two looks would need more than one name to be searched.
            found += len(names(follower.poll(now)))
        elif step == "restart":
            kept = json.loads(json.dumps(follower.positions()))
            follower.close()
            follower = LogTail("file", str(log), earlier=kept)
        elif step == "poll":
            found += len(names(follower.poll(now)))
        else:
            with log.open("a") as file:
                file.write(error(PEER) * step[1])
            written += step[1]
    found += len(read(follower, now + 1))
    follower.close()
    assert found == written


# --- through the backend ---------------------------------------------------------------------


async def test_an_error_reaches_the_session_that_it_names(open_bench, eventually):
    bench = await open_bench()
    for id in ("7", "8"):
        theirs = await bench.paired(id)
        await eventually(lambda theirs=theirs: theirs.status, "CONNECTED")
    await bench.open(logs=[f"file:{bench.stand_in.log.path}"])
    shop, office = bench.hold("shop", "7"), bench.hold("office", "8")
    for session in (shop, office):
        await session.probe()
    await followed(bench.backend._logs, eventually)
    await bench.stand_in.sessions["7"].damage(PEER)
    for _ in range(5):
        bench.stand_in.sessions["7"].receive(PEER)
    await eventually(lambda: len(bench.of["shop"].errors()), 5)
    assert bench.of["shop"].errors() == [("bad_mac", PEER)] * 5
    assert bench.of["office"].errors() == []
    [happening, *_] = bench.of["shop"].happenings
    assert happening.detail == {"text": "Bad MAC", "peer": PEER, "pattern": "bad_mac"}


async def test_without_a_name_the_peers_keys_tell_whose_it_is(open_bench, eventually):
    bench = await open_bench()
    bench.stand_in.has_session_in_log = False
    for id in ("7", "8", "9"):
        theirs = await bench.paired(id)
        await eventually(lambda theirs=theirs: theirs.status, "CONNECTED")
    own = "5521777770001"
    theirs = bench.stand_in.sessions["8"]
    await theirs.damage(own)
    stranger = bench.stand_in.sessions["9"]
    await stranger.damage("5521777770009")
    backend = await bench.open(logs=[f"file:{bench.stand_in.log.path}"])
    bench.hold("shop", "7")
    bench.hold("office", "8")
    await followed(backend._logs, eventually)
    await backend.sessions()
    theirs.receive(own)  # only session 8 knows this peer
    stranger.receive("5521777770009")  # of a session that is not ours to watch
    bench.stand_in.log(words.bad_mac(f"{PEER}.0"))  # all three know this one
    await eventually(bench.of["office"].errors, [("bad_mac", own)])
    await eventually(lambda: backend._errors.unattributed, 1)
    assert bench.of["shop"].errors() == []
    assert "1 crypto errors in its logs of the last hour" in (await backend.check()).sentence


async def test_positions_are_kept_and_private(open_bench, eventually):
    bench = await open_bench()
    bench.stand_in.add("7")
    logs = [f"file:{bench.stand_in.log.path}"]
    backend = await bench.open(logs=logs)
    bench.hold("shop", "7")
    await followed(backend._logs, eventually)
    bench.stand_in.log(error(OTHER).strip())
    await eventually(bench.of["shop"].errors)
    await bench.close()
    kept = bench.kept / "logs.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    bench.stand_in.log(error(PEER).strip())
    await bench.open(logs=logs)
    bench.hold("shop", "7")
    await eventually(bench.of["shop"].errors, [("no_session", PEER)])


def raise_it(error: BaseException) -> None:
    raise error


# --- programs --------------------------------------------------------------------------------


async def program(tmp_path, eventually, source: str, until) -> tuple[Logs, list[Batch]]:
    batches: list[Batch] = []
    logs = Logs(read_settings({**BASE, "logs": [source]}), tmp_path, batches.append, raise_it)
    await logs.open()
    await eventually(lambda: until(logs, batches))
    await logs.close()
    return logs, batches


def peers(batches: list[Batch]) -> list[str]:
    return [name for batch in batches for name in names(batch)]


async def test_a_commands_output_is_read_and_it_is_started_again(tmp_path, eventually):
    script = tmp_path / "logs.sh"
    script.write_text(
        f"#!/bin/sh\necho run >> {tmp_path}/runs\ncat <<'X'\n{error(PEER)}X\necho Bad MAC >&2\n"
    )
    script.chmod(0o755)
    _, batches = await program(
        tmp_path, eventually, f"command:{script} --follow", lambda _, b: len(peers(b)) >= 4
    )
    assert peers(batches)[:2] in ([PEER, "bad_mac"], ["bad_mac", PEER])
    assert (tmp_path / "runs").read_text().count("run") >= 2


async def test_a_command_and_its_children_end_with_us(tmp_path, eventually):
    script = tmp_path / "logs.sh"
    script.write_text(f"#!/bin/sh\nsleep 1000 &\necho $! > {tmp_path}/child\necho Bad MAC\nwait\n")
    script.chmod(0o755)
    await program(tmp_path, eventually, f"command:{script}", lambda _, b: peers(b))
    child = int((tmp_path / "child").read_text())
    await eventually(lambda: not is_alive(child))


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]
    except OSError:
        return False


JOURNALCTL = """#!/bin/sh
echo "$@" >> {folder}/asked
cat <<'X'
{lines}
X
exec sleep 1000
"""


def journal(folder: Path, monkeypatch: pytest.MonkeyPatch, entries: list[dict]) -> None:
    """A program of journalctl's name that speaks as it does; no journal runs in a test."""
    lines = "\n".join(json.dumps(entry) for entry in entries)
    place = folder / "bin"
    place.mkdir()
    (place / "journalctl").write_text(JOURNALCTL.format(folder=folder, lines=lines))
    (place / "journalctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")


async def test_a_journal_is_followed_from_its_cursor(tmp_path, eventually, monkeypatch):
    block = words.bad_mac(f"{PEER}.3").split("\n")
    other = words.bad_mac(f"{OTHER}.3").split("\n")
    entries = []
    for number, (one, two) in enumerate(zip(block, other, strict=True)):
        # Two processes of one unit, line by line; what is no UTF-8 comes as its bytes.
        entries.append({"__CURSOR": f"s={number}a", "_PID": "10", "MESSAGE": one})
        entries.append({"__CURSOR": f"s={number}b", "_PID": "11", "MESSAGE": list(two.encode())})
    journal(tmp_path, monkeypatch, entries)
    for _ in range(2):
        _, batches = await program(
            tmp_path, eventually, "journal:whaticket.service", lambda _, b: len(peers(b)) >= 2
        )
        assert sorted(peers(batches)) == [PEER, OTHER]
    first, second = (tmp_path / "asked").read_text().splitlines()
    assert "--unit=whaticket.service" in first
    assert first.endswith("--lines=0")
    assert second.endswith(f"--after-cursor=s={len(block) - 1}b")


def test_sources_are_shown_without_arguments():
    assert str(Source("command", "docker logs -f --token x")) == "command:docker"
    assert str(Source("file", "/var/log/x y.log")) == "file:/var/log/x y.log"


# --- rotated between two reads ------------------------------------------------------


def away(log: Path, *peers: str) -> dict:
    """A reader that saw these errors and ended; what it kept."""
    log.touch()
    first = follow("file", log)
    with log.open("a") as file:
        file.write("the server starts\n" * 20 + "".join(error(peer) for peer in peers))
    read(first)
    kept = json.loads(json.dumps(first.positions()))
    first.close()
    return kept


def came_back(log: Path, kept: dict) -> list[str]:
    return read(LogTail("file", str(log), earlier=kept))


NUMBERS = [f"551133333000{number}" for number in range(9)]


def test_two_rotations_between_two_readings_lose_nothing(tmp_path):
    log = tmp_path / "app.log"
    kept = away(log, NUMBERS[0])
    for at, name in ((1, "app.log.2"), (2, "app.log.1")):
        with log.open("a") as file:
            file.write(error(NUMBERS[at]))
        log.rename(tmp_path / name)
        os.utime(tmp_path / name, (time.time() + at - 100,) * 2)
    log.write_text(error(NUMBERS[3]))
    assert came_back(log, kept) == NUMBERS[1:4]


@pytest.mark.parametrize("how", ["copied and cut", "compressed", "renamed, its number is reused"])
def test_a_rotated_part_is_recognised_by_its_content(tmp_path, how):
    log, old = tmp_path / "app.log", tmp_path / "app.log.1"
    (tmp_path / "app.log.9").write_text("the server starts\n" * 20 + error("5599"))  # an older one
    os.utime(tmp_path / "app.log.9", (1e9, 1e9))
    kept = away(log, NUMBERS[0])
    with log.open("a") as file:
        file.write(error(NUMBERS[1]))
    if how == "compressed":
        (tmp_path / "app.log.1.gz").write_bytes(gzip.compress(log.read_bytes()))
        log.unlink()
    elif how == "copied and cut":
        shutil.copy(log, old)
        os.truncate(log, 0)
    else:
        shutil.copy(log, old)  # the old file is gone, the new one has its inode
        log.write_text("")
    with log.open("a") as file:
        file.write("the server starts\n" * 20 + error(NUMBERS[2]) * 3)
    assert came_back(log, kept) == [NUMBERS[1], *[NUMBERS[2]] * 3]


# --- when a line was written -----------------------------------------------------------------

NOON = 1_795_176_000.0
"""2026-11-20 12:00:00 UTC."""


@pytest.mark.parametrize(
    ("line", "offset", "at"),
    [
        (b"2026-11-20 12:00:00 x", 0.0, NOON),
        (b"2026-11-20 09:00:00.123 x", -10800.0, NOON),
        (b"[2026-11-20 17:30:00.000 +0530] ERROR: x", 0.0, NOON),
        (b"ERROR [20-11-2026 09:00:00]: x", -10800.0, NOON),
        (b"[23:00:00.123] ERROR (77): x", 0.0, NOON + 11 * 3600 - 86400),
        (b'{"level":50,"time":1795176000000,"msg":"x"}', -10800.0, NOON),
        (b"2026-99-20 12:00:00 x", 0.0, 7.0),
        (b"a line without a time", 0.0, 7.0),
    ],
)
def test_a_line_tells_when_it_was_written(line, offset, at):
    assert LogClock(NOON + 30, offset, 7.0).see(line) == at


@pytest.mark.parametrize(
    ("stamp", "offset"),
    [
        ("2026-11-20 11:59:30", 0.0),
        ("2026-11-20 17:29:30", 19800.0),
        ("[08:59:30.000] INFO (7)", -10800.0),
    ],
)
def test_the_zone_of_a_log_shows_by_when_it_was_last_written(tmp_path, stamp, offset):
    log = tmp_path / "app.log"
    log.write_text(f"{stamp}: x\nand more of it\n")
    os.utime(log, (NOON, NOON))
    assert zone_of(log, NOON + 5000) == offset
