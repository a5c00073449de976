"""The rules that Prometheus gets say the same as the agent itself; promtool is the judge."""

import json
import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import pytest

from agent.config.alerts import alert_table
from agent.core.alerts import AlertPolicy, Figures, History, Sight, advance, series
from agent.core.alerts.alert import INHIBITIONS, Severity
from agent.core.alerts.source import Series
from agent.core.alerts.state import ActiveAlert, AlertState
from agent.core.findings.memory import MemoryPolicy
from agent.core.model import ConnectionStatus, Health, HealthVerdict, InstanceId
from agent.core.view import AgentStatus, BackendView
from agent.metrics.backends import backend_samples
from agent.metrics.dashboards import dashboard_file, queries
from agent.metrics.exporter import SessionLines
from agent.metrics.http import HttpFigures
from agent.metrics.machine import MachineFigures
from agent.metrics.repairs import repair_samples
from agent.metrics.rules import Site, alertmanager_file, prometheus_file, rules_file
from agent.metrics.runbook import link, paragraphs, what_to_do
from agent.metrics.text import Family
from agent.wings.messages.metrics import message_samples
from agent.wings.messages.out.session.figures import OutboxFigures, outbox_samples
from agent.wings.webhooks.deliveries import WebhookFigures
from agent.wings.webhooks.metrics import webhook_samples
from tests.fakes.supervisor import make_view
from tests.metrics.stories import STEP, STORIES, Story, World

TABLE = alert_table(AlertPolicy(availability=0.99))
"""With the one that is an option, too."""
SITE = Site("host1", "127.0.0.1:8470")
TARGET = 'instance="127.0.0.1:8470",job="wa-agent",machine="host1"'
METRIC = re.compile(r"\b(?:wa|process)_[a-z_]+\b")
NAMES = frozenset(METRIC.findall(rules_file(TABLE, SITE)))


def tool(*argv: str) -> subprocess.CompletedProcess[str]:
    assert shutil.which(argv[0]), f"{argv[0]} is missing; scripts/test installs its package"
    # A fifth of promtool's time goes into collecting garbage; a test has memory enough.
    env = {**os.environ, "GOGC": "800"}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=env)


@cache
def firing(story: Story) -> dict[float, list[ActiveAlert]]:
    """What the agent's own evaluation says at each moment."""
    history = History([alert.condition for alert in TABLE])
    active: Mapping[tuple[str, tuple[tuple[str, str], ...]], ActiveAlert] = {}
    found = {}
    for t in story.moments():
        world = story.at(t)
        for _ in history.note(world.views, world.figures, t):
            pass
        sight = Sight(world.views, world.figures, history, t, now_wall=t)
        vectors = [(alert, alert.condition.vector(sight)) for alert in TABLE]
        active, _ = advance(
            active,
            vectors,
            t,
            reason=lambda alert, labels, sight=sight: (  # type: ignore[misc]
                "" if alert.because is None else sight.reason(alert.because.metric, labels)
            ),
        )
        found[t] = [one for one in active.values() if one.state is AlertState.FIRING]
    return found


def expected(story: Story) -> dict[float, list[ActiveAlert]]:
    if story.seen_by_the_agent:
        return firing(story)
    (alert,) = [one for one in TABLE if one.name == story.alert]
    (switch,) = [one for one in TABLE if one.name == "WaDeadMansSwitch"]
    return {
        t: [
            ActiveAlert(one, (), AlertState.FIRING, 0.0, 0.0)
            for one in (alert, switch)
            if t >= one.for_seconds
        ]
        for t in story.moments()
    }


# --- what Prometheus would have scraped -------------------------------------------------------


