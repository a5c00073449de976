"""Installing on a running machine, and taking it away again: nothing of a session is lost."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engines.web.bundle import bundle_path
from tests.ports import free_port
from tests.system.bed import CHECKOUT, SOURCE, Bed
from tests.system.conftest import PYTHON
from tests.system.fleet import AGENT, Fleet
from tests.system.terminal import on_a_terminal


@pytest.fixture
def bare() -> Iterator[Bed]:
    """A booted machine without wa-agent; only its port is chosen before."""
    bed = Bed.make()
    try:
        bed.port = free_port()
        bed.write(
            "/etc/systemd/system/wa-agent-http.socket.d/bed.conf",
            f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{bed.port}\n",
        )
        bed.boot()
        yield bed
    finally:
        bed.close()


def test_install_live_uninstall_and_install_again_keeps_the_sessions(bare: Bed):
    bare.run(CHECKOUT / "scripts/install", "--prefix", "/opt/elsewhere", within=300)
    assert bare.show(AGENT, "ActiveState") == "active"
    assert "/opt/elsewhere/venv/bin/wa-agent run" in bare.show(AGENT, "ExecStart")
    fleet = Fleet(bare, ("s1", "s2"))
    fleet.make()
    accounts = fleet.accounts()

    bare.run(CHECKOUT / "scripts/uninstall", within=300)
    assert set(fleet.states().values()) == {"inactive"}
    assert bare.try_run("test", "-e", "/opt/elsewhere").returncode == 1
    assert bare.try_run("test", "-e", "/usr/local/bin/wa-agent").returncode == 1
    assert bare.run("ls", "/var/lib/wa-agent/sessions").split() == ["s1", "s2"]
    assert bare.show(AGENT, "LoadState") == "not-found"
    bare.run(CHECKOUT / "scripts/uninstall")

    bare.run(CHECKOUT / "scripts/install", within=300)
    fleet.until_connected()
    assert fleet.accounts() == accounts

    bare.run(CHECKOUT / "scripts/uninstall", "--purge", within=300)
    assert bare.try_run("test", "-e", "/var/lib/wa-agent").returncode == 1
    (backup,) = bare.run("sh", "-c", "ls -d /var/backups/wa-agent.*").split()
    kept = bare.run("ls", f"{backup}/state/sessions/s1/session").split()
    assert kept == ["sandbox.json"]
    assert bare.run("stat", "-c", "%a", backup).strip() == "700"


def test_a_program_of_pip_becomes_a_service_and_ceases_to_be_one(bare: Bed, tmp_path: Path):
    """The wheel in an environment of root's: the same units, users and rights."""
    dist = [SOURCE / "scripts/dist", "--out", tmp_path]
    env = {**os.environ, "WA_DIST_VENV": sys.prefix}
    subprocess.run(dist, env=env, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    shutil.copy(wheel, bare.root / "opt")
    bare.run(CHECKOUT / "scripts/venv", "run", "/opt/by-pip", within=300)
    pip = ("/opt/by-pip/bin/pip", "install", "-q", "--no-index", "--no-deps", "--force-reinstall")
    bare.run(*pip, f"/opt/{wheel.name}", within=120)
    program = "/opt/by-pip/bin/wa-agent"

    own, link = "/opt/by-pip/share/wa-agent/scripts/install-units", "/opt/by-pip/lib/foreign.py"
    bare.run("install", "-D", "-o", "nobody", "/dev/null", "/opt/foreign/code.py")
    for spoil, cure in (
        (("chown", "nobody", own), ("chown", "root", own)),
        (("ln", "-s", "/opt/foreign/code.py", link), ("rm", link)),
    ):
        bare.run(*spoil)
        refused = bare.try_run(program, "install-units")
        assert (refused.returncode, "not only root may change" in refused.stderr) == (4, True)
        assert bare.show(AGENT, "LoadState") == "not-found"
        bare.run(*cure)

    bare.run(program, "install-units", within=300)
    assert "/usr/local/lib/wa-agent/venv/bin/wa-agent run" in bare.show(AGENT, "ExecStart")
    fleet = Fleet(bare, ("s1", "s2"))
    fleet.make()
    runs = fleet.runs()
    bare.run(program, "install-units", within=300)
    fleet.until_connected()
    assert fleet.runs() == runs, "an upgrade restarts no session"
    doctor = bare.try_run("wa-agent", "doctor").stdout
    assert not [line for line in doctor.splitlines() if line.startswith("FAIL")], doctor

    bare.run(program, "install-units", "--remove", within=300)
    assert bare.show(AGENT, "LoadState") == "not-found"
    assert bare.run("ls", "/var/lib/wa-agent/sessions").split() == ["s1", "s2"]
    assert bare.run(program, "--version").startswith("wa-agent "), "pip's program is pip's"


@pytest.mark.parametrize(
    "arguments", [["--prefix", "/home/x"], ["--prefix", "x y"], ["--prefix"], ["--what"]]
)
def test_a_prefix_that_cannot_work_is_refused(bed: Bed, arguments: list[str]):
    done = bed.try_run(CHECKOUT / "scripts/install", *arguments)
    assert done.returncode == 1
    assert "scripts/install: " in done.stderr


def test_s1_an_upgrade_sets_aside_what_the_old_rule_let_into_the_units(bed: Bed):
    rule = "/usr/share/polkit-1/rules.d/50-wa-agent.rules"
    bed.write(rule, (SOURCE / "tests/system/old_rule.js").read_text())
    evil, fine = "wa-instance@evil.service.d/50-Description.conf", "wa-instance@fine.service.d"
    lasting, volatile = "/etc/systemd/system.control", "/run/systemd/system.control"
    hidden = "[Unit]\nDescription=x\n[Service]\nExecStart=+/bin/sh -c id\n"
    limits = "# This is a drop-in.\n[Service]\nMemoryMax=209715200\n"
    folders = [f"{lasting}/{evil}", f"{volatile}/{evil}", f"{volatile}/{fine}/50-MemoryMax.conf"]
    for path, text in zip(folders, (hidden, hidden, limits), strict=True):
        bed.run("mkdir", "-p", path.rpartition("/")[0])
        assert bed.try_run("tee", path, text=text).returncode == 0
    try:
        done = bed.try_run(CHECKOUT / "scripts/install", within=300)
        assert done.returncode == 0, done.stderr
        there = [bed.try_run("test", "-e", path).returncode for path in folders]
        assert there == [1, 1, 0]
        (aside,) = bed.run("sh", "-c", "ls -d /var/backups/wa-agent-drop-ins.*").split()
        assert aside in done.stderr
        assert bed.run("stat", "-c", "%U %a", aside).strip() == "root 700"
        assert bed.run("cat", f"{aside}{lasting}/{evil}") == hidden
        rights = bed.run("grep", "-v", "^//", rule)
        assert "set-property" not in rights
        bed.until(lambda: bed.show(AGENT, "ActiveState") == "active")
        assert bed.show("wa-limits.socket", "ActiveState") == "active"
    finally:
        bed.run("sh", "-c", f"rm -rf {volatile}/{fine} /var/backups/wa-agent-drop-ins.*")


def test_an_upgrade_runs_nothing_of_the_service_on_roots_terminal_and_leaves_drop_ins_alone(
    bed: Bed,
):
    folder = "/etc/systemd/system.control/wa-instance@own.service.d"
    bed.write(f"{folder}/50-CPUWeight.conf", "[Service]\nCPUWeight=50\n")
    try:
        done = on_a_terminal(bed, CHECKOUT / "scripts/install")
        assert done.status == 0, done.text
        assert bed.try_run("test", "-e", folder).returncode == 0
        # Whoever runs on root's terminal types there.
        assert any("agent.engines.web.fetch" in line for line in done.seen)
        assert not done.on_terminal
    finally:
        bed.run("rm", "-r", folder)


STATE = "/var/lib/wa-agent"
LOOK = "find /root/targets -printf '%p %u:%g %m %T@ %s\\n' | sort"


@pytest.fixture
def linked(bed: Bed) -> Iterator[list[str]]:
    """Everything in the state folder is a link to a target of root's; put back afterwards."""
    bed.run("systemctl", "stop", AGENT, within=120)
    bed.run("install", "-d", "-m", "700", "/root/targets")
    bundle = bundle_path(SOURCE / ".cache")
    names = {"cache", "sessions", "backends", "backups", "log", "run", "trash"}
    names |= set(bed.run("ls", "-A", STATE).split())
    for name in sorted(names):
        there = f"{STATE}/{name}"
        is_file = bed.try_run("test", "-f", there).returncode == 0
        bed.try_run("mv", there, f"/root/{name}.real")
        target = f"/root/targets/{name}"
        if is_file:
            bed.run("sh", "-c", f"umask 077; echo of root > {target}")
        else:
            bed.run("install", "-d", "-m", "700", target)
            bed.run("sh", "-c", f"umask 077; echo of root > {target}/file")
        if name == "cache" and bundle.exists():
            # With it the fetch has nothing to do; what comes after it does.
            inside = f"{target}/{bundle.relative_to(SOURCE / '.cache')}"
            bed.run("install", "-D", "-m", "600", "/dev/null", inside)
            (bed.root / inside.lstrip("/")).write_bytes(bundle.read_bytes())
        bed.run("ln", "-s", target, there, user="wa-agent")
    yield sorted(names)
    for name in names:
        bed.run("rm", "-f", f"{STATE}/{name}")
        bed.try_run("mv", f"/root/{name}.real", f"{STATE}/{name}")
    bed.run("rm", "-r", "/root/targets")
    bed.run("systemd-tmpfiles", "--create", "/usr/local/lib/tmpfiles.d/wa-agent.conf")
    bed.run("systemctl", "start", "wa-agent.socket", AGENT)


def test_s6_an_upgrade_follows_no_link_of_the_agents_user(bed: Bed, linked: list[str]):
    before = bed.run("sh", "-c", LOOK)
    assert len(before.splitlines()) > 2 * len(linked) - 6
    done = bed.try_run(CHECKOUT / "scripts/install", within=300)
    assert done.returncode == 0, done.stderr
    assert bed.run("sh", "-c", LOOK) == before
    # What a boot does as root, and what a person is told to do as root.
    bed.run("systemd-tmpfiles", "--create", "/usr/local/lib/tmpfiles.d/wa-agent.conf")
    bed.try_run(PYTHON, "-m", "agent.engines.web.fetch", f"{STATE}/cache", within=300)
    assert bed.run("sh", "-c", LOOK) == before
    # The agent itself cannot write there; systemd, which makes its state folder, must not either.
    bed.try_run("systemctl", "start", AGENT, within=120)
    bed.run("systemctl", "stop", AGENT, within=120)
    bed.try_run("systemctl", "reset-failed", AGENT)
    assert bed.run("sh", "-c", LOOK) == before


def test_root_gives_up_its_rights_below_another_users_folder(bed: Bed):
    bed.run("install", "-d", "-o", "wa-worker", "-g", "wa", "/opt/own")
    cache = "/opt/own/deep/cache"
    # Without npm, too, it makes its folder first.
    bed.try_run(PYTHON, "-m", "agent.engines.baileys.fetch", cache, within=300)
    assert bed.run("stat", "-c", "%U", f"{cache}/baileys").strip() == "wa-worker"
    bundle = bundle_path(Path(cache))
    bed.run("install", "-D", "-m", "600", "/dev/null", bundle)
    if bundle_path(SOURCE / ".cache").exists():
        shutil.copyfile(bundle_path(SOURCE / ".cache"), bed.root / str(bundle).lstrip("/"))
    # Of root's and for root alone: as another user it is not there.
    done = bed.try_run(PYTHON, "-m", "agent.engines.web.fetch", cache, within=300)
    assert done.returncode != 0 or bed.run("stat", "-c", "%U", bundle).strip() == "wa-worker"
    bed.run("rm", "-r", "/opt/own")


@pytest.fixture
def tree() -> Iterator[Bed]:
    """A machine that is not booted, without wa-agent."""
    bed = Bed.make()
    try:
        yield bed
    finally:
        bed.close()


FOUND = (
    "find /etc /opt /usr/local /usr/share/polkit-1 /var/lib /root -xdev"
    " ( -name wa-* -o -name 50-wa-agent* ) -print"
)


@pytest.mark.parametrize("stage", ["packages", "units"])
def test_s9_a_first_installation_that_fails_leaves_nothing_behind(tree: Bed, stage: str):
    # Whatever this machine has of its own is in the tree too.
    for path in ("etc/wa-agent", "var/lib/wa-agent", "opt/deep"):
        shutil.rmtree(tree.root / path, ignore_errors=True)
    before = tree.chroot(*FOUND.split()).stdout
    env = {}
    if stage == "packages":
        env = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}
    else:
        tree.write("/usr/local/lib/tmpfiles.d/wa-agent.conf.new/in/the/way", "")
    done = tree.chroot(CHECKOUT / "scripts/install", "--prefix", "/opt/deep/wa-agent", env=env)
    assert done.returncode != 0
    assert "took away what it had installed" in done.stderr, done.stderr
    shutil.rmtree(tree.root / "usr/local/lib/tmpfiles.d/wa-agent.conf.new", ignore_errors=True)
    assert tree.chroot(*FOUND.split()).stdout == before
    for path in ("etc/wa-agent", "var/lib/wa-agent", "opt/deep"):
        assert not (tree.root / path).exists()
