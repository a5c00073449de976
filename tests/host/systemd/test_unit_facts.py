"""From systemd's properties and signals to a status, and what is kept between them."""

import pytest

from agent.core.model import UNIT_ABSENT, InstanceId, UnitState
from agent.host import units
from agent.host.units import INSTANCES, PACKS, UnitCache, read_unit, read_unit_files

A = InstanceId("a")
RUNNING = {
    "ActiveState": "active",
    "LoadState": "loaded",
    "Job": [0, "/"],
    "InvocationID": bytes.fromhex("00ff" * 8),
    "StateChangeTimestampMonotonic": 5_000_000,
    "MainPID": 7,
    "NRestarts": 0,
    "Result": "success",
    "ExecMainStatus": 0,
    "StatusText": "well",
}


def test_properties_become_a_status():
    status = read_unit(RUNNING, 2.0)
    assert (status.state, status.run, status.main_pid) == (UnitState.ACTIVE, "00ff" * 8, 7)
    assert (status.since, status.job_pending, status.masked) == (7.0, False, False)
    assert read_unit({**RUNNING, "Job": [3, "/x"], "LoadState": "masked"}, 0).job_pending
    assert read_unit({**RUNNING, "ActiveState": "new word"}, 0).state is UnitState.INACTIVE


def test_a_changed_life_is_read_again_a_changed_text_is_not():
    cache = UnitCache()
    assert cache.status(A) is None
    cache.mark_stale(A, stale=False)
    cache.answered(A, RUNNING)
    assert cache.changed(A, {"StatusText": "better", "CPUUsageNSec": 1}, []) is False
    status = cache.status(A)
    assert status is not None
    assert status.status_text == "better"
    assert cache.changed(A, {"MainPID": 8}, []) is True
    assert cache.status(A) is None


def test_a_signal_during_a_query_is_newer_than_its_answer():
    cache = UnitCache()
    cache.mark_stale(A, stale=False)
    cache.changed(A, {"ActiveState": "failed"}, [])
    cache.answered(A, RUNNING)
    assert cache.status(A) is None


def test_how_the_run_before_ended_is_kept_after_a_restart():
    cache = UnitCache()
    cache.mark_stale(A, stale=False)
    cache.answered(A, RUNNING)
    cache.changed(A, {"ActiveState": "activating", "Result": "watchdog", "ExecMainStatus": 6}, [])
    cache.mark_stale(A, stale=False)
    status = cache.answered(A, {**RUNNING, "NRestarts": 1})
    assert (status.result, status.exit_status, status.restarts) == ("watchdog", 6, 1)
    cache.mark_stale(A, stale=False)
    assert cache.answered(A, RUNNING).result == "success"


def test_an_unloaded_unit_stays_absent_until_a_signal_names_it():
    cache = UnitCache()
    cache.note_absent(A)
    assert cache.status(A) is UNIT_ABSENT
    # No signal has a LoadState: of a unit that was not loaded they tell a part.
    assert cache.changed(A, {name: it for name, it in RUNNING.items() if name != "LoadState"}, [])
    cache.mark_stale(A, stale=False)
    assert cache.status(A) is None


@pytest.mark.parametrize("kind", [INSTANCES, PACKS], ids=lambda kind: kind.prefix)
def test_enabled_and_masked_units_are_read_by_kind(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(units, "FOLDERS", [tmp_path])
    wants = tmp_path / "multi-user.target.wants"
    wants.mkdir()
    for each in (INSTANCES, PACKS):
        (wants / each.unit(each.prefix[:4])).symlink_to("/x")
        (tmp_path / each.unit("masked")).symlink_to("/dev/null")
    (wants / kind.unit("mine")).symlink_to("/x")
    found = read_unit_files(kind)
    assert found.enabled == {kind.prefix[:4], "mine"}
    assert found.masked == {"masked"}
