"""The shipped units as systemd itself reads them: valid, hardened, in the right order."""

import json
import re

from tests.system.bed import SOURCE, Bed
from tests.system.conftest import PYTHON

UNITS = [
    "wa-agent.service",
    "wa-agent.socket",
    "wa-agent-http.socket",
    "wa-instance@x.service",
    "wa-pack@x.service",
    "wa-instances.slice",
]


def test_systemd_finds_no_fault_with_any_unit(bed: Bed):
    folder = "/usr/local/lib/systemd/system/"
    files = [folder + unit.replace("@x", "@") for unit in UNITS]
    done = bed.try_run("systemd-analyze", "verify", "--man=no", *files)
    ours = [line for line in done.stderr.splitlines() if "wa-" in line]
    assert (done.returncode, ours) == (0, [])


EXPOSURE = {"wa-agent.service": 1.2, "wa-instance@x.service": 1.8, "wa-pack@x.service": 1.1}


def test_exposure_is_no_worse_than_reachable(bed: Bed):
    for unit, reachable in EXPOSURE.items():
        last = bed.run("systemd-analyze", "security", "--no-pager", unit).splitlines()[-1]
        found = re.search(r"([0-9.]+) \w+", last.split(":", 1)[1])
        assert found and float(found[1]) <= reachable, last


def test_f62_a_clouds_metadata_is_out_of_reach_of_every_unit(bed: Bed):
    for unit in EXPOSURE:
        denied = bed.show(unit, "IPAddressDeny").split()
        assert {"169.254.0.0/16", "fe80::/64"} <= set(denied), unit


def test_workers_are_stopped_before_the_agent_and_outlive_it(bed: Bed):
    for unit in ("wa-instance@x.service", "wa-pack@x.service"):
        assert "wa-agent.service" in bed.show(unit, "After").split()
        for tie in ("Requires", "BindsTo", "PartOf", "Wants"):
            assert "wa-agent.service" not in bed.show(unit, tie).split()


def test_f15_workers_die_before_the_agent_when_memory_ends(bed: Bed):
    assert int(bed.show("wa-agent.service", "OOMScoreAdjust")) < 0
    assert int(bed.show("wa-instance@x.service", "OOMScoreAdjust")) > 0


def test_f79_the_agents_socket_and_state_are_not_for_everybody(bed: Bed):
    shown = bed.run("stat", "-c", "%U:%G %a", "/run/wa-agent/api.sock").strip()
    assert shown == "root:wa-agent 660"
    assert bed.run("stat", "-c", "%U:%G %a", "/var/lib/wa-agent").strip() == "wa-agent:wa 750"
    sessions = bed.run("stat", "-c", "%U:%G %a", "/var/lib/wa-agent/sessions").strip()
    assert sessions == "wa-agent:wa 2770"
    assert "wa-worker" not in bed.run("getent", "group", "wa-agent")


# A worker's unit itself tries what the worker can reach.
PROBE = """\
import ctypes, json, os, pathlib, socket
def can(act):
    try: act(); return True
    except OSError: return False
def connect(path):
    s = socket.socket(socket.AF_UNIX); s.connect(path)
IO_URING_SETUP = 425
own = "/var/lib/wa-agent/sessions/probe"
print("PROBE " + json.dumps({
    "own": can(lambda: pathlib.Path(own, "session/new").write_text("x")),
    "own_link": can(lambda: pathlib.Path("/run/wa-instance/probe/x").write_text("x")),
    "sessions": sorted(os.listdir("/var/lib/wa-agent/sessions")),
    "state": sorted(os.listdir("/var/lib/wa-agent")),
    "links": sorted(os.listdir("/run/wa-instance")),
    "database": can(lambda: open("/var/lib/wa-agent/agent.db", "rb")),
    "api": can(lambda: connect("/run/wa-agent/api.sock")),
    "bus": can(lambda: connect("/run/dbus/system_bus_socket")),
    "settings": can(lambda: open("/etc/wa-agent/agent.toml")),
    "other_pids": [p for p in os.listdir("/proc") if p.isdigit() and p != str(os.getpid())],
    "signal_agent": can(lambda: os.kill(AGENT, 0)),
    "write_etc": can(lambda: open("/etc/x", "w")),
    "home": can(lambda: os.listdir("/root")),
    "io_uring": ctypes.CDLL(None).syscall(IO_URING_SETUP, 1, ctypes.create_string_buffer(256)) >= 0,
    "write_program": can(lambda: open("/opt/wa-agent/x", "w")),
}))
"""


