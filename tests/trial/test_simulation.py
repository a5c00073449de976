"""The core over a whole simulated day: what its tables cannot show one decision at a time."""

import heapq
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core.recovery.repair import RecoveryKind
from scripts.simulation import faults, reaches
from scripts.simulation.agent import Agent
from scripts.simulation.faults import CAPACITY, DAY, LOGINS_A_MINUTE, SOCKET, Span, merged
from scripts.simulation.lanes import Lane
from scripts.simulation.outages import (
    ENGINES,
    SECONDS,
    SESSIONS,
    Cost,
    outage_rows,
    play_outage,
)
from scripts.simulation.picture import plot
from scripts.simulation.places import Times
from scripts.simulation.plain import FixedRetry, NoSupervision
from scripts.simulation.report import CONDITIONS, grid, markdown, rows_of, table
from scripts.simulation.stuck import (
    BEGIN,
    CURES,
    SIZES,
    StuckMachine,
    every_stuck,
    play_stuck,
    stuck_rows,
)
from scripts.simulation.tally import Curve, Tally
from scripts.simulation.world import Machine

ROOT = Path(__file__).parents[2]
README, DAY_SVG = ROOT / "scripts/README.md", ROOT / "scripts/simulation/day.svg"


def play(way, seed="1/0", size=100):
    tally = Tally()
    machine = Machine(seed, size, tally)
    machine.supervising = way(machine)
    machine.play()
    return tally


@pytest.fixture(scope="module")
def day():
    return {way.__name__: play(way) for way in (Agent, FixedRetry, NoSupervision)}


def test_the_agent_brings_nearly_all_back_without_a_person_and_gives_up_no_pairing(day):
    agent = day["Agent"]
    assert agent.episodes > 500
    assert agent.recovered_share >= 0.99
    assert agent.unpaired == 0


def test_f54_there_is_no_storm_of_logins(day):
    agent, fixed = day["Agent"], day["FixedRetry"]
    assert agent.worst_minute < LOGINS_A_MINUTE < fixed.worst_minute
    assert sum(agent.logins) < sum(fixed.logins) / 5


def test_the_agent_serves_longer_than_the_others(day):
    serving = {name: tally.share("serving") for name, tally in day.items()}
    assert serving["Agent"] > serving["FixedRetry"] > serving["NoSupervision"]


def test_every_second_of_every_instance_is_in_one_condition(day):
    for tally in day.values():
        assert sum(tally.seconds.values()) == pytest.approx(tally.instances * DAY)


def test_the_same_seed_is_the_same_day():
    first, again = play(Agent, size=20), play(Agent, size=20)
    assert first == again
    assert play(Agent, "2/0", size=20) != first


def test_machines_add_up(day):
    total = Tally()
    for _ in range(2):
        total.add(day["Agent"])
    assert total.instances == 200
    assert total.share("serving") == pytest.approx(day["Agent"].share("serving"))


def test_a_curve_counts_parts_of_minutes():
    curve = Curve()
    curve.add(30, 60)
    curve.add(90, 270)
    curve.add(DAY - 30, DAY + 999)
    assert curve.per_minute()[:5] == [0.5, 0.5, 1, 1, 0.5]
    assert curve.per_minute()[-1] == 0.5


def test_overlapping_spans_are_one():
    spans = [Span(5, 9), Span(1, 3), Span(2, 4), Span(9, 10)]
    assert merged(spans) == [Span(1, 4), Span(5, 10)]


# backends


class Hasty(Agent):
    """The same agent, were a backend that is away no reason to hold anything."""

    def __init__(self, machine):
        super().__init__(machine)
        self._backends.say_nothing = lambda _known: False
        self._backends.wait_reason = lambda _known, _at: ""
        self._backends.ask = lambda _known, _at: None
        self._backends.gone = lambda _place, _at: None

    def backend_gone(self, backend, at):
        for session in self._machine.sessions:
            if session.place is backend:
                self.changed(session, at)

    backend_back = backend_gone


@pytest.fixture
def elsewhere(monkeypatch):
    """All sessions live on two backends, and each of those is away for hours."""
    monkeypatch.setattr(faults, "REMOTE_SHARE", 1.0)
    monkeypatch.setattr(faults, "LONG_FAILURE", 1.0)
    return {way.__name__: play(way, "3/0", size=60) for way in (Agent, Hasty, FixedRetry)}


def test_an_outage_of_a_backend_ends_no_pairing_and_costs_no_attempt(elsewhere):
    agent = elsewhere["Agent"]
    assert agent.share("out of reach") > 0.1, "it was long"
    assert (agent.unpaired, agent.unpaired_by_outage) == (0, 0)
    assert (agent.in_vain, agent.recovered_share) == (0, 1.0)
    assert agent.back_within(0.99) < 300
    assert agent.worst_minute < LOGINS_A_MINUTE


