"""Prometheus and the agent look at different moments, and say the same all the same.

promtool plays scrapes that lie between the evaluations, at any offset; what happened is the
judge: what surely lies in the window must be counted, what surely lies outside must not.
"""

import json
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from agent.core.alerts import Alert, AlertState, History, Sight, advance
from agent.core.model import Health
from agent.metrics.exporter import SessionLines
from agent.metrics.rules import rules_file
from tests.metrics.stories import CORRUPTED, LOST, WELL, World, _given_up, sessions
from tests.metrics.test_rules import METRIC, SITE, TABLE, scraped, series_of, tool

EVERY = 15
"""Seconds between two scrapes, two evaluations, two looks of the agent."""
MINUTES = 45
BY_NAME: Mapping[str, Alert] = {alert.name: alert for alert in TABLE}


@dataclass(frozen=True, slots=True)
class Counted:
    """An alert that fires when something happened more than so many times in a window."""

    alert: str
    limit: int
    window: int
    world: Callable[[int], World]


COUNTED = (
    Counted("WaWatchdogRestarts", 2, 1800, lambda n: sessions(restarts={"watchdog": n})),
    Counted("WaReconnectStorm", 10, 600, lambda n: sessions(reconnects={"connection_lost": n})),
    Counted("WaKeyRegenerationFailed", 0, 900, lambda n: sessions(key_regenerations={"failed": n})),
    Counted(
        "WaFleetReconnectStorm", 2, 900, lambda n: sessions(4, reconnects={"connection_lost": n})
    ),
)


@cache
def _world(counted: Counted, happened: int) -> World:
    """The same object for the same count, so that it is written down once."""
    return counted.world(happened)


@dataclass(frozen=True, slots=True)
class Case:
    counted: Counted
    events: tuple[float, ...]
    scrape_offset: int
    look_offset: int

    def world(self, t: float) -> World:
        return _world(self.counted, sum(1 for at in self.events if at <= t))

    def within(self, start: float, end: float) -> int:
        return sum(1 for at in self.events if start < at <= end)

    def certain(self, t: float) -> bool | None:
        """Whether it must fire then, wherever the looks lie; None where that decides it."""
        window, limit = self.counted.window, self.counted.limit
        if self.within(t - window + 2 * EVERY, t - 2 * EVERY) > limit:
            return True
        return False if self.within(t - window - 2 * EVERY, t) <= limit else None


def cases() -> list[Case]:
    dice = random.Random(20260115)
    found = []
    for counted in COUNTED:
        for number in range(10):
            # Exactly as many as are allowed, one more, and any number.
            many = (
                counted.limit + number % 3 if number < 8 else dice.randrange(3 * counted.limit + 3)
            )
            begin = dice.uniform(60, 600)
            length = dice.choice([120, counted.window * 0.9, counted.window * 1.5])
            events = tuple(sorted(begin + dice.uniform(0, length) for _ in range(many)))
            found.append(Case(counted, events, dice.randrange(EVERY), dice.randrange(EVERY)))
    return found


def rows(
    world: Callable[[float], World], offset: int, *alerts: str, seconds: int = MINUTES * 60
) -> list[dict[str, str]]:
    """What each scrape would have brought of these alerts' metrics, on a grid of seconds."""
    asked = {name for one in alerts for name in METRIC.findall(BY_NAME[one].condition.promql())}
    lines, found = SessionLines(), defaultdict[str, list[str]](lambda: ["_"] * (seconds + 1))
    before, brought = World(up=None), dict[str, str]()
    for t in range(offset, seconds + 1, EVERY):
        if (now := world(t)) is not before:
            everything, before = scraped(now, lines, t), now
            brought = {
                name: value
                for name, value in everything.items()
                if name.partition("{")[0] in {*asked, "up"}
            }
        for name, value in brought.items():
            found[name][t] = value
        for name, row in found.items():
            # As Prometheus itself notes it: what a scrape lacks is over.
            if name not in brought and (t < EVERY or row[t - EVERY] not in ("_", "stale")):
                row[t] = "stale"
    return series_of(found)


def asked(expression: str, at: Mapping[int, bool]) -> list[dict[str, object]]:
    return [
        {
            "expr": f"count({expression}) > 0 or vector(0)",
            "eval_time": f"{t}s",
            "exp_samples": [{"labels": "{}", "value": 1 if fires else 0}],
        }
        for t, fires in at.items()
    ]


def firing_expression(*names: str) -> str:
    one = 'group by (alertname) (ALERTS{alertname=~"' + "|".join(names) + '",alertstate="firing"})'
    return f"group({one})"


