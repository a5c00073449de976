"""Installing on a machine without wa-agent, and taking it away again: no session is lost.

Each makes a machine of its own and looks at no other one: they run beside the tests of this folder.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.system.bed import CHECKOUT, SOURCE, Bed
from tests.system.fleet import AGENT, Fleet


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