def scraped(world: World, lines: SessionLines, t: float) -> dict[str, str]:
    found = {}
    if world.up is not None:
        found[f"up{{{TARGET}}}"] = f"{world.up:g}"
    if world.up != 1:
        return found
    lines.update(world.views)
    text = b"".join(text for _, text in lines.samples(1_800_000_000.0 + t, t)).decode()
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name.partition("{")[0] in NAMES:
            found[f"{name[:-1]},{TARGET}}}"] = value
    for _, text in own_lines(world):
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            if name.partition("{")[0] in NAMES:
                inner = f"{name[:-1]}," if name.endswith("}") else f"{name}{{"
                found[f"{inner}{TARGET}}}"] = value
    return found


class StoryMachine(MachineFigures):
    """The machine as the story has it."""

    def __init__(self, figures: Figures) -> None:
        super().__init__(Path("/x"))
        self.story = figures

    def values(self) -> Mapping[str, float]:
        found = {
            "wa_host_memory_total_bytes": self.story.memory_total,
            "wa_host_memory_used_bytes": self.story.memory_used,
            "wa_host_cpu_usage_ratio": self.story.cpu_ratio,
            "wa_host_filesystem_avail_bytes": self.story.disk_available,
            "wa_host_filesystem_size_bytes": self.story.disk_size,
            "process_open_fds": self.story.open_fds,
            "process_max_fds": self.story.max_fds,
            "process_start_time_seconds": self.story.started_wall,
        }
        return {name: value for name, value in found.items() if value is not None}


def own_lines(world: World) -> Iterator[tuple[Family, str]]:
    """What the exporter writes of the agent and the machine, by its own parts."""
    own, http = world.figures, HttpFigures()
    yield from StoryMachine(own).samples()
    http.expect(("GET", f"/{number}") for number in range(world.routes))
    for number in range(int(own.requests)):
        with http.observe("GET") as seen:
            failed = number < own.requests_failed
            seen.route, seen.code = (f"/{number // 20}", 503) if failed else ("/0", 200)
            seen.failed = failed
    yield from http.samples()
    warned = own.backend_warnings
    views = [
        BackendView(name, "evolution", "", up=up, warning="one" if warned.get(name) else "")
        for name, up in own.backends.items()
    ]
    yield from backend_samples(views)
    yield from message_samples(own.of_wings.get("messages", {}))
    yield from outbox_samples(own.of_wings.get("outbox", OutboxFigures()))
    yield from webhook_samples(own.of_wings.get("webhooks", WebhookFigures()))
    members = {group: 3 * goes_on for group, goes_on in own.incidents.items()}
    yield from repair_samples(
        AgentStatus(
            "", "", 0.0, ready=True, incidents=members, incident_reasons=own.incident_reasons
        )
    )


def input_series(story: Story) -> list[dict[str, str]]:
    lines, moments = SessionLines(), list(story.moments())
    rows: dict[str, list[str]] = defaultdict(lambda: ["_"] * len(moments))
    for place, t in enumerate(moments):
        for name, value in scraped(story.at(t), lines, t).items():
            rows[name][place] = value
    for row in rows.values():
        # As Prometheus itself notes it: what a scrape lacks is over, not as it was.
        for place in range(1, len(row)):
            if row[place] == "_" and row[place - 1] not in ("_", "stale"):
                row[place] = "stale"
    return series_of(rows)


