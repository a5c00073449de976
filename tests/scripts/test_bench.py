"""What `scripts/bench` says must be what was measured, and nothing of it may stay behind."""

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from agent.engines.web.browser.arguments import find_browser
from agent.engines.web.fetch import fetch_bundle
from agent.errors import ConfigError, EngineError
from scripts.benches import __main__ as bench
from scripts.benches import (
    baileys,
    compare,
    density,
    density_rows,
    footprint,
    idle_messages,
    kills,
    message_paths,
    passes,
    scrape,
    thousand,
    web,
)
from scripts.benches.fleet import SLOW_LOGIN, measure_many, measure_ours, measure_slow_logins
from scripts.benches.machine import TOP, this_machine
from scripts.benches.peers import NotHere
from scripts.benches.plot import draw
from scripts.benches.processes import children, cpu, kill_marked, marked, new_child, pss, uss
from scripts.benches.report import OURS, Goal, Report, Row
from scripts.benches.rounds import Times
from scripts.benches.site import open_site
from tests.lacking import lacks
from tests.standin.baileys.run import why_not

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


def report(*rows: Row) -> Report:
    return Report("trial", this_machine(), {OURS: "1", "pm2": "7"}, rows, ["a note"])


def test_benches_run_in_an_environment_without_the_tests_libraries() -> None:
    """But for `messages`, for which scripts/bench asks for these."""
    program = "import sys; sys.modules['pytest'] = None; import scripts.benches.__main__"
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=TOP
    )
    assert done.returncode == 0, done.stderr


