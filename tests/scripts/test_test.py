"""scripts/test in a copy whose programs are stand-ins: how often it runs the tests, what it says of
each run, and what it runs at each save."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
PYTEST = """\
#!/bin/sh
echo "$*" >> {top}/asked
case $(wc -l < {top}/asked) in
    2)
        echo "FLAKY tests/test_a.py::test_now_and_then"
        echo "== 1 failed, 7 passed in 3.00s =="
        exit 1
        ;;
    *) echo "== 8 passed in 3.00s ==" ;;
esac
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    names = ("scripts/packages", "scripts/page/check", "tests/standin/baileys/install")
    programs = ("ruff", "mypy", "lint-imports", "python")
    made = dict.fromkeys((*names, *(f"bin/{name}" for name in programs)), "#!/bin/sh\n")
    made["scripts/venv"] = f"#!/bin/sh\necho {tmp_path}\n"
    made["bin/pytest"] = PYTEST.format(top=tmp_path)
    for name, text in made.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    for name in ("test", "check"):
        shutil.copy(SCRIPTS / name, tmp_path / "scripts" / name)
    return tmp_path


def run(copy: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [copy / "scripts/test", *words]
    env = {"PATH": "/usr/bin:/bin", "TMPDIR": str(copy)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_three_runs_have_a_row_each_and_one_red_run_makes_it_fail(copy: Path) -> None:
    done = run(copy, "--times", "3", "-k", "word")
    assert done.returncode == 1, done.stderr
    asked = (copy / "asked").read_text().splitlines()
    assert len(asked) == 3
    assert all("--again" in line and line.endswith("-k word") for line in asked)
    lines = done.stdout.splitlines()
    rows = [line for line in lines if line.startswith("run ")]
    assert [row.split(",")[0] for row in rows] == ["run 1: green", "run 2: red", "run 3: green"]
    assert "1 failed, 7 passed" in rows[1]
    assert lines[lines.index(rows[1]) + 1] == "FLAKY tests/test_a.py::test_now_and_then"
    outputs = Path(lines[0].rpartition(" ")[2])
    assert sorted(path.name for path in outputs.iterdir()) == ["1", "2", "3"]


def test_at_each_save_it_runs_what_is_neither_slow_nor_needs_a_container(copy: Path) -> None:
    done = run(copy, "fast", "-k", "word")
    assert done.returncode == 0, done.stderr
    (asked,) = (copy / "asked").read_text().splitlines()
    assert "-m not systemd and not slow" in asked
    assert asked.endswith("-k word")
