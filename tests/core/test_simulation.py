"""The core over a whole simulated day: what its tables cannot show one decision at a time."""

import pytest

from scripts.simulation.agent import Agent
from scripts.simulation.faults import DAY, LOGINS_A_MINUTE, Span, merged
from scripts.simulation.plain import FixedRetry, Nobody
from scripts.simulation.report import plot, table
from scripts.simulation.tally import Curve, Tally
from scripts.simulation.world import Machine


def play(way, seed="1/0", size=100):
    tally = Tally()
    machine = Machine(seed, size, tally)
    machine.supervising = way(machine)
    machine.play()
    return tally


@pytest.fixture(scope="module")
def day():
    return {way.__name__: play(way) for way in (Agent, FixedRetry, Nobody)}


def test_the_agent_brings_nearly_all_back_without_a_person_and_gives_up_no_pairing(day):
    agent = day["Agent"]
    assert agent.episodes > 500
    assert agent.recovered_share >= 0.99
    assert agent.unpaired == 0


def test_f54_there_is_no_storm_of_logins(day):
    agent, fixed = day["Agent"], day["FixedRetry"]
    assert agent.worst_minute < LOGINS_A_MINUTE < fixed.worst_minute
    assert sum(agent.logins) < sum(fixed.logins) / 5


def test_it_serves_longer_than_the_others(day):
    serving = {name: tally.share("serving") for name, tally in day.items()}
    assert serving["Agent"] > serving["FixedRetry"] > serving["Nobody"]


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


def test_the_report_shows_every_way(day):
    text, picture = table(day), plot(day)
    for name in day:
        assert name in text
        assert name in picture
    assert picture.count("<polyline") == 6