def test_without_the_hold_it_would_ask_in_vain(elsewhere):
    agent, hasty = elsewhere["Agent"], elsewhere["Hasty"]
    assert hasty.in_vain > 100 > agent.in_vain
    assert hasty.share("down") > 2 * agent.share("down")
    assert elsewhere["FixedRetry"].in_vain > 10_000


def test_a_session_of_a_mute_backend_serves_on(monkeypatch):
    monkeypatch.setattr(faults, "REMOTE_SHARE", 1.0)
    monkeypatch.setattr(faults, "SERVES_ON", 1.0)
    monkeypatch.setattr(faults, "BACKEND_FAILURES", 10.0)
    monkeypatch.setattr(faults, "LONG_FAILURE", 0.0)
    tally = Tally()
    machine = Machine("1/0", 40, tally)
    machine.supervising = Agent(machine)
    machine.play()
    spans = [span for place in machine.backends for span in place.unseen.spans]
    unseen = sum(span.end - span.begin for span in spans) / len(machine.backends) / DAY
    assert unseen > 0.05
    assert tally.share("serving") > 1 - unseen
    assert tally.unpaired == 0


def test_pairings_ended_while_their_backend_was_away_are_counted(monkeypatch):
    """The row that must read 0 can read otherwise."""
    monkeypatch.setattr(faults, "REMOTE_SHARE", 1.0)
    monkeypatch.setattr(faults, "LONG_FAILURE", 1.0)
    tally = Tally()
    machine = Machine("3/0", 10, tally)
    machine.supervising = NoSupervision(machine)
    session = next(one for one in machine.sessions if one.place.unseen.spans)
    span = max(session.place.unseen.spans, key=lambda one: one.end - one.begin)
    session.down_since = span.begin
    assert not machine.begin_afresh(session, span.begin + 1)
    assert (tally.in_vain, tally.unpaired) == (1, 0)
    assert machine.begin_afresh(session, span.end + 1)
    assert (tally.unpaired, tally.unpaired_by_outage) == (1, 1)


def test_a_session_that_began_again_waits_for_its_person_and_does_not_begin_once_more(monkeypatch):
    monkeypatch.setitem(faults.RATES, "damaged", 0.5)
    begun = Counter()

    class Counting(Machine):
        def begin_afresh(self, session, at):
            begun[session.number] += 1
            return super().begin_afresh(session, at)

    machine = Counting("1/0", 60, Tally())
    machine.supervising = Agent(machine)
    machine.play()
    assert begun and set(begun.values()) == {1}


def test_times_answer_as_their_spans_do():
    times = Times([Span(1, 3), Span(2, 4), Span(6, 7)])
    assert [at for at in range(9) if times.covers(at)] == [1, 2, 3, 6]
    assert times.within(0, 1) == []
    assert times.within(3, 6.5) == [Span(3, 4), Span(6, 6.5)]
    assert times.within(4, 6) == []


# what is shown


def test_the_report_shows_every_way(day):
    text, page, picture = table(day), markdown(day), plot(day)
    for name in day:
        assert name in text
        assert name in page
        assert f"{name}: instances in each condition" in picture
    assert picture.count("<polyline") == 2 * len(day)
    assert picture.count("<polygon") == len(CONDITIONS) * len(day)
    assert all(row.count("|") == len(day) + 2 for row in page.splitlines())


def test_every_instance_is_in_the_picture_all_day(day):
    for tally in day.values():
        curves = [tally.curves[name].per_minute() for name in CONDITIONS]
        for minute in (0, 200, 700, 1439):
            assert sum(curve[minute] for curve in curves) == pytest.approx(tally.instances)


def test_restarts_are_counted_in_their_minute(day):
    for tally in day.values():
        assert tally.restarts[0] > 0, "the machine's boot"
    assert sum(day["Agent"].restarts) < sum(day["Agent"].logins)


def test_the_readme_shows_what_the_command_prints(day):
    text = README.read_text()
    for name, _ in rows_of(day):
        assert f"| {name} |" in text
    assert "(simulation/day.svg)" in text
    picture = DAY_SVG.read_text()
    assert picture.count("<polygon") == len(CONDITIONS) * len(day)


# single outages


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seconds", SECONDS)
def test_an_outage_costs_seconds_and_hardly_a_login(engine, seconds):
    for size in (1, 2):
        cost = play_outage(engine, seconds, size, seeds=3)
        assert cost.last_back <= 10, cost
        assert cost.logins <= 2, cost


def test_many_come_back_as_fast_as_the_machine_takes_them():
    cost = play_outage(SOCKET, 120, 100, seeds=1)
    one_by_one = 100 / CAPACITY * 6.0
    assert cost.last_back <= 10 + one_by_one, cost
    assert cost.logins <= 2, cost