def test_f85_a_worker_reaches_its_own_folder_and_nothing_else_of_ours(bed: Bed):
    agent = bed.show("wa-agent.service", "MainPID")
    for id in ("probe", "other"):
        folder = f"/var/lib/wa-agent/sessions/{id}"
        bed.run("install", "-d", "-m", "2770", "-o", "wa-agent", "-g", "wa", folder)
        bed.run("install", "-d", "-m", "2770", "-o", "wa-agent", "-g", "wa", f"{folder}/session")
    bed.write("/opt/probe.py", PROBE.replace("AGENT", agent))
    bed.write(
        "/etc/systemd/system/wa-instance@probe.service.d/probe.conf",
        f"[Service]\nType=oneshot\nExecStart=\nExecStart={PYTHON} /opt/probe.py\nRestart=no\n",
    )
    bed.run("systemctl", "daemon-reload")
    try:
        bed.run("systemctl", "start", "wa-instance@probe.service")
        line = bed.journal("-o", "cat", "-u", "wa-instance@probe.service")
        found = json.loads(line.split("PROBE ", 1)[1].splitlines()[0])
    finally:
        bed.try_run("rm", "-r", "/etc/systemd/system/wa-instance@probe.service.d")
        bed.try_run("rm", "-r", "/var/lib/wa-agent/sessions/probe")
        bed.try_run("rm", "-r", "/var/lib/wa-agent/sessions/other")
        bed.run("systemctl", "daemon-reload")
    assert found == {
        "own": True,
        "own_link": True,
        "sessions": ["probe"],
        "state": ["cache", "sessions"],
        "links": ["probe"],
        "database": False,
        "api": False,
        "bus": False,
        "settings": False,
        "other_pids": [],
        "signal_agent": False,
        "write_etc": False,
        "home": False,
        "io_uring": False,
        "write_program": False,
    }


def test_strong_isolation_gives_each_worker_a_user_of_its_own(bed: Bed):
    folder = "/etc/systemd/system/wa-instance@.service.d"
    example = SOURCE / "systemd/strong-isolation.conf.example"
    probe = f"ExecStart=\nExecStart={PYTHON} /opt/standin.py %i\n"
    bed.write("/opt/standin.py", (SOURCE / "tests/host/standin.py").read_text())
    bed.write(f"{folder}/isolation.conf", example.read_text() + probe)
    sessions = "/var/lib/wa-agent/sessions"
    bed.run("install", "-d", "-m", "2770", "-o", "wa-agent", "-g", "wa", f"{sessions}/iso")
    bed.run("systemctl", "daemon-reload")
    try:
        bed.run("systemctl", "start", "wa-instance@iso.service", "wa-instance@iso2.service")
        users = set()
        for id in ("iso", "iso2"):
            pid = bed.show(f"wa-instance@{id}.service", "MainPID")
            users.add(bed.run("stat", "-c", "%u", f"/proc/{pid}").strip())
        assert len(users) == 2
        owner = bed.run("stat", "-c", "%U:%G %a", f"{sessions}/iso").strip()
        assert owner == "wa-agent:wa 2770"
    finally:
        bed.try_run("systemctl", "stop", "wa-instance@iso.service", "wa-instance@iso2.service")
        bed.try_run("rm", "-r", folder, f"{sessions}/iso")
        bed.run("systemctl", "daemon-reload")
