"""Is there a session, and is it whole?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.model import SessionFiles
from agent.vault.identity import create
from agent.vault.tree import inspect, may_log_in
from tests.engines.baileys.conftest import ACCOUNT, OTHER
from tests.engines.baileys.test_baileys_creds import linked, write
from tests.vault.conftest import sandbox_file

GOOD = sandbox_file()


@pytest.fixture
def folder(root, sales):
    return create(root, sales)


@pytest.mark.parametrize(
    ("raw", "files"),
    [
        pytest.param(None, SessionFiles.UNPAIRED, id="nothing yet"),
        pytest.param(GOOD, SessionFiles.WHOLE, id="paired"),
        pytest.param(sandbox_file(paired=False), SessionFiles.UNPAIRED, id="not paired"),
        pytest.param(b"", SessionFiles.DAMAGED, id="empty"),
        pytest.param(GOOD[:-10], SessionFiles.DAMAGED, id="truncated"),
        pytest.param(b'{"paired": true}', SessionFiles.DAMAGED, id="no device"),
        pytest.param(b"null", SessionFiles.DAMAGED, id="null"),
        pytest.param(b"{}", SessionFiles.DAMAGED, id="nothing in it"),
        pytest.param(b"[" * 100_000, SessionFiles.DAMAGED, id="nested without end"),
    ],
)
def test_sandbox_files(folder, raw, files):
    path = folder / "session" / "sandbox.json"
    if raw is not None:
        path.write_bytes(raw)
    report = inspect(folder, "sandbox")
    assert report.files is files
    if files is SessionFiles.DAMAGED:
        assert str(path) in report.problem
    if raw is not None:
        assert path.read_bytes() == raw, "looking changes nothing"


def test_no_folder_is_absent(root):
    assert inspect(root / "gone", "sandbox").files is SessionFiles.ABSENT
    assert inspect(root / "No Id", "sandbox").files is SessionFiles.UNREADABLE


def test_another_thing_in_the_place_of_its_file_or_folder_proves_no_damage(folder):
    (folder / "session/sandbox.json").write_bytes(GOOD)
    (folder / "instance.json").unlink()
    (folder / "instance.json").mkdir()
    assert inspect(folder, "sandbox").files is SessionFiles.UNREADABLE
    (folder / "session").rename(folder / "moved")
    (folder / "session").touch()
    assert inspect(folder, "sandbox").files is SessionFiles.UNREADABLE


def test_a_lost_session_folder_is_unpaired_where_no_pairing_is_known(folder):
    (folder / "session").rmdir()
    assert inspect(folder, "sandbox", paired=False).files is SessionFiles.UNPAIRED
    report = inspect(folder, "sandbox")
    assert report.files is SessionFiles.ABSENT, "of a paired one it may come back"


def test_an_engine_without_a_rule_has_a_session_when_something_is_there(folder):
    assert inspect(folder, "evolution").files is SessionFiles.UNPAIRED
    (folder / "session" / "something").mkdir()
    assert inspect(folder, "evolution").files is SessionFiles.WHOLE


@given(st.binary(max_size=300))
def test_no_content_makes_the_check_fail(tmp_path_factory, raw):
    folder = tmp_path_factory.mktemp("sessions") / "sales"
    (folder / "session").mkdir(parents=True)
    (folder / "session" / "sandbox.json").write_bytes(raw)
    assert inspect(folder, "sandbox").files in (SessionFiles.DAMAGED, SessionFiles.UNPAIRED)


@pytest.mark.parametrize(("account", "may"), [(ACCOUNT, True), (OTHER, False)])
def test_files_count_as_back_only_where_they_are_the_sessions_own(tmp_path, account, may):
    """A worker is restarted for them, and it would be refused again and again."""
    write(tmp_path / "session", linked(account))
    assert may_log_in(tmp_path, "baileys", ACCOUNT) is may
