"""A metric of a session is a row in core/figures/session_figures.py and the line where it arises.

A copy of the agent gets a figure of an engine and a count of the agent that way. Both must then be
on the wire from the worker, in the instance's JSON, in both formats of /metrics and, the count,
carried over a restart.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent

ROOT = Path(__file__).parents[2]
FIGURE = 'Figure("frames", "wa_session_test_frames", "Frames of a test.", 1e6),'
COUNT = (
    'Count("looks", "wa_session_test_looks_total", "kind", ("good", "bad"), "Looks of a test."),'
)
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def put_in(path: Path, before: str, new: str) -> None:
    text = path.read_text()
    assert text.count(before) == 1, (path, before)
    path.write_text(text.replace(before, new))


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The agent with two new metrics; three of its files are touched."""
    package = tmp_path / "copy" / "agent"
    shutil.copytree(ROOT / "agent", package, ignore=shutil.ignore_patterns("__pycache__"))
    table = package / "core/figures/session_figures.py"
    put_in(table, "FIGURES = (\n", f"FIGURES = (\n    {FIGURE}\n")
    put_in(table, "COUNTS = (\n", f"COUNTS = (\n    {COUNT}\n")
    put_in(
        package / "engines/sandbox/engine.py",
        "return ProbeAnswer(self._now(), detail)",
        'return ProbeAnswer(self._now(), detail, {"frames": 17})',
    )
    figures = "    facts.run.figures = read_figures(answer)\n"
    count = '    facts.counters.by_word["looks"]["good"] += 1\n'
    put_in(package / "supervise/passes/observe.py", figures, figures + count)
    monkeypatch.chdir(package.parent)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return package


async def scraped(agent: RunningAgent, **headers: str) -> dict[tuple[str, str], float]:
    _, text = await agent.ask("GET", "/metrics", headers=headers)
    parse: Any = parse_openmetrics if text.endswith("# EOF\n") else parse_plain
    return {
        (one.name, one.labels.get("kind", "")): one.value
        for family in parse(text)
        for one in family.samples
        if one.labels.get("session") == "a"
    }


async def test_a_new_figure_and_a_new_count_are_shown_everywhere(
    copy: Path, agent: RunningAgent, eventually: Eventually
) -> None:
    await agent.create("a")
    frames, looks = ("wa_session_test_frames", ""), ("wa_session_test_looks_total", "good")

    async def looked_twice() -> bool:
        return (await scraped(agent)).get(looks, 0.0) >= 2

    await eventually(looked_twice)
    found = await scraped(agent)
    strict = await scraped(agent, **OPENMETRICS)
    for lines in (found, strict):
        assert lines[frames] == 17
        assert lines[looks] >= 2
        assert lines["wa_session_test_looks_total", "bad"] == 0
    shown = await agent.show("a")
    assert shown["frames"] == 17
    assert shown["looks"]["good"] >= 2
    before = (await scraped(agent))[looks]
    await agent.stop()
    await agent.start()
    assert (await scraped(agent))[looks] >= before
