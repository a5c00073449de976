"""The metrics of a fleet: all there from the first moment in one, none without."""

import shutil
import subprocess
from pathlib import Path

from agent.core.fleet.figures import FleetCounts, FleetFigures, machine_state
from agent.metrics.fleet import fleet_samples

README = Path(__file__).parents[2] / "agent/metrics/README.md"
COUNTS = FleetCounts()
COUNTS.moves["done"] += 2
COUNTS.renewal_seconds.note(0.02)
FIGURES = FleetFigures(
    machine='a "machine"',
    database_reachable=True,
    lease_seconds_left=12.5,
    halted=False,
    machines={"alive": 2, "lost": 1},
    owned=7,
    waiting=1,
    moving=0,
    commands_waiting=True,
    copy_age_max=0.4,
    copy_bytes=5000,
    certificate_ends_wall=1_800_000_000.0,
    counts=COUNTS,
)


def test_without_a_fleet_there_are_none() -> None:
    assert list(fleet_samples(None)) == []


def test_every_word_of_every_label_is_there_before_anything_happened() -> None:
    text = "".join(text for _, text in fleet_samples(FIGURES))
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines())
    assert lines['wa_fleet_moves_total{outcome="done"}'] == "2"
    assert lines['wa_fleet_moves_total{outcome="undone"}'] == "0"
    assert lines['wa_fleet_machines{state="away"}'] == "0"
    assert lines['wa_fleet_sessions{state="waiting"}'] == "1"
    assert lines['wa_fleet_renewal_seconds_bucket{le="0.025"}'] == "1"
    assert lines["wa_fleet_lease_seconds_left"] == "12.5"


def test_prometheus_accepts_them_and_the_readme_names_each() -> None:
    promtool = shutil.which("promtool")
    assert promtool, "the Debian package prometheus brings it; scripts/test installs it"
    families = list(fleet_samples(FIGURES))
    text = b"".join(family.head(openmetrics=False) + text.encode() for family, text in families)
    argv = [promtool, "check", "metrics"]
    done = subprocess.run(argv, input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
    documented = README.read_text()
    assert [family.name for family, _ in families if f"`{family.name}`" not in documented] == []


def test_a_machine_that_was_drained_before_it_went_is_not_lost() -> None:
    states = [machine_state(alive=a, drained=d) for a in (True, False) for d in (True, False)]
    assert states == ["drained", "alive", "away", "lost"]
