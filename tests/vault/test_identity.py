"""instance.json: written whole, read with care, enough to rebuild a database from."""

import json
import os
import stat
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.model import Instance, InstanceId
from agent.errors import InvalidRequest, Refused, VaultError
from agent.vault.identity import (
    Identity,
    create,
    parse_identity,
    read_identity,
    replace_identity,
    scan,
)
from tests.refused import refused


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_may_enter_where_agent_and_workers_are_one_user(root, sales):
    folder = create(root, sales)
    assert (mode(folder), mode(folder / "session")) == (0o700, 0o700)
    assert mode(folder / "instance.json") == 0o600


def test_the_group_may_enter_where_they_are_two(root, sales):
    """The root says so: its group may write it. umask must not narrow it."""
    root.chmod(0o2770)
    group = 12345 if os.geteuid() == 0 else os.getegid()
    os.chown(root, -1, group)
    root.chmod(0o2770)
    folder = create(root, sales)
    for path in (folder, folder / "session"):
        assert mode(path) & 0o777 == 0o770
        assert path.stat().st_gid == group
    replace_identity(root, Identity(sales, True, "x"))
    assert mode(folder / "instance.json") == 0o660
    assert (folder / "instance.json").stat().st_gid == group


def test_a_root_whose_own_folder_is_away_is_not_made(tmp_path, sales):
    with pytest.raises(VaultError, match="does not exist"):
        create(tmp_path / "a" / "b", sales)
    assert not (tmp_path / "a").exists()


def test_a_folder_from_a_crash_is_taken_over_with_its_pairing(root, sales):
    folder = create(root, sales)
    (folder / "session" / "sandbox.json").write_text("{}")
    replace_identity(root, Identity(sales, True, "49151"))
    create(root, replace(sales, enabled=False))
    found = read_identity(folder)
    assert (found.paired, found.account, found.instance.enabled) == (True, "49151", False)


@pytest.mark.parametrize("other", ["engine", "garbage"])
def test_a_session_of_something_else_is_not_taken_over(root, sales, other):
    folder = create(root, sales)
    (folder / "session" / "creds.json").write_text("{}")
    if other == "engine":
        replace_identity(root, Identity(replace(sales, engine="web"), True, ""))
    else:
        (folder / "instance.json").write_text("garbage")
    with refused(Refused, "session_exists", match="move it away first"):
        create(root, sales)
    assert (folder / "session" / "creds.json").exists()


def test_keys_of_another_version_are_kept(root, sales):
    path = create(root, sales) / "instance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": {"a": [1]}}))
    replace_identity(root, Identity(sales, True, "x"))
    assert json.loads(path.read_text())["colour"] == {"a": [1]}
    assert read_identity(path.parent).paired


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        pytest.param({"version": 2}, "version is 2", id="newer"),
        pytest.param({"id": "other"}, "its folder is 'sales'", id="another's"),
        pytest.param({"enabled": 1}, "enabled", id="number for enabled"),
        pytest.param({"settings": []}, "settings", id="settings are a list"),
    ],
)
def test_a_wrong_identity_is_refused_with_its_cause(root, sales, change, cause):
    path = create(root, sales) / "instance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(VaultError, match=cause) as caught:
        read_identity(path.parent)
    assert str(path) in str(caught.value)


@given(st.binary() | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["version", "id", "engine", "enabled", "settings", "created_wall"]), inner
    ),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_bytes_are_an_identity_or_a_vault_error(tmp_path_factory, raw):
    try:
        assert parse_identity(raw, tmp_path_factory.getbasetemp() / "sales").instance.id == "sales"
    except VaultError as error:
        assert error.code == "damaged"


def test_every_folder_is_found_and_the_unreadable_ones_with_a_problem(root, sales):
    create(root, sales)
    create(root, Instance(InstanceId("b"), "web", False))
    replace_identity(root, Identity(sales, True, "49151"))
    (root / "torn").mkdir()
    (root / "torn" / "instance.json").write_text('{"version": 1, "id": "to')
    (root / ".trash").mkdir()
    (root / "Not-An-Id").mkdir()
    (root / "file").write_text("")
    (root / "link").symlink_to(root / "sales")
    with pytest.raises(VaultError):
        scan(root / "sessions")
    assert not (root / "sessions").exists(), "who looks makes no folder"
    found = {one.id: one for one in scan(root)}
    assert sorted(found) == ["b", "file", "link", "sales", "torn"]
    assert found["sales"].identity
    assert "torn/instance.json" in found["torn"].problem
    assert "symbolic link" in found["link"].problem
    assert "it is a file" in found["file"].problem
    assert found["sales"].identity.instance == sales
    assert found["sales"].identity.record.account == "49151"


@pytest.mark.parametrize("id", ["../x", "", ".trash", "a" * 49, "x\0"])
def test_no_other_name_reaches_the_disk(root, id):
    with pytest.raises(InvalidRequest):
        create(root, Instance(InstanceId(id), "sandbox", True))
    assert list(root.iterdir()) == []


def test_an_identity_that_no_worker_would_read_is_not_written(root, sales):
    folder = create(root, sales)
    with refused(VaultError, "too_large", match="more than a worker reads"):
        replace_identity(root, Identity(replace(sales, settings={"x": "y" * (1 << 20)}), True, ""))
    assert read_identity(folder).instance == sales
