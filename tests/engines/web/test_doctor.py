"""`doctor` finds what keeps the web engine from working on a machine, and names the cure."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.engines.web import fetch
from agent.engines.web.doctor import examine
from tests.lacking import lacks, not_lent

EXAMINE = """
import json, sys
from pathlib import Path
from agent.engines.web.doctor import examine
print(json.dumps({each.code: [each.sentence, each.cure] for each in examine(Path(sys.argv[1]))}))
"""


def test_the_doctor_names_each_missing_thing_and_its_cure(tmp_path: Path) -> None:
    found = {each.code: each for each in examine(tmp_path, {"WA_BROWSER": "/nonexistent"})}
    assert {"browser_missing", "bundle_missing"} <= set(found)
    cure = found["bundle_missing"].cure
    assert cure == f"fetch it: {sys.executable} -m agent.engines.web.fetch {tmp_path}"
    path = fetch.bundle_path(tmp_path)
    path.parent.mkdir()
    path.write_text("changed")
    found = {each.code: each for each in examine(tmp_path)}
    assert "fetch it again" in found["bundle_changed"].cure


def test_the_doctor_finds_nothing_where_all_is_there(cache: Path, browser: None) -> None:
    assert [each for each in examine(cache) if each.serious] == []


@pytest.mark.parametrize("allowed", [True, False])
def test_f87_the_doctor_names_the_setting_of_a_kernel_without_user_namespaces(
    tmp_path: Path, allowed: bool
) -> None:
    """The setting is each user namespace's own: in one of ours it can be taken away for real."""
    if shutil.which("unshare") is None:
        lacks("this machine has no unshare")
    take_away = "" if allowed else "echo 0 > /proc/sys/user/max_user_namespaces; "
    shell = ("sh", "-c", take_away + 'exec "$@"', "sh")
    done = subprocess.run(
        ["unshare", "-Ur", *shell, sys.executable, "-c", EXAMINE, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare failed" in done.stderr:
        not_lent(f"this machine lends no namespace: {done.stderr.strip()}")
    found = json.loads(done.stdout)
    assert ("sandbox_not_possible" in found) is not allowed
    if not allowed:
        sentence, cure = found["sandbox_not_possible"]
        assert "user.max_user_namespaces is 0" in sentence
        assert cure.startswith("sysctl user.max_user_namespaces=")
