"""polkit lets the agent's user manage its workers, and nothing else of the machine."""

import json
from collections.abc import Callable

from tests.system.bed import SOURCE, Bed
from tests.system.conftest import PYTHON
from tests.system.fleet import AGENT, Fleet

OURS = "wa-instance@good.service"
DENIED = {
    "org.freedesktop.DBus.Error.AccessDenied",
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
}
REFUSED = ("Access denied", "Interactive authentication required.")
METHODS = ("StartUnit", "RestartUnit", "StopUnit")
FORBIDDEN = (  # by their names; each call and property: try_everything.py
    *(("StopUnit", f"wa-{own}") for own in ("agent.service", "agent.socket", "instances.slice")),
    *(("StartUnit", f"wa-instance@{id}.service") for id in ("GOOD", "a\\x2db", "a" * 49)),
)


def ask(bed: Bed, user: str, method: str, unit: str) -> str:
    """Return the refusal of systemd's manager to that user; "" = it does what is asked."""
    words = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
    call = ("busctl", "--allow-interactive-authorization=no", "call", *words)
    own = ("s", unit) if method == "ResetFailedUnit" else ("ss", unit, "replace")
    return bed.try_run(*call, f"{words[0]}.Manager", method, *own, user=user).stderr.strip()


def test_the_agent_may_run_its_workers(bed: Bed, standin: Callable[..., None]):
    standin("good", "exit78")
    for method in METHODS:
        assert ask(bed, "wa-agent", method, OURS) == ""
    # Allowed, though there may be no such unit to stop: polkit was passed.
    assert not ask(bed, "wa-agent", "StopUnit", "wa-pack@baileys-1.service").endswith(REFUSED)
    bed.try_run("systemctl", "start", "wa-instance@exit78.service")
    assert bed.show("wa-instance@exit78.service", "ActiveState") == "failed"
    assert ask(bed, "wa-agent", "ResetFailedUnit", "wa-instance@exit78.service") == ""


def test_the_agent_may_nothing_else_and_other_users_not_even_that(
    bed: Bed, standin: Callable[..., None]
):
    standin("good")
    bed.run("systemctl", "start", OURS)
    for method, unit in FORBIDDEN:
        assert ask(bed, "wa-agent", method, unit).endswith(REFUSED), unit
    for method in METHODS:
        assert ask(bed, "wa-worker", method, OURS).endswith(REFUSED)
        assert ask(bed, "daemon", method, OURS).endswith(REFUSED)
    assert bed.show(OURS, "ActiveState") == "active"


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
        # Not with -u: the journal may not learn the unit of a process that ends at once.
        assert f"cannot use {own}: it belongs to group 0, this worker is in" in bed.journal("-n200")
        assert bed.run("find", elsewhere, "-printf", "%p %s %T@ ") == before, "nothing was written"
    finally:
        bed.run("rm", own)
        bed.run("mv", aside, own)
        bed.run("rm", "-r", elsewhere)
        bed.run("systemctl", "reset-failed", unit)
        bed.run("systemctl", "start", "wa-agent.socket", AGENT, within=120)
    fleet.until_connected()
    fleet.cli("delete", "linked")