def test_a_second_order_to_end_does_not_break_off_the_end() -> None:
    program = """
import signal
from scripts.benches.__main__ import end_in_order
signal.signal(signal.SIGTERM, end_in_order)
try:
    print("runs", flush=True)
    signal.pause()
finally:
    print("ends", flush=True)
    input()
    print("has ended", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=TOP,
    ) as process:
        assert process.stdout is not None
        for word in ("runs\n", "ends\n"):
            assert process.stdout.readline() == word
            process.terminate()
        assert process.communicate("go on\n", timeout=60)[0] == "has ended\n"
    assert process.returncode == 143


@pytest.mark.parametrize(("ours", "status"), [(2.0, 1), (0.5, 0)])
def test_a_goal_that_is_missed_is_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: float, status: int
) -> None:
    monkeypatch.setattr(bench, "CACHE", tmp_path)
    found = report(Row("memory", "MiB", {OURS: [ours], "pm2": [4.0]}, Goal("", 1.0)))
    assert bench._finish(found) == status


def test_the_plot_has_a_bar_for_each_figure_that_others_have_too() -> None:
    both = Row("memory & more", "MiB", {OURS: [1.0, 2.0, 3.0], "pm2": [4.0]}, Goal("", 1.0))
    alone = Row("only ours", "", {OURS: [5.0]})
    drawn = ElementTree.fromstring(draw(report(both, alone)))
    space = "{http://www.w3.org/2000/svg}"
    bars = [float(one.get("width", "0")) for one in drawn.findall(f"{space}rect")[1:]]
    assert bars == [210.0, 420.0], "to scale, the longest is the whole width"
    (goal,) = drawn.findall(f"{space}line")
    assert float(goal.get("x1", "0")) == 120 + 105
    words = [one.text for one in drawn.findall(f"{space}text")]
    assert "memory & more, MiB" in words and "2.00" in words and "only ours" not in words


@pytest.mark.parametrize(
    ("figures", "goal", "cells"),
    [
        pytest.param(
            {OURS: [3.0, 1.0, 2.0], "pm2": [4.0]},
            Goal("pm2's", 4.0),
            "| 2.00 | 4.00 (0.500x) | pm2's: ≤ 4.00 | met |",
            id="the median and the ratio of the medians",
        ),
        pytest.param(
            {OURS: [8.0], "pm2": [4.0]},
            Goal("", 4.0),
            "| 8.00 | 4.00 (2.00x) | ≤ 4.00 | **not met** |",
            id="a goal that is missed is said so",
        ),
        pytest.param(
            {OURS: [8.0], "pm2": []},
            Goal("pm2's", None),
            "| 8.00 | - | pm2's | not measured |",
            id="nothing to compare with",
        ),
        pytest.param(
            {"pm2": [0.0], OURS: [1234.0]},
            None,
            "| 1,234 | 0 |  |  |",
            id="no ratio to nothing",
        ),
    ],
)
def test_a_row_says_what_was_measured(figures, goal, cells):
    table = report(Row("start", "s", figures, goal)).markdown()
    assert f"| start, s {cells}" in table


def test_the_json_holds_every_run_and_the_machine(tmp_path):
    runs = [3.0, 1.0, 2.0]
    written = report(Row("start", "s", {OURS: runs}, Goal("", 2.5))).write(tmp_path)
    assert len(written) == 4
    found = json.loads((tmp_path / "trial.json").read_text())
    assert found["rows"][0]["runs"] == {OURS: runs}
    assert found["rows"][0]["met"] is True
    assert found["machine"]["cores"] == os.cpu_count()


def test_processor_time_of_another_process_is_what_it_used():
    busy = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert 0.3 <= cpu([process.pid]) < 3
        assert 1 < uss(process.pid) <= pss(process.pid) < 100
        process.communicate(b"\n")
    assert cpu([process.pid]) == 0


def test_a_new_child_is_seen_and_an_old_one_is_not_taken_for_it():
    with subprocess.Popen(SLEEPER) as old:
        before = children([os.getpid()])
        assert old.pid in before
        with subprocess.Popen(SLEEPER) as new:
            assert asyncio.run(new_child([os.getpid()], before)) == new.pid
            new.kill()
        old.kill()


def test_only_the_marked_are_killed(tmp_path):
    with (
        subprocess.Popen(SLEEPER, env={**os.environ, "WA_BENCH": str(tmp_path)}) as ours,
        subprocess.Popen(SLEEPER, env={**os.environ, "WA_BENCH": "/elsewhere"}) as others,
    ):
        until = time.monotonic() + 30
        while ours.pid not in marked(str(tmp_path)):  # until it has its new environment
            assert time.monotonic() < until
            time.sleep(0.01)
        assert kill_marked(str(tmp_path)) >= 1
        assert ours.wait(60) == -9
        assert others.poll() is None
        others.kill()


def test_every_kind_of_trouble_is_decided_on():
    well = passes.decide_all(passes.fleet(0.0))
    assert well == {"healthy": passes.INSTANCES}
    troubled = passes.decide_all(passes.fleet(1.0))
    assert "healthy" not in troubled
    words = {"stuck", "degraded", "corrupted", "step restart", "plan start"}
    assert words <= troubled.keys()


@pytest.mark.slow
def test_a_scrape_is_compared_on_thirty_thousand_series():
    found = scrape.measure(quick=True)
    assert int(found.rows[0].measure.split()[0].replace(",", "")) >= scrape.SERIES
    assert found.names == [OURS, "gauges", "collector"]
    assert all(min(row.figures[OURS]) > 0 for row in found.rows)


@pytest.mark.slow
async def test_the_agents_turn_measures_everything_and_leaves_nothing(eventually):
    times = Times(starts=1, kills=1, adoptions=1, scrapes=2, idle=0.3, settle=0.3)
    with open_site(3) as site:
        figures = await measure_ours(site, times)
        await eventually(lambda: marked(str(site.place)), [])
    with open_site(2) as slow:
        figures |= await measure_slow_logins(slow)
        await eventually(lambda: marked(str(slow.place)), [])
    assert figures["start as installed, slow"][0] > SLOW_LOGIN
    assert not site.place.exists()
    assert {shape.key for shape in footprint.shapes(3)} <= figures.keys()
    assert figures["adoption lost"] == [0]
    assert figures["connected again"][0] > figures["new pid"][0] > 0


@pytest.mark.slow
async def test_the_larger_fleet_has_a_row_below_that_of_the_other(eventually):
    times = Times(starts=1, kills=1, adoptions=1, scrapes=2, idle=0.3, settle=0.3)
    with open_site(4) as site:
        figures = await measure_many(site, times)
        await eventually(lambda: marked(str(site.place)), [])
    found = {OURS: {footprint.MANY + key: runs for key, runs in figures.items()}}
    found[OURS] |= {"idle": [0.05], "create": [0.01], "stop": [0.01], "adoption": [0.01]}
    rows = [row for shape in footprint.shapes(200, 4) if (row := shape.row(found)) is not None]
    measures = [row.measure for row in rows]
    for measure in ("idle CPU of its own", "create all over the API → all CONNECTED"):
        assert measures[measures.index(measure) + 1] == f"4 sessions: {measure}"
    assert len(rows) == 10
    assert all(row.met is not None for row in rows if row.measure.startswith("4 sessions"))


def test_the_goals_of_an_idle_agent_are_those_that_were_set():
    assert [footprint.idle_goal(number) for number in (20, 200, 1000)] == [0.1, 0.1, 0.7]
    (row,) = [
        shape.row({OURS: {"many idle": [0.8]}})
        for shape in footprint.shapes(200, 1000)
        if shape.key == "many idle"
    ]
    assert row is not None and row.met is False
    assert "**not met**" in report(row).markdown()


def test_a_start_as_installed_has_the_goal_of_a_boot_and_tells_when_it_is_missed():
    assert [footprint.boot_goal(number) for number in (3, 51, 200)] == [15.0, 15.0, 60.0]
    found = {OURS: {"start as installed": [61.0], "start": [2.0]}}
    rows = [row for shape in footprint.shapes(200) if (row := shape.row(found)) is not None]
    assert [row.met for row in rows] == [True, False], "tuned, and as installed beside it"


def test_the_program_explains_itself():
    top = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "scripts.benches", "footprint", "--help"],
        cwd=top,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--instances" in done.stdout


@pytest.mark.slow
def test_a_browser_is_measured_beside_theirs_and_leaves_nothing(monkeypatch):
    try:
        find_browser("headless-shell")
        find_browser("chromium")
        fetch_bundle(Path(os.environ.get("WA_CACHE_PATH", TOP / ".cache")))
    except (ConfigError, EngineError) as error:
        lacks(str(error))
    short = web.Times(1, 0.1, 0.5)
    monkeypatch.setattr(web, "Times", lambda *_: short)
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)  # root's measures run as another user
        monkeypatch.setattr("tempfile.tempdir", place)
        found = web.measure(1, quick=True)
        assert list(Path(place).glob("wa-bench-*")) == []
    memory = found.rows[0]
    assert memory.median(OURS) < memory.median(web.THEIRS)
    assert all(row.median(name) > 0 for row in found.rows for name in found.names)
    assert any("own sandbox" in note and "uid 0," not in note for note in found.notes)


@pytest.mark.slow
def test_a_session_of_baileys_is_measured_beside_a_plain_bot_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if reason := why_not("baileys"):
        lacks(reason)
    short = baileys.Times(1, 0.1, 0.5)
    monkeypatch.setattr(baileys, "Times", lambda *_: short)
    monkeypatch.setattr(baileys, "KINDS", (OURS, baileys.BOT))
    monkeypatch.setattr(baileys, "PACKS", (2,))
    monkeypatch.setattr(baileys, "DISK", str(tmp_path))
    try:
        found = baileys.measure(1, quick=True)
    except EngineError as error:
        lacks(str(error))
    assert list(tmp_path.iterdir()) == []
    memory, processes, _, start, spent, killed, *packed = found.rows
    assert all(row.median(name) > 0 for row in (memory, start) for name in found.names)
    assert all(spent.median(name) >= 0 for name in found.names), "idle is idle"
    assert killed.median(OURS) > 0
    assert len(packed) == 4
    assert all(row.median(OURS) > 0 for row in packed)
    assert (processes.median(OURS), processes.median(baileys.BOT)) == (2, 1)
    bot = memory.median(baileys.BOT)
    assert memory.goal.limit == 55 and memory.median(OURS) < bot * 1.5, "what others map is shared"


SHORT_DENSITY = density.Times(settle=0.1, idle=0.5, messages=3)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_pack_is_measured_beside_a_plain_bot_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if reason := why_not("baileys"):
        lacks(reason)
    monkeypatch.setattr(density, "Times", lambda *_: SHORT_DENSITY)
    monkeypatch.setattr(density, "KINDS", (OURS, baileys.BOT))
    monkeypatch.setattr(density, "DISK", str(tmp_path))
    try:
        found = density.measure([2], quick=True)
    except EngineError as error:
        lacks(str(error))
    assert list(tmp_path.iterdir()) == []
    rows = dict(zip((shape.key for shape in density_rows.SHAPES), found.rows, strict=True))
    for key in ("memory", "start", "latency", "late"):
        assert all(rows[key].median(name) > 0 for name in (OURS, baileys.BOT)), key
    assert rows["memory"].median(OURS) < rows["memory"].median(baileys.BOT)
    assert rows["latency"].median(OURS) <= rows["late"].median(OURS)
    assert [rows["lost"].median(name) for name in (OURS, baileys.BOT)] == [0, 0]
    assert rows["killed"].median(OURS) > 0
    assert rows["killed"].median(baileys.BOT) is None, "nobody starts a plain bot again"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sessions_of_an_agent_in_packs_are_measured_and_leave_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if reason := why_not("baileys"):
        lacks(reason)
    monkeypatch.setattr(thousand, "CUT", 1.0)
    monkeypatch.setattr(thousand, "DISK", str(tmp_path))
    found = thousand.measure(2)
    assert list(tmp_path.iterdir()) == []
    _paired, whole, one, _adopted, again, _back, most = (row.median(OURS) for row in found.rows)
    assert whole == pytest.approx(2 * one) and whole > 50, "an agent, a worker, a Node"
    assert (again, most) == (0, 1), "adopted without a login, and one after the outage"


def test_density_prints_what_it_has_and_which_goal_was_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if reason := why_not("baileys"):
        lacks(reason)
    turns: list[tuple[str, int]] = []

    async def turn(kind: str, count: int, *rest: object) -> dict[str, list[float]]:
        figures = rest[-1]
        assert isinstance(figures, dict)
        turns.append((kind, count))
        if kind == density.EVOLUTION and count == 50:
            raise NotHere("no folder")
        figures["memory"] = [{OURS: 6.0, density.EVOLUTION: 12.0}.get(kind, 75.0)]
        if (kind, count) == (baileys.BOT, 1):
            raise TimeoutError  # a later part of this turn
        if (kind, count) == (baileys.BOT, 50):
            raise KeyboardInterrupt
        figures["start"] = [float(count)]
        return figures

    monkeypatch.setattr(density, "fetch_packages", lambda _cache: None)
    monkeypatch.setattr(density, "_turn", turn)
    found = density.measure([1, 50], quick=True)
    first = [(kind, size) for kind in (OURS, density.EVOLUTION) for size in (1, 50)]
    others = [(kind, 1) for kind in (baileys.BOT, baileys.KEPT, density.ALONE)]
    assert turns == [*first, *others, (baileys.BOT, 50)]
    memory, of_theirs, start, packed, *_ = found.rows
    assert memory.median(baileys.BOT) == 75, "what was measured before its start failed"
    assert start.median(baileys.BOT) is None and start.median(baileys.KEPT) == 1
    assert (memory.met, of_theirs.met) == (False, True), "6 MiB, half of Evolution's 12"
    assert packed.goal == Goal("", 5.0) and packed.met is False
    table = found.markdown()
    assert "Interrupted" in table and "Left out: a run of plain bot, 1" in table
    assert "Not measured: Evolution API: no folder" in table


def test_density_that_is_short_of_time_measures_ours_first_and_names_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if reason := why_not("baileys"):
        lacks(reason)

    async def turn(kind: str, _count: int, *rest: Any) -> dict[str, list[float]]:
        if kind != OURS:
            await asyncio.Event().wait()
        rest[-1]["memory"] = [4.0]
        return rest[-1]

    monkeypatch.setattr(density, "fetch_packages", lambda _cache: None)
    monkeypatch.setattr(density, "_turn", turn)
    table = density.measure([1, 50], quick=True, minutes=0.01).markdown()
    assert "50 together: memory of one session" in table
    assert "Left out: a run of Evolution API, 1: the time of this run was over" in table
    assert "Left out: plain bot, 50: no time is left of 0.01 minutes" in table


def test_a_start_that_takes_too_long_leaves_out_its_run_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if reason := why_not("baileys"):
        lacks(reason)
    runs: list[str] = []

    async def run(name: str, *_: object) -> dict[str, list[float]]:
        runs.append(name)
        if len(runs) == 2:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        return {"memory": [50.0]}

    monkeypatch.setattr(baileys, "fetch_packages", lambda _cache: None)
    monkeypatch.setattr(baileys, "KINDS", (OURS,))
    monkeypatch.setattr(baileys, "PACKS", ())
    monkeypatch.setattr(baileys, "_round", run)
    found = baileys.measure(1, quick=False)
    assert (len(runs), found.rows[0].figures[OURS]) == (3, [50.0, 50.0])
    assert "left out: a run of wa-agent: a session did not start within 180 s" in found.notes


@pytest.mark.slow
async def test_kills_of_a_session_lose_nothing_and_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if reason := why_not("baileys"):
        lacks(reason)
    try:
        await kills.run(4, 1, tmp_path)
    except EngineError as error:
        lacks(str(error))
    table = capsys.readouterr().out
    rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.MULTILINE))
    assert sum(map(int, re.findall(r"\d+", rows["kills"]))) == 4
    assert int(rows["logins"]) >= 5, "one after pairing, one after each kill"
    assert rows["one more of each peer, read"] == "8 of 8"
    said, read = re.findall(r"\d+", rows["messages written meanwhile, read in the end"])[:2]
    assert int(read) >= int(said) - 4, "at most the one under way at each kill"
    assert rows["of them kept, and kept twice"] == f"{said}, 0"


SHORT = Times(starts=1, kills=1, adoptions=1, scrapes=1, idle=0.3, settle=0.3)


@pytest.mark.timeout(180)
def test_two_commits_are_measured_and_leave_nothing(monkeypatch, capsys):
    twin = compare.Program("twin", TOP, Path(sys.executable))
    monkeypatch.setattr(compare, "lay_out", lambda _commit: twin)
    monkeypatch.setattr(compare, "QUICK", SHORT)
    found = compare.measure("HEAD", 2, rounds=1, quick=True)
    assert {row.measure for row in found.rows} == {name for name, *_ in compare.MEASURES.values()}
    for row in found.rows:
        assert set(row.figures) == {OURS, "twin"} and row.met is not None
    assert "killed" not in capsys.readouterr().err


def test_a_comparison_that_is_interrupted_prints_what_it_has(monkeypatch, capsys):
    """The second commit's second turn is where somebody presses Ctrl-C."""
    turns = iter([{"start": [2.0]}, {"start": [1.0]}, {"start": [4.0]}])

    def play(*_args):
        try:
            return next(turns)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(compare, "lay_out", lambda _commit: compare.Program("old", TOP, Path("-")))
    monkeypatch.setattr(compare, "_round", play)
    found = compare.measure("HEAD", 9, rounds=3, quick=True)
    table = found.markdown()
    begun = [line.split()[-2] for line in capsys.readouterr().err.splitlines() if "round" in line]
    assert begun == [OURS, "old", "old", OURS], "each second round the other way"
    assert "| 2.00 | 2.50 (0.800x) | 1.25 x old's: ≤ 3.12 | met |" in table
    assert "Interrupted: 1 of 3 rounds were whole." in table


