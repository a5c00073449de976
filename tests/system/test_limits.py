"""Limits of single instances, set by root's helper: as the agent asks, and as an attacker does."""

import json
from collections.abc import Callable

import pytest

from tests.system.bed import SOURCE, Bed
from tests.system.conftest import PYTHON
from tests.system.fleet import Fleet

MIB = 1 << 20
UNIT = "wa-instance@good.service"
KEPT = "/run/systemd/system.control"
SOCKET = "/run/wa-limits.sock"

# Sends each text over a connection of its own; prints what came back.
TALK = """\
import json, socket, sys
answers = []
for text in json.load(sys.stdin):
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(20)
        try:
            line.connect("/run/wa-limits.sock")
            line.sendall(text.encode())
            answers.append(line.recv(200).decode())
        except OSError as error:
            answers.append(type(error).__name__)
print(json.dumps(answers))
"""


def talk(bed: Bed, *texts: str, user: str = "wa-agent") -> list[str]:
    bed.write("/opt/talk.py", TALK)
    done = bed.try_run(PYTHON, "/opt/talk.py", user=user, text=json.dumps(texts))
    assert done.returncode == 0, done.stderr
    answers: list[str] = json.loads(done.stdout)
    return answers


def shown(bed: Bed, unit: str = UNIT) -> tuple[str, str, str]:
    high, most, tasks = (bed.show(unit, name) for name in ("MemoryHigh", "MemoryMax", "TasksMax"))
    return high, most, tasks


@pytest.fixture
def good(bed: Bed, standin: Callable[..., None]) -> None:
    standin("good", "other")
    bed.run("systemctl", "start", "wa-limits.socket", UNIT, "wa-instance@other.service")


@pytest.mark.usefixtures("good")
def test_the_limits_of_one_unit_are_set_and_taken_away(bed: Bed):
    other = shown(bed, "wa-instance@other.service")
    assert talk(bed, f"good {100 * MIB} {200 * MIB} 99\n") == ["ok\n"]
    assert shown(bed) == (str(100 * MIB), str(200 * MIB), "99")
    assert talk(bed, "good - - 0\n") == ["ok\n"]
    assert shown(bed) == (str(100 * MIB), str(200 * MIB), "infinity")
    assert talk(bed, "good 0 0 -\n") == ["ok\n"]
    assert shown(bed) == ("infinity", "infinity", "infinity")
    assert shown(bed, "wa-instance@other.service") == other


@pytest.mark.usefixtures("good")
@pytest.mark.parametrize("user", ["root", "wa-worker", "daemon"])
def test_only_the_agents_user_is_answered(bed: Bed, user: str):
    before = shown(bed)
    (answer,) = talk(bed, f"good - {150 * MIB} -\n", user=user)
    assert answer in ("refused\n", "PermissionError", "ConnectionResetError", "BrokenPipeError")
    assert shown(bed) == before


@pytest.mark.usefixtures("good")
def test_s9_the_limits_of_a_unit_that_is_gone_are_removed(bed: Bed):
    assert talk(bed, f"good - {150 * MIB} -\n", f"other - {150 * MIB} -\n") == ["ok\n", "ok\n"]
    folder = f"{KEPT}/{UNIT}.d"
    assert bed.try_run("test", "-e", folder).returncode == 0
    bed.run("systemctl", "stop", UNIT)
    # An inactive unit stays loaded for a while.
    bed.until(lambda: talk(bed, "good - - -\n") == ["not-loaded\n"])
    bed.until(lambda: bed.try_run("test", "-e", folder).returncode == 1, within=60)
    assert bed.try_run("test", "-e", f"{KEPT}/wa-instance@other.service.d").returncode == 0


def test_nothing_of_the_helper_can_be_changed_by_the_agents_user(bed: Bed):
    files = [
        *("/opt/wa-agent", "/opt/wa-agent/scripts", "/opt/wa-agent/scripts/wa-limits"),
        "/usr/local/lib/systemd/system/wa-limits.service",
    ]
    for file in files:
        owner, mode = bed.run("stat", "-c", "%U:%G %a", file).split()
        assert (owner, int(mode, 8) & 0o022) == ("root:root", 0), file
    assert bed.run("stat", "-c", "%U:%G %a", SOCKET).strip() == "root:wa-agent 660"
    helper = (SOURCE / "agent/host/systemd/limits_helper.py").read_text()
    assert "import agent" not in helper
    assert "from agent" not in helper
    assert "/usr/bin/python3 -I -S /opt" in bed.show("wa-limits.service", "ExecStart")


def test_s9_a_deleted_instance_leaves_no_limits_behind(bed: Bed):
    folder = f"{KEPT}/wa-instance@gone.service.d"
    bed.run("systemctl", "start", "wa-agent.socket", "wa-agent.service")
    Fleet(bed, ()).until_it_answers()
    bed.run("wa-agent", "create", "gone", "--engine", "sandbox", "--wait", "60", within=120)
    assert bed.try_run("test", "-e", folder).returncode == 0
    assert bed.show("wa-instance@gone.service", "MemoryMax") == str(640 * MIB)
    bed.run("wa-agent", "delete", "gone")
    bed.until(lambda: bed.try_run("test", "-e", folder).returncode == 1, within=180)