def test_a_login_that_only_waits_for_whatsapp_leaves_its_place_to_the_next(monkeypatch):
    light = play_outage(SOCKET, 120, 100, seeds=1)
    monkeypatch.setattr(Lane, "is_light", lambda *_: None)
    heavy = play_outage(SOCKET, 120, 100, seeds=1)
    assert light.last_back < heavy.last_back - 5, "reconnects begin no worker: all are light"
    assert light.logins <= 2


def test_the_machine_carries_no_more_heavy_starts_than_the_agent_allows():
    seen = []

    class Watched(Machine):
        def _load(self, session, heavy):
            super()._load(session, heavy)
            if session.place is self.here:
                starting = [one for one in self.sessions if one.state == "starting"]
                seen.append((self.here.starting, sum(one.place is self.here for one in starting)))

    machine = Watched("1/0", 60, Tally())
    machine.supervising = Agent(machine)
    machine.supervising.boot(0.0)
    machine.later(300.0, lambda _: machine._queue.clear())
    while machine._queue:
        at, _, what = heapq.heappop(machine._queue)
        what(at)
    assert max(heavy for heavy, _ in seen) <= CAPACITY
    assert max(under_way for _, under_way in seen) > CAPACITY, "the light ones"
    assert machine.here.starting == 0


def test_without_looks_the_breaker_holds_one_session_for_minutes(monkeypatch):
    monkeypatch.setattr(reaches, "POLICY", replace(reaches.POLICY, look_every=0.0))
    assert play_outage(SOCKET, 120, 1, seeds=1).last_back > 300


def test_the_outages_table_has_every_case():
    costs = [
        Cost(engine, seconds, size, 1.0, 1)
        for engine in ENGINES
        for seconds in SECONDS
        for size in SESSIONS
    ]
    head, rows = outage_rows(costs)
    assert (len(head), [row[0] for row in rows]) == (10, ["10 s", "30 s", "120 s", "900 s"])
    assert grid(head, rows, markdown=True).count("\n") == 1 + len(rows)


# sessions that hang on a backend


@pytest.mark.parametrize(("sick", "size"), SIZES)
@pytest.mark.parametrize("cure", CURES)
def test_an_unpaired_session_shows_a_code_within_minutes_alone_or_with_all(sick, size, cure):
    found = play_stuck(sick=sick, size=size, paired=False, cure=cure, seeds=3)
    assert found.seconds < 180
    assert found.logins <= 2


@pytest.mark.parametrize(("sick", "size"), SIZES)
def test_a_paired_one_that_a_restart_cures_is_back_within_a_minute(sick, size):
    cure = RecoveryKind.RESTART
    found = play_stuck(sick=sick, size=size, paired=True, cure=cure, seeds=3)
    assert found.seconds < 60


def test_a_pairing_is_given_up_after_an_hour_where_others_connect_and_never_elsewhere():
    cure = RecoveryKind.CLEANUP
    alone = play_stuck(sick=1, size=10, paired=True, cure=cure, seeds=3)
    assert 3600 <= alone.seconds < 2 * 3600
    for size in (1, 10):
        together = play_stuck(sick=size, size=size, paired=True, cure=cure, seeds=2)
        assert together.seconds == float("inf")


class CutOff(StuckMachine):
    """Its backend answers, reaches no WhatsApp for hours, and then a restart cures its sessions."""

    back = BEGIN + 3 * 3600.0
    given_up = 0

    def start(self, session, at):
        how = Machine if at < self.back else StuckMachine
        return how.start(self, session, at)

    def begin_afresh(self, session, at):
        self.given_up += session.paired
        return super().begin_afresh(session, at)


@pytest.mark.parametrize(("size", "within"), [(1, 1900), (2, 300), (10, 300)])
def test_a_server_that_is_cut_off_from_whatsapp_for_hours_costs_no_pairing(size, within):
    machine = CutOff("1", sick=size, size=size, paired=True, cure=RecoveryKind.RESTART)
    machine.supervising = Agent(machine)
    machine.play_to_the_end()
    assert machine.given_up == 0
    assert BEGIN + machine.slowest() < machine.back + within, "one alone waits for its next round"


def test_the_readme_shows_how_long_a_session_that_hangs_needs():
    text = README.read_text()
    _, rows = stuck_rows(list(every_stuck()))
    for row in rows:
        assert "| " + " | ".join(row) + " |" in text


def test_a_call_that_gets_nowhere_is_enough_to_know_that_a_server_is_away():
    agent = Agent(machine := Machine("1/0", 100, Tally()))
    known = next(one for one in agent._known.values() if one.instance.backend)
    assert not agent._backends.say_nothing(known)
    agent._backends.called_in_vain(known, 100.0)
    assert agent._backends.say_nothing(known), "its other sessions do not find out one by one"
    agent._backends.back(known.session.place, 101.0)
    assert not agent._backends.say_nothing(known)
    assert machine.tally.in_vain == 0
