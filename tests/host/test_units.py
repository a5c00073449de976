"""Unit names: made and read back in one place, hostile ids never become one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.model import ID_PATTERN, InstanceId
from agent.errors import InvalidRequest
from agent.host import units

HOSTILE = [
    "",
    "-a",
    "_a",
    "A",
    "a b",
    "a.service",
    "a@b",
    "a/b",
    "../a",
    "a\n",
    "a\x00",
    "%i",
    "ä",
    "a" * 49,
    "a\\x2d",
]


@given(st.from_regex(ID_PATTERN, fullmatch=True))
def test_a_name_reads_back_as_its_instance(id):
    unit = units.instance_unit(InstanceId(id))
    assert units.instance_of(unit) == id
    assert units.backend_of(unit) is None
    assert units.backend_of(units.backend_unit(id)) == id
    assert units.unit_of_path(units.object_path(unit)) == unit


@pytest.mark.parametrize("id", HOSTILE)
def test_f70_hostile_ids_never_become_a_unit_name_or_a_path(id):
    for make in (
        units.instance_unit,
        units.backend_unit,
        units.runtime_directory,
    ):
        with pytest.raises(InvalidRequest):
            make(id)


@pytest.mark.parametrize("id", HOSTILE)
def test_units_that_are_not_ours_are_nobody(id):
    assert units.instance_of(f"wa-instance@{id}.service") is None


@given(st.text(max_size=60))
def test_any_name_is_read_without_harm(name):
    found = units.instance_of(name)
    assert found is None or units.instance_unit(found) == name
    units.unit_of_path("/org/freedesktop/systemd1/unit/" + name)


def test_object_paths_are_escaped_as_systemd_does_it():
    path = units.object_path("wa-instance@1-a_b.service")
    assert path == "/org/freedesktop/systemd1/unit/wa_2dinstance_401_2da_5fb_2eservice"
    assert units.unit_of_path("/org/freedesktop/systemd1/job/7") is None
    assert units.unit_of_path("/org/freedesktop/systemd1/unit/a_zz") is None


def test_the_shipped_units_agree_with_the_names():
    shipped = {path.name for path in (Path(__file__).parents[2] / "systemd").iterdir()}
    assert {
        units.AGENT_SERVICE,
        units.AGENT_SOCKET,
        units.INSTANCES_SLICE,
        units.INSTANCE_TEMPLATE,
        units.BACKEND_TEMPLATE,
    } <= shipped
    text = (Path(__file__).parents[2] / "systemd" / units.INSTANCE_TEMPLATE).read_text()
    assert f"WA_SESSION_ROOT={units.INSTALLED_SESSIONS}" in text
    assert f"Slice={units.INSTANCES_SLICE}" in text