def series_of(rows: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """For promtool. Of a session's counters that never count, one stands for all that the rules
    cannot tell apart: they look through each of hundreds, and every one adds nothing."""
    found, idle = [], set()
    for name, row in rows.items():
        if name.partition("{")[0].endswith("_total") and set(row) <= {"0", "_", "stale"}:
            alike = (OF_WHAT.sub("", name), _selected_by(name))
            if alike in idle:
                continue
            idle.add(alike)
        found.append({"series": name, "values": " ".join(row)})
    return found


OF_WHAT = re.compile(r',(?:kind|reason|direction|result)="[^"]*"')
SELECTORS = frozenset(re.findall(r"\b(wa_[a-z_]+)\{([^}]*)\}", rules_file(TABLE, SITE)))
MATCHER = re.compile(r'(\w+)(=|!=|=~|!~)"([^"]*)"')


@cache
def _selected_by(name: str) -> frozenset[str]:
    """Which of the rules' own selectors take this series."""
    metric, _, labels = name.partition("{")
    told = dict(re.findall(r'(\w+)="([^"]*)"', labels))
    return frozenset(
        matchers
        for selected, matchers in SELECTORS
        if selected == metric
        and all(
            bool(re.fullmatch(wanted if "~" in how else re.escape(wanted), told.get(label, "")))
            is not how.startswith("!")
            for label, how, wanted in MATCHER.findall(matchers)
        )
    )


def promtool_case(story: Story) -> dict[str, object]:
    found = expected(story)
    return {
        "interval": f"{STEP:g}s",
        "name": story.id,
        "input_series": input_series(story),
        "promql_expr_test": [
            {
                "expr": 'group by (alertname, session) (ALERTS{alertstate="firing"})',
                "eval_time": f"{t:g}s",
                "exp_samples": [
                    {"labels": labels, "value": 1}
                    for labels in sorted({_labels(one) for one in found[t]})
                ],
            }
            for t in story.moments()
            if t % 60 == 0
        ],
        "alert_rule_test": [_announced(story, found)],
    }


def _labels(one: ActiveAlert) -> str:
    session = f',session="{one.session}"' if one.session else ""
    return f'{{alertname="{one.name}"{session}}}'


def _announced(story: Story, found: Mapping[float, list[ActiveAlert]]) -> dict[str, object]:
    """The whole alert at the story's end, when nothing about it is a matter of extrapolation."""
    end = story.minutes * 60.0
    exact = story.alert in EXACT and story.fires
    shown = [one for one in found[end] if one.name == story.alert] if exact else []
    if not exact:
        return {"eval_time": "0s", "alertname": "WaNoSuchAlert", "exp_alerts": []}
    return {
        "eval_time": f"{end:g}s",
        "alertname": story.alert,
        "exp_alerts": [
            {
                "exp_labels": {
                    "severity": one.alert.severity.value,
                    "group": one.alert.group.value,
                    "instance": "127.0.0.1:8470",
                    "job": "wa-agent",
                    "machine": "host1",
                    **dict(one.labels),
                    **EXACT[story.alert],
                },
                "exp_annotations": {
                    "summary": one.sentence,
                    "description": what_to_do(one.alert, one.session),
                    "runbook": link(one.alert, SITE.runbooks),
                },
            }
            for one in shown
        ],
    }


EXACT: Mapping[str, Mapping[str, str]] = {
    "WaSessionCorrupted": {"verdict": "corrupted"},
    "WaSessionsCorruptedTogether": {},
    "WaCircuitOpen": {"state": "open"},
    "WaSessionDown": {},
    "WaSessionNeedsScan": {},
    "WaSessionGivenUp": {},
    "WaSessionSilent": {},
    "WaFleetIncident": {},
    "WaBackendDown": {},
    "WaSessionMemoryHigh": {},
    "WaSessionMemoryCritical": {},
    "WaSessionMemoryLeak": {},
    "WaSessionResponseSlow": {},
    "WaErrorRateHigh": {},
    "WaHostMemoryHigh": {},
    "WaHostMemoryCritical": {},
    "WaHostCpuHigh": {},
    "WaDiskSpaceLow": {"mountpoint": "/"},
    "WaFileDescriptorsHigh": {},
    "WaWebhookBacklog": {},
    "WaMessagesMissing": {},
    "WaSessionOutboxOld": {},
    "WaAgentRestarting": {},
}
"""Alerts whose values are not extrapolated, and the labels that only Prometheus adds."""


# --- the tests --------------------------------------------------------------------------------


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.id)
def test_an_alert_fires_when_it_must_and_only_then(story: Story) -> None:
    if not story.seen_by_the_agent:
        assert not [one for one in firing(story)[0.0] if one.name == story.alert]
        return
    found = firing(story)
    at_the_end = {one.name for one in found[story.minutes * 60.0]}
    ever = {one.name for moment in found.values() for one in moment}
    assert (story.alert in at_the_end) if story.fires else (story.alert not in ever)