def judge(tmp_path: Path, tests: list[dict[str, object]], table: Sequence[Alert] = TABLE) -> None:
    """By the whole table unless fewer rules are asked: none may fail."""
    rules, file = tmp_path / "rules.yml", tmp_path / "cases.yml"
    rules.write_text(rules_file(table, SITE))
    file.write_text(
        json.dumps(
            {
                "rule_files": [str(rules)],
                "evaluation_interval": f"{EVERY}s",
                "tests": [{"interval": "1s", **one} for one in tests],
            }
        )
    )
    done = tool("promtool", "test", "rules", str(file))
    assert done.returncode == 0, done.stderr[:4000] + done.stdout[:4000]


def agent_fires(case: Case) -> dict[int, bool]:
    """By the agent's own looks: at each whole minute, what its last look said."""
    alert = BY_NAME[case.counted.alert]
    history, active, found = History([alert.condition]), {}, {}
    state = False
    for t in range(MINUTES * 60 + 1):
        if t % EVERY == case.look_offset:
            world = case.world(t)
            list(history.note(world.views, world.figures, float(t)))
            sight = Sight(world.views, world.figures, history, float(t), float(t))
            active, _ = advance(active, [(alert, alert.condition.vector(sight))], float(t))
            state = any(one.state is AlertState.FIRING for one in active.values())
        if t % 60 == 0:
            found[t] = state
    return found


CASES = cases()


@pytest.mark.parametrize("counted", COUNTED, ids=lambda counted: counted.alert)
def test_at_every_offset_prometheus_counts_what_happened_and_no_more(
    tmp_path: Path, counted: Counted
) -> None:
    tests: list[dict[str, object]] = []
    decided = {True: 0, False: 0}
    for number, case in enumerate(CASES):
        if case.counted is not counted:
            continue
        certain = {t: case.certain(t) for t in range(120, MINUTES * 60 + 1, 60)}
        known = {t: fires for t, fires in certain.items() if fires is not None}
        for fires in known.values():
            decided[fires] += 1
        tests.append(
            {
                "name": f"{number} {counted.alert} {case.scrape_offset}",
                "input_series": rows(case.world, case.scrape_offset, counted.alert),
                "promql_expr_test": asked(firing_expression(counted.alert), known),
            }
        )
    assert min(decided.values()) > 25, decided
    judge(tmp_path, tests, [BY_NAME[counted.alert]])


@pytest.mark.parametrize("number", range(len(CASES)))
def test_the_agent_counts_the_same(number: int) -> None:
    case = CASES[number]
    said = agent_fires(case)
    for t in range(120, MINUTES * 60 + 1, 60):
        certain = case.certain(t)
        assert certain is None or said[t] is certain, (case, t)


# --- gaps: the agent restarts, or ends ---------------------------------------------------------


def away(world: Callable[[float], World], start: float, end: float) -> Callable[[float], World]:
    gone = World(up=0.0)
    return lambda t: gone if start <= t < end else world(t)


def test_a_gap_in_the_scrapes_lets_no_time_begin_again(tmp_path: Path) -> None:
    """Corrupted all the while; the agent is restarted in the middle of the ten minutes."""
    world = away(lambda _: CORRUPTED, 300, 330)
    at = {570: False, 660: True, 720: True}
    expression = firing_expression("WaSessionCorrupted")
    judge(
        tmp_path,
        [
            {
                "input_series": rows(world, 7, "WaSessionCorrupted", seconds=780),
                "promql_expr_test": asked(expression, at),
            }
        ],
    )


def test_the_end_of_the_agent_is_no_all_clear(tmp_path: Path) -> None:
    """What fired goes on until WaAgentDown speaks for it; what is well again is over at once."""
    broken = _given_up("banned", Health.DISCONNECTED)
    ended = away(lambda _: broken, 300, 10_000)
    both = firing_expression("WaSessionGivenUp", "WaAgentDown")
    alone = firing_expression("WaSessionGivenUp")
    healed = rows(lambda t: broken if t < 300 else WELL, 7, "WaSessionGivenUp", seconds=420)
    judge(
        tmp_path,
        [
            {
                "input_series": rows(ended, 7, "WaSessionGivenUp", seconds=900),
                "promql_expr_test": asked(both, dict.fromkeys(range(60, 901, 15), True)),
            },
            {
                "input_series": healed,
                "promql_expr_test": asked(alone, {285: True, 330: False, 360: False}),
            },
        ],
    )


def test_a_session_whose_engine_told_another_version_fails_no_rule(tmp_path: Path) -> None:
    """Two pictures of one session within the bridge: the join must still find one."""

    old, new, none = (
        sessions(**LOST, engine_version="1"),
        sessions(**LOST, engine_version="2"),
        World(up=0.0),
    )

    def world(t: float) -> World:
        if 420 <= t < 450:
            return none
        return old if t < 300 else new

    expression = firing_expression("WaSessionDown")
    judge(
        tmp_path,
        [
            {
                "input_series": rows(world, 3, "WaSessionDown", seconds=600),
                "promql_expr_test": asked(expression, dict.fromkeys(range(330, 601, 15), True)),
            }
        ],
    )
