"""What polkit lets the agent's user do: its workers, and nothing else of the machine."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.system.bed import SOURCE, Bed
from tests.system.conftest import PYTHON

OURS = "wa-instance@good.service"
LOGIND = "systemd-logind.service"
DENIED = {
    "org.freedesktop.DBus.Error.AccessDenied",
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
}
LIMIT = [["TasksMax", ["variant", "t", 99]]]
RUN = [["ExecStart", ["variant", "a(sasb)", [["/bin/true", ["/bin/true"], False]]]]]

ALLOWED = {
    "start": ["StartUnit", "ss", [OURS, "replace"]],
    "set-property": ["SetUnitProperties", "sba(sv)", [OURS, True, LIMIT]],
    "restart": ["RestartUnit", "ss", [OURS, "replace"]],
    "stop": ["StopUnit", "ss", [OURS, "replace"]],
    "backend": ["StopUnit", "ss", ["wa-backend@known.service", "replace"]],
}
FORBIDDEN = {
    "another unit": ["RestartUnit", "ss", [LOGIND, "replace"]],
    "its own unit": ["StopUnit", "ss", ["wa-agent.service", "replace"]],
    "its own socket": ["StopUnit", "ss", ["wa-agent.socket", "replace"]],
    "the slice": ["StopUnit", "ss", ["wa-instances.slice", "replace"]],
    "try-restart": ["TryRestartUnit", "ss", [OURS, "replace"]],
    "reload-or-restart": ["ReloadOrRestartUnit", "ss", [OURS, "replace"]],
    "kill": ["KillUnit", "ssi", [OURS, "all", 9]],
    "freeze": ["FreezeUnit", "s", [OURS]],
    "limits of another unit": ["SetUnitProperties", "sba(sv)", [LOGIND, True, LIMIT]],
    "enable": ["EnableUnitFiles", "asbb", [[OURS], False, False]],
    "disable": ["DisableUnitFiles", "asb", [[OURS], False]],
    "mask": ["MaskUnitFiles", "asbb", [[OURS], True, False]],
    "reload": ["Reload", "", []],
    "a unit of its own": ["StartTransientUnit", "ssa(sv)a(sa(sv))", ["x.service", "fail", RUN, []]],
    "a unit of its own by our name": [
        "StartTransientUnit",
        "ssa(sv)a(sa(sv))",
        ["wa-instance@evil.service", "fail", RUN, []],
    ],
    "environment": ["SetEnvironment", "as", [["A=b"]]],
    "upper case": ["StartUnit", "ss", ["wa-instance@GOOD.service", "replace"]],
    "escaped": ["StartUnit", "ss", ["wa-instance@a\\x2db.service", "replace"]],
    "too long": ["StartUnit", "ss", [f"wa-instance@{'a' * 49}.service", "replace"]],
}


def ask(bed: Bed, user: str, calls: list[Any]) -> list[str]:
    bed.write("/opt/ask_systemd.py", (SOURCE / "tests/system/ask_systemd.py").read_text())
    done = bed.try_run(PYTHON, "/opt/ask_systemd.py", user=user, text=json.dumps(calls))
    assert done.returncode == 0, done.stderr
    answers: list[str] = json.loads(done.stdout)
    return answers


def test_the_agent_may_run_its_workers(bed: Bed, standin: Callable[..., None]):
    standin("good")
    answers = ask(bed, "wa-agent", list(ALLOWED.values()))
    found = dict(zip(ALLOWED, answers, strict=True))
    # Allowed, but there is no such unit to stop: polkit was passed.
    assert found.pop("backend") in ("ok", "org.freedesktop.systemd1.NoSuchUnit")
    assert set(found.values()) == {"ok"}, found
    assert bed.show(OURS, "TasksMax") == "99"


def test_the_agent_may_reset_a_failed_worker(bed: Bed, standin: Callable[..., None]):
    standin("exit78")
    bed.try_run("systemctl", "start", "wa-instance@exit78.service")
    assert bed.show("wa-instance@exit78.service", "ActiveState") == "failed"
    assert ask(bed, "wa-agent", [["ResetFailedUnit", "s", ["wa-instance@exit78.service"]]]) == [
        "ok"
    ]


def test_the_agent_may_nothing_else(bed: Bed, standin: Callable[..., None]):
    standin("good")
    bed.run("systemctl", "start", OURS)
    answers = ask(bed, "wa-agent", list(FORBIDDEN.values()))
    found = dict(zip(FORBIDDEN, answers, strict=True))
    assert {name: answer for name, answer in found.items() if answer not in DENIED} == {}
    assert bed.show(OURS, "ActiveState") == "active"


@pytest.mark.parametrize("user", ["wa-worker", "daemon"])
def test_nobody_else_may_run_our_workers(bed: Bed, standin: Callable[..., None], user: str):
    standin("good")
    answers = ask(bed, user, list(ALLOWED.values()))
    assert set(answers) <= DENIED


def test_f24_a_broken_rule_beside_ours_changes_nothing(bed: Bed, standin: Callable[..., None]):
    standin("good")
    broken = bed.path("/usr/share/polkit-1/rules.d/40-broken.rules")
    bed.run(
        "sh", "-c", "echo 'polkit.addRule(function( {' > /usr/share/polkit-1/rules.d/40-x.rules"
    )
    try:
        bed.run("systemctl", "restart", "polkit.service")
        assert ask(bed, "wa-agent", [ALLOWED["start"], ALLOWED["stop"]]) == ["ok", "ok"]
    finally:
        bed.run("rm", "/usr/share/polkit-1/rules.d/40-x.rules")
        bed.run("systemctl", "restart", "polkit.service")
    assert not broken.exists()