def test_every_alert_has_stories_of_both_kinds() -> None:
    kinds = {(story.alert, story.fires) for story in STORIES}
    wanted = {(alert.name, fires) for alert in TABLE for fires in (True, False)}
    assert wanted - kinds == {("WaDeadMansSwitch", False)}
    assert kinds <= wanted


def test_promtool_and_the_agent_agree_on_every_alert_at_every_minute(tmp_path: Path) -> None:
    rules = tmp_path / "wa-agent.rules.yml"
    rules.write_text(rules_file(TABLE, SITE))
    checked = tool("promtool", "check", "rules", str(rules))
    assert (checked.returncode, checked.stderr) == (0, ""), checked
    cases = tmp_path / "cases.yml"
    cases.write_text(
        json.dumps(
            {
                "rule_files": [str(rules)],
                "evaluation_interval": f"{STEP:g}s",
                "tests": [promtool_case(story) for story in STORIES],
            }
        )
    )
    done = tool("promtool", "test", "rules", str(cases))
    assert done.returncode == 0, done.stderr[:5000] + done.stdout[:5000]


def test_promtool_notices_another_limit(tmp_path: Path) -> None:
    """That it agrees above says something."""
    rules = tmp_path / "wa-agent.rules.yml"
    other = alert_table(AlertPolicy(disk_free=0.01), MemoryPolicy(warn=0.95))
    rules.write_text(rules_file(other, SITE))
    for name in ("WaSessionMemoryHigh", "WaDiskSpaceLow"):
        story = next(one for one in STORIES if one.alert == name and one.fires)
        cases = tmp_path / "cases.yml"
        tests = {"evaluation_interval": f"{STEP:g}s", "tests": [promtool_case(story)]}
        cases.write_text(json.dumps({"rule_files": [str(rules)], **tests}))
        done = tool("promtool", "test", "rules", str(cases))
        assert done.returncode == 1
        assert f'alertname="{name}"' in done.stderr


def test_rules_read_every_series_as_the_exporter_writes_it() -> None:
    view = make_view(
        "a",
        verdict=HealthVerdict(Health.DEGRADED, ConnectionStatus.CONNECTED, "silent_inbound", ""),
        circuit="open",
        reconnects={"connection_lost": 3, "conflict": 1},
        restarts={"watchdog": 5, "crash": 2},
        errors={"connection_lost": 7, "nobody_knows_it": 2, "crypto": 5},
        messages={"in": 11, "out": 12, "ack": 13},
        probes=17,
        probe_seconds=2.5,
        crypto_operations={"ok": 19, "failed": 4},
        key_regenerations={"done": 3, "failed": 6},
        memory_bytes=123,
        memory_limit=456,
    )
    compared = 0
    for one in vars(series).values():
        if not isinstance(one, Series) or one.of_session is None:
            continue
        if one.metric == series.REASON:
            view = replace(view, reason=one.matcher.split('"')[1])
        lines = SessionLines()
        lines.update({InstanceId("a"): view})
        text = b"".join(text for _, text in lines.samples(0.0, 0.0)).decode()
        alike = re.sub(r'!~"(.*)"', r'="(?!(?:\1)")[^"]*"', one.matcher)
        alike = re.sub(r'=~"(.*)"', r'="(?:\1)"', alike)
        wanted = f'{one.metric}{{session="a"' + (f",{alike}" if alike else "")
        found = [
            float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(wanted, line)
        ]
        (value,) = one.read({InstanceId("a"): view}, Figures()).values()
        assert sum(found) == value, one
        assert found, one
        compared += 1
    assert compared > 15


