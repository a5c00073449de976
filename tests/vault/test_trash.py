"""Into the trash in one rename, back in one, and deleted only by the sweep."""

import signal
import time

import pytest

from agent.errors import NotFound, Refused
from agent.vault.folders import list_trash, restore_trash, retire, sweep
from agent.vault.identity import Identity, create, replace_identity
from tests.vault.conftest import in_python

AT = 1_767_225_600.0  # 2026-01-01 00:00:00 UTC


@pytest.fixture
def paired(root, sales):
    folder = create(root, sales)
    replace_identity(root, Identity(sales, True, "49151"))
    (folder / "session" / "creds").write_text("precious")
    return folder


def test_nothing_is_restored_over_a_living_session(root, sales, paired):
    retired = retire(root, sales.id, "", now_wall=AT)
    create(root, sales)
    with pytest.raises(Refused, match="exists"):
        restore_trash(root, retired.name)
    assert [one.name for one in list_trash(root)] == [retired.name]


@pytest.mark.parametrize("name", ["", "../sales", "sales.20260101T000000Z/.."])
def test_a_name_that_is_none_is_not_found(root, sales, paired, name):
    with pytest.raises(NotFound):
        restore_trash(root, name)


def test_a_trash_entry_without_manifest_can_be_restored(root, sales, paired):
    retired = retire(root, sales.id, "x", now_wall=AT)
    (retired.path / "trash.json").write_text("torn {")
    assert list_trash(root)[0].why == ""
    assert restore_trash(root, retired.name) == "sales"


def test_the_trash_is_listed_newest_first_whatever_the_clock_said(root, sales):
    for at in (AT + 86_400 * 3650, AT, AT - 86_400):
        create(root, sales)
        retire(root, sales.id, str(at), now_wall=at)
    assert [one.at_wall for one in list_trash(root)] == [AT - 86_400, AT, AT + 86_400 * 3650]


def test_the_sweep_deletes_only_what_is_old_and_ours(root, sales):
    create(root, sales)
    old = retire(root, sales.id, "", now_wall=AT)
    assert sweep(root, 100, 50) == []
    create(root, sales)
    young = retire(root, sales.id, "", now_wall=AT - 100)
    foreign = [".hidden", "notes", "Sales.20200101T000000Z", "sales.20209999T999999Z-1"]
    for name in foreign:
        (root / ".trash" / name).mkdir()
    create(root, sales)
    assert sweep(root, 100, 60) == []
    assert sweep(root, 100, 60) == [old.name]
    assert sorted(part.name for part in (root / ".trash").iterdir()) == sorted(
        [young.name, "ages.json", *foreign]
    )
    assert (root / "sales").exists()


def test_a_clock_that_is_ahead_sweeps_nothing(root, sales, paired):
    """A machine that boots with a clock years ahead has a trash full of old sessions."""
    for now in (AT, time.time() - 3650 * 86_400, time.time() + 3650 * 86_400):
        if not (root / sales.id).exists():
            create(root, sales)
        retire(root, sales.id, "", now_wall=now)
    assert sweep(root, 7 * 86_400, 3600) == []
    (root / ".trash/ages.json").write_text("torn {")
    assert sweep(root, 7 * 86_400, 8 * 86_400) == [], "what cannot be read begins again"
    assert len(sweep(root, 7 * 86_400, 8 * 86_400)) == 3


SWEEP = """
import sys
from pathlib import Path
from agent.vault.folders import sweep
sweep(Path(sys.argv[1]), 0.0, 0.0)
"""


def test_a_sweep_that_was_killed_is_finished_by_the_next(root, sales, paired):
    retired = retire(root, sales.id, "", now_wall=AT)
    assert in_python(SWEEP, root, failpoint="mid_sweep:kill").returncode == -signal.SIGKILL
    assert list_trash(root) == [], "what is being deleted is offered no more"
    assert sweep(root, 7.0, 0.0) == [retired.name]
    assert list((root / ".trash").iterdir()) == []