def test_a_commit_that_is_not_there_is_named():
    with pytest.raises(SystemExit, match="cannot find the commit no-such-commit"):
        compare.lay_out("no-such-commit")


@pytest.mark.slow
@pytest.mark.timeout(200)
async def test_a_messages_paths_are_measured_beside_a_plain_bot(tmp_path: Path) -> None:
    if reason := why_not("baileys"):
        lacks(reason)
    rows = await message_paths.measure_paths(tmp_path, 2)
    assert len(rows) == 6
    for row in rows:
        both = {OURS} if "is sent" in row.measure else {OURS, message_paths.PLAIN}
        assert {*row.figures} == both
        assert all(0.0 < each < 60_000 for runs in row.figures.values() for each in runs)


@pytest.mark.slow
@pytest.mark.timeout(200)
async def test_what_messages_cost_a_session_that_rests_has_a_goal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle_messages, "REST", 0.1)
    monkeypatch.setattr(idle_messages, "MESSAGES", 20)
    rows = await idle_messages.measure_idle(tmp_path / "idle", 1, 1.0)
    assert [row.unit for row in rows] == ["MiB", "MiB", "ms/min", "ms/min"]
    for row in rows:
        assert {*row.figures} == {OURS, idle_messages.WITHOUT}
        assert row.met is not None and row.goal is not None
        if row.unit == "MiB":
            without = row.median(idle_messages.WITHOUT)
            assert without is not None and without > 3 and row.goal.limit == without + 1
