"""Installing on a running machine, and taking it away again: nothing of a session is lost."""

from collections.abc import Iterator

import pytest

from tests.system.bed import CHECKOUT, SOURCE, Bed, free_port
from tests.system.fleet import AGENT, Fleet


@pytest.fixture
def bare() -> Iterator[Bed]:
    """A booted machine without wa-agent; only its port is chosen before."""
    bed = Bed.make()
    try:
        bed.port = free_port()
        bed.write(
            "/etc/systemd/system/wa-agent.socket.d/bed.conf",
            "[Socket]\nListenStream=\n"
            f"ListenStream=127.0.0.1:{bed.port}\nListenStream=/run/wa-agent/api.sock\n",
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

    bare.run(CHECKOUT / "scripts/uninstall", within=200)
    assert set(fleet.states().values()) == {"inactive"}
    assert bare.try_run("test", "-e", "/opt/elsewhere").returncode == 1
    assert bare.try_run("test", "-e", "/usr/local/bin/wa-agent").returncode == 1
    assert bare.run("ls", "/var/lib/wa-agent/sessions").split() == ["s1", "s2"]
    assert bare.show(AGENT, "LoadState") == "not-found"
    bare.run(CHECKOUT / "scripts/uninstall")

    bare.run(CHECKOUT / "scripts/install", within=300)
    fleet.until_connected()
    assert fleet.accounts() == accounts

    bare.run(CHECKOUT / "scripts/uninstall", "--purge", within=200)
    assert bare.try_run("test", "-e", "/var/lib/wa-agent").returncode == 1
    (backup,) = bare.run("sh", "-c", "ls -d /var/backups/wa-agent.*").split()
    kept = bare.run("ls", f"{backup}/state/sessions/s1/session").split()
    assert kept == ["sandbox.json"]
    assert bare.run("stat", "-c", "%a", backup).strip() == "700"


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


def test_an_upgrade_of_this_version_leaves_limits_and_drop_ins_alone(bed: Bed):
    folder = "/etc/systemd/system.control/wa-instance@own.service.d"
    bed.write(f"{folder}/50-CPUWeight.conf", "[Service]\nCPUWeight=50\n")
    try:
        bed.run(CHECKOUT / "scripts/install", within=300)
        assert bed.try_run("test", "-e", folder).returncode == 0
    finally:
        bed.run("rm", "-r", folder)
