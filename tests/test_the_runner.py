"""The run itself: processes left behind fail it, SIGINT reaches children, a hanging test ends,
a test that fails now and then is named."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.order import LONGEST, MACHINE, measured, place, scope

TOP = Path(__file__).resolve().parents[1]


def run_pytest(file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "--rootdir", str(TOP), "-c", str(TOP / "pyproject.toml"), *options, str(file)],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )


@pytest.mark.parametrize("side_by_side", ["0", "1"])
def test_a_process_that_outlives_its_test_is_named_ended_and_fails_the_run(
    tmp_path: Path, side_by_side: str
) -> None:
    file = tmp_path / "test_leaves.py"
    file.write_text(
        "import subprocess\n"
        "KEEP = []\n"
        "def test_leaves():\n"
        "    KEEP.append(subprocess.Popen(['sleep', '600'], start_new_session=True))\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(KEEP[0].pid))\n"
    )
    done = run_pytest(file, "-n", side_by_side)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    pid = (tmp_path / "pid").read_text()
    assert f"test_leaves left process {pid} behind: sleep 600" in done.stdout
    # Ended: it is gone, or init has not read yet how it ended.
    with contextlib.suppress(OSError):
        assert not Path("/proc", pid, "cmdline").read_bytes()


def test_children_end_by_sigint_though_the_parent_of_the_run_ignores_it(tmp_path: Path) -> None:
    file = tmp_path / "test_interrupts.py"
    file.write_text(
        "import signal, subprocess\n"
        "def test_interrupts():\n"
        "    child = subprocess.Popen(['sleep', '600'])\n"
        "    child.send_signal(signal.SIGINT)\n"
        "    assert child.wait(20) == -signal.SIGINT\n"
    )
    done = run_pytest(file, "-n", "0")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_test_that_hangs_ends_with_its_stack(tmp_path: Path) -> None:
    file = tmp_path / "test_hangs.py"
    file.write_text("import time\ndef test_hangs():\n    time.sleep(600)\n")
    done = run_pytest(file, "-n", "0", "--timeout", "3")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "Timeout (>3.0s)" in done.stdout
    assert "time.sleep(600)" in done.stdout


def test_one_that_failed_and_passes_alone_is_named_flaky_and_the_run_stays_red(
    tmp_path: Path,
) -> None:
    file = tmp_path / "test_now_and_then.py"
    file.write_text(
        "from pathlib import Path\n"
        f"BEEN_HERE = Path({str(tmp_path / 'been here')!r})\n"
        "def test_fails_once():\n"
        "    first = not BEEN_HERE.exists()\n"
        "    BEEN_HERE.touch()\n"
        "    assert not first\n"
        "def test_fails_always():\n"
        "    assert False\n"
        "def test_passes():\n"
        "    pass\n"
    )
    done = run_pytest(file, "-n", "1", "--again", "--rootdir", str(tmp_path))
    lines = done.stdout.splitlines()
    about = [line for line in lines if line.startswith(("FLAKY ", "FAILED AGAIN "))]
    kinds = {line.rpartition(" ")[0]: line.rpartition("::")[2] for line in about}
    assert kinds == {"FLAKY": "test_fails_once", "FAILED AGAIN": "test_fails_always"}, done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


def test_side_by_side_the_file_that_took_longest_begins_and_its_time_is_kept(
    tmp_path: Path,
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = checks\n")
    (tmp_path / "checks").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / f"checks/test_{name}.py").write_text(f"def test_{name}():\n    pass\n")
    kept = measured(tmp_path)
    kept.parent.mkdir()
    kept.write_text(json.dumps({"checks/test_a.py": 1.0, "checks/test_c.py": 2.0}))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-n", "1", "-v"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    run = [line.rstrip()[-1] for line in done.stdout.splitlines() if " PASSED " in line]
    assert run == ["b", "c", "a"], f"b is new, c took longest: {done.stdout}"
    assert set(json.loads(kept.read_text())) == {f"checks/test_{name}.py" for name in "abc"}


def test_tests_of_the_one_machine_run_in_one_process_and_those_of_others_beside_it() -> None:
    one = {scope(f"tests/system/test_{name}.py::test_it") for name in ("life", "units")}
    assert one == {"machine"}
    assert scope("tests/system/test_package.py::test_it") == "tests/system/test_package.py"
    assert scope("tests/host/process/test_host.py::test_it") == "tests/host/process/test_host.py"
    assert place("tests/system/test_life.py::test_it", {}) < place("tests/cli/test_help.py::x", {})


def test_where_nothing_was_measured_the_longest_files_begin_before_the_rooms_of_long_ones() -> None:
    files = [name for name in LONGEST if name != MACHINE]
    assert [name for name in files if not (TOP / name).is_file()] == []
    places = [place(f"{name}::test_it", {}) for name in files]
    assert places == sorted(places)
    assert places[-1] < place("tests/daemon/test_life.py::test_it", {})
    machine = place("tests/system/test_life.py::test_it", {})
    assert machine < places[0], "what runs in one process as a whole"
