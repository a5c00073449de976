"""What a backend's worker is told through files."""

import stat

import pytest

from agent.core.model import InstanceId
from agent.errors import VaultError
from agent.supervise.backends.files import hook_secret, lay_out_backend, read_roster, write_roster

EVO, A = InstanceId("evo"), InstanceId("a")
SETTINGS = {"url": "http://127.0.0.1:1", "key": "a-secret"}


def test_its_files_are_closed_to_other_users(tmp_path):
    root = tmp_path / "backends"
    root.mkdir()
    root.chmod(0o2770)
    lay_out_backend(root, EVO, "evolution", SETTINGS)
    write_roster(root, EVO, {A: {"backend": "evo"}})
    hook_secret(root, EVO)
    modes = {
        one.name: stat.S_IMODE(one.stat().st_mode)
        for one in (root / "evo").iterdir()
        if one.is_file()
    }
    assert modes == {"backend.json": 0o640, "roster.json": 0o640, "hook": 0o600}


def test_the_roster_comes_back_as_it_was_written(tmp_path):
    lay_out_backend(tmp_path, EVO, "evolution", {})
    assert read_roster(tmp_path, EVO) == {}
    write_roster(tmp_path, EVO, {A: {"backend": "evo", "remote": "Sales 1"}})
    assert read_roster(tmp_path, EVO) == {A: {"backend": "evo", "remote": "Sales 1"}}


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"sessions": {"../x": {}, "b": 7}}',
        "[" * 100_000,
    ],
    ids=[
        "empty",
        "hostile",
        "deep",
    ],
)
def test_a_damaged_roster_is_empty(tmp_path, content):
    lay_out_backend(tmp_path, EVO, "evolution", {})
    (tmp_path / "evo" / "roster.json").write_text(content)
    assert read_roster(tmp_path, EVO) == {}


def test_the_secret_of_a_hook_is_kept_and_a_damaged_one_replaced(tmp_path):
    first = hook_secret(tmp_path, EVO)
    assert len(first) >= 32
    assert hook_secret(tmp_path, EVO) == first
    (tmp_path / "evo" / "hook").write_text("short")
    again = hook_secret(tmp_path, EVO)
    assert again != first
    assert len(again) >= 32


def test_a_link_in_its_place_is_refused(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "evo").symlink_to(elsewhere)
    with pytest.raises(VaultError):
        lay_out_backend(tmp_path, EVO, "evolution", SETTINGS)
    assert list(elsewhere.iterdir()) == []