def test_promtool_and_amtool_accept_the_exported_files(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("wa_token")
    site = replace(SITE, key_file=str(key), machine='a "machine"', patience=1 / 60)
    (tmp_path / "wa-agent.rules.yml").write_text(rules_file(TABLE, site))
    for name, text in (("p.yml", prometheus_file(site)), ("a.yml", alertmanager_file(site))):
        (tmp_path / name).write_text(text)
    checked = tool("promtool", "check", "config", str(tmp_path / "p.yml"))
    assert checked.returncode == 0, checked
    assert f"{len(TABLE)} rules found" in checked.stdout
    checked = tool("amtool", "check-config", str(tmp_path / "a.yml"))
    assert checked.returncode == 0, checked
    assert f"{len(INHIBITIONS)} inhibit rules" in checked.stdout


def test_a_drill_shortens_every_wait(tmp_path: Path) -> None:
    usual, drill = (rules_file(TABLE, replace(SITE, patience=one)) for one in (1.0, 1 / 60))
    assert "for: 5m\n" in usual
    assert "for: 5s\n" in drill
    assert "interval: 1s\n" in drill


def test_every_query_of_the_dashboard_can_be_read(tmp_path: Path) -> None:
    dashboard = json.loads(dashboard_file())
    rows = [one["title"] for one in dashboard["panels"] if one["type"] == "row"]
    assert rows[0] == "Overview"
    assert len({one["id"] for one in dashboard["panels"]}) == len(dashboard["panels"])
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries())]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    checked = tool("promtool", "check", "rules", str(file))
    assert checked.returncode == 0, checked


def test_the_panels_do_not_overlap() -> None:
    taken = set()
    for panel in json.loads(dashboard_file())["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, panel["title"]
                assert x < 24
                taken.add((x, y))


def test_inhibitions_name_alerts_that_exist() -> None:
    names = [alert.name for alert in TABLE]
    for rule in INHIBITIONS:
        assert rule.source in names
        for pattern in rule.silences:
            assert any(re.fullmatch(pattern.replace("*", ".*"), name) for name in names), pattern


def test_every_number_of_the_settings_reaches_its_rule() -> None:
    """A limit that changes must change a rule."""
    usual = rules_file(TABLE, SITE)
    of_the_agent = {"interval", "patience", "off", "machine", "alertmanager", "runbooks"}
    limits = [one for one in fields(AlertPolicy) if one.name not in of_the_agent]
    assert len(limits) == 15
    for one in limits:
        changed = replace(AlertPolicy(), **{one.name: 0.123 if "." in str(one.default) else 77})
        assert rules_file(alert_table(changed), SITE) != usual, one.name
    for name in ("warn", "critical"):
        memory = replace(MemoryPolicy(), **{name: 0.123})
        assert rules_file(alert_table(AlertPolicy(), memory), SITE) != usual, name


def test_every_alert_has_its_paragraph_in_the_runbook() -> None:
    files = (Path(__file__).parents[2] / "agent").rglob("runbook.md")
    text = "".join(file.read_text() for file in files)
    for alert in TABLE:
        assert f"\n## {alert.name}\n" in text, alert.name
        said = paragraphs()[alert.name]
        assert len(said) > 100, alert.name
        assert said in " ".join(text.split()), alert.name
        assert "##" not in said, alert.name
        assert "{{" not in said, "Prometheus would take it for a template"
    assert set(paragraphs()) == {alert.name for alert in TABLE}


def test_the_commands_are_for_the_session_that_the_alert_is_about() -> None:
    (down,) = [one for one in TABLE if one.name == "WaSessionDown"]
    assert "`wa-agent why ID`" in what_to_do(down)
    said = what_to_do(down, "shop-1")
    assert "`wa-agent why shop-1`" in said
    assert "WA_INSTANCE=shop-1" in said
    assert not re.search(r"\bID\b", said)
    assert "wa-agent why {{ $labels.session }}" in rules_file(TABLE, SITE)


def test_severities_are_of_the_three_words() -> None:
    assert {alert.severity for alert in TABLE} == set(Severity)
