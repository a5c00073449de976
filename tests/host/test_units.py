"""Unit names: made and read back in one place, hostile ids never become one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.words import ID_PATTERN, InstanceId
from agent.errors import InvalidRequest
from agent.host import units

KINDS = [(units.INSTANCES, units.PACKS), (units.PACKS, units.INSTANCES)]
HOSTILE = ["", "A", "a@b", "a/b", "../a", "a\x00", "%i", "a" * 49, "a\\x2d"]


@given(st.from_regex(ID_PATTERN, fullmatch=True))
def test_a_name_reads_back_as_its_instance(id):
    for kind, other in KINDS:
        unit = kind.unit(InstanceId(id))
        assert kind.id_of(unit) == id
        assert other.id_of(unit) is None
        assert units.unit_of_path(units.object_path(unit)) == unit


@pytest.mark.parametrize("id", HOSTILE)
def test_f70_hostile_ids_never_become_a_unit_name_or_a_path(id):
    for kind, _ in KINDS:
        for make in (kind.unit, kind.runtime_directory):
            with pytest.raises(InvalidRequest):
                make(id)


@given(st.text(max_size=60))
def test_any_name_is_read_without_harm(name):
    for kind, _ in KINDS:
        found = kind.id_of(name)
        assert found is None or kind.unit(found) == name
    assert (
        units.INSTANCES.id_of(units.unit_of_path("/org/freedesktop/systemd1/job/" + name)) is None
    )


def test_object_paths_are_escaped_as_systemd_does_it():
    path = units.object_path("wa-instance@1-a_b.service")
    assert path == "/org/freedesktop/systemd1/unit/wa_2dinstance_401_2da_5fb_2eservice"


def test_the_shipped_units_agree_with_the_names():
    shipped = {path.name for path in (Path(__file__).parents[2] / "systemd").iterdir()}
    assert {
        units.AGENT_SERVICE,
        units.AGENT_SOCKET,
        units.AGENT_HTTP_SOCKET,
        units.INSTANCES_SLICE,
        *(kind.template for kind, _ in KINDS),
    } <= shipped


def test_a_shipped_template_agrees_with_its_kind():
    kind = units.INSTANCES
    text = (Path(__file__).parents[2] / "systemd" / kind.template).read_text()
    words = " ".join(("-m", "agent.worker", *kind.arguments, "%i"))
    assert f"python {words}\n" in text
    assert f"WA_SESSION_ROOT={kind.installed}\n" in text
    assert f"Slice={units.INSTANCES_SLICE}\n" in text
    assert f"RuntimeDirectory={kind.runtime.relative_to('/run')}/%i\n" in text
    assert f"BindPaths=-{kind.installed}/%i {kind.runtime}/%i\n" in text
