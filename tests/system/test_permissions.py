"""What polkit lets the agent's user do: its workers, and nothing else of the machine."""

import json
from collections.abc import Callable
from typing import Any

from tests.system.bed import SOURCE, Bed
from tests.system.conftest import PYTHON
from tests.system.fleet import AGENT, Fleet

OURS = "wa-instance@good.service"
DENIED = {
    "org.freedesktop.DBus.Error.AccessDenied",
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
}

ALLOWED = {
    "start": ["StartUnit", "ss", [OURS, "replace"]],
    "restart": ["RestartUnit", "ss", [OURS, "replace"]],
    "stop": ["StopUnit", "ss", [OURS, "replace"]],
    "pack": ["StopUnit", "ss", ["wa-pack@baileys-1.service", "replace"]],
}
FORBIDDEN = {  # by their names; each call and property: try_everything.py
    "its own unit": ["StopUnit", "ss", ["wa-agent.service", "replace"]],
    "its own socket": ["StopUnit", "ss", ["wa-agent.socket", "replace"]],
    "the slice": ["StopUnit", "ss", ["wa-instances.slice", "replace"]],
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
    assert found.pop("pack") in ("ok", "org.freedesktop.systemd1.NoSuchUnit")
    assert set(found.values()) == {"ok"}, found


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


def test_other_users_may_not_run_the_agents_workers(bed: Bed, standin: Callable[..., None]):
    standin("good")
    for user in ("wa-worker", "daemon"):
        assert set(ask(bed, user, list(ALLOWED.values()))) <= DENIED


REFUSED_BEFORE_POLKIT = {
    "org.freedesktop.DBus.Error.InvalidArgs",
    "org.freedesktop.DBus.Error.PropertyReadOnly",
    "org.freedesktop.DBus.Error.UnknownProperty",
    "org.freedesktop.DBus.Error.NotSupported",
    "org.freedesktop.DBus.Error.BadAddress",
    "org.freedesktop.systemd1.NoSuchUnit",
    "org.freedesktop.systemd1.NoSuchJob",
    "org.freedesktop.systemd1.NotReferenced",
    "org.freedesktop.systemd1.JobTypeNotApplicable",
}


def everything(bed: Bed) -> dict[str, str]:
    """Every call as the agent's user, and how it was answered."""
    bed.write("/opt/try_everything.py", (SOURCE / "tests/system/try_everything.py").read_text())
    command = (PYTHON, "/opt/try_everything.py", OURS)
    done = bed.try_run(*command, user="wa-agent", within=300)
    assert done.returncode == 0, done.stderr
    answers: dict[str, str] = json.loads(done.stdout)
    assert len(answers) > 1000
    return answers


def test_s1_no_property_and_no_method_of_systemd_is_the_agents(
    bed: Bed, standin: Callable[..., None]
):
    standin("good")
    bed.run("systemctl", "start", OURS)
    run = bed.show(OURS, "InvocationID")
    answers = everything(bed)
    properties = {name: one for name, one in answers.items() if "SetProperties " in name}
    properties |= {name: one for name, one in answers.items() if "SetUnitProperties " in name}
    assert {name: one for name, one in properties.items() if one not in DENIED} == {}
    refused = DENIED | REFUSED_BEFORE_POLKIT
    assert {name: one for name, one in answers.items() if one not in refused} == {}
    assert bed.show(OURS, "InvocationID") == run
    assert bed.try_run("test", "-e", "/root/pwned").returncode == 1


def test_a_worker_refuses_what_a_link_at_its_folders_place_leads_to(bed: Bed):
    """systemd binds it as root and follows the link, which the agent's user could put there."""
    fleet, sessions = Fleet(bed, ("linked",)), "/var/lib/wa-agent/sessions"
    own, aside, elsewhere = f"{sessions}/linked", f"{sessions}/.linked.own", "/opt/elsewhere"
    unit = fleet.unit("linked")
    fleet.make()
    bed.run("systemctl", "stop", AGENT, within=120)
    bed.run("cp", "-a", own, elsewhere)
    bed.run("chgrp", "-R", "root", elsewhere)
    bed.run("chmod", "-R", "o+rwX", elsewhere)
    before = bed.run("find", elsewhere, "-printf", "%p %s %T@ ")
    bed.run("mv", own, aside, user="wa-agent")
    bed.run("ln", "-s", elsewhere, own, user="wa-agent")
    try:
        assert bed.try_run("systemctl", "start", unit).returncode != 0
        assert bed.show(unit, "ExecMainStatus") == "66"
        assert "belongs to group 0, this worker is in group" in bed.journal("-u", unit, "-o", "cat")
        assert bed.run("find", elsewhere, "-printf", "%p %s %T@ ") == before, "nothing was written"
    finally:
        bed.run("rm", own)
        bed.run("mv", aside, own)
        bed.run("rm", "-r", elsewhere)
        bed.run("systemctl", "reset-failed", unit)
        bed.run("systemctl", "start", "wa-agent.socket", AGENT, within=120)
    fleet.until_connected()
    fleet.cli("delete", "linked")
