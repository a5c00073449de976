"""The Debian package: its build, upgrades that fail, downgrades, the Ansible role."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import debian
from tests.system.bed import SOURCE, Bed
from tests.system.debian import apt, build, full_disk, newer, next_version, program, unchanged
from tests.system.fleet import AGENT, Fleet, connect
from tests.system.terminal import on_a_terminal
from tests.system.test_package import (
    OWN,
    adds_a_step_to_the_schema,
    bare,
    dpkg,
    fleet,
    package,
    publish,
    repository,
    succeed,
)

__all__ = ["bare", "fleet", "newer", "package", "repository"]

pytestmark = pytest.mark.timeout(900)


def version(bed: Bed) -> str:
    """The version that the running agent says of itself."""
    with contextlib.closing(connect(bed)) as connection:
        connection.request("GET", "/api/health")
        return str(json.load(connection.getresponse())["agent"]["version"])


def release_of(bed: Bed, unit: str) -> str:
    """The release of the program that a unit's process runs from."""
    return bed.run("readlink", f"/proc/{bed.show(unit, 'MainPID')}/cwd").strip()


def test_two_builds_are_the_same_bytes(tmp_path: Path, package: Path):
    again = build(tmp_path)
    assert again.name == package.name
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (package, again)]
    assert digests[0] == digests[1]


def test_lintian_has_nothing_to_say(package: Path):
    command = ["lintian", "--fail-on", "error,warning", "--tag-display-limit", "0", package]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout


def test_the_manual_knows_every_command(bare: Bed, fleet: Fleet):
    manual = bare.run("zcat", "/usr/share/man/man1/wa-agent.1.gz").replace("\\-", "-")
    listed = bare.run("/opt/wa-agent/venv/bin/python", "-I", "-c", LIST_COMMANDS).split("\n")
    assert len(listed) > 40
    for command in filter(None, listed):
        assert f"\n.B {command}\n" in manual, command


LIST_COMMANDS = """
import argparse
from agent.cli.command import build_parser

def walk(parser, before):
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not below:
        print(before.strip())
    for action in below:
        for name, command in action.choices.items():
            walk(command, f"{before} {name}")

walk(build_parser(), "")
"""


UNATTENDED = """
Unattended-Upgrade::Origins-Pattern { "origin=wa-agent"; };
Dpkg::Options { "--force-confold"; };
"""


def test_unattended_upgrades_take_it_from_the_repository(
    bare: Bed, fleet: Fleet, repository: Path, package: Path, tmp_path: Path
):
    runs = fleet.runs()
    worker = fleet.unit(fleet.ids[0])
    first = release_of(bare, worker)
    publish(next_version(package, tmp_path, "99.2", unchanged), repository)
    shutil.copytree(repository, bare.root / "srv/apt", dirs_exist_ok=True)
    succeed(apt(bare, "install", "unattended-upgrades"))
    bare.write("/etc/apt/apt.conf.d/52wa-agent", UNATTENDED)
    succeed(apt(bare, "update"))
    bare.run("unattended-upgrade", "--verbose", within=300)
    assert version(bare) == "99.2"
    fleet.until_connected(within=60)
    assert fleet.runs() == runs

    # Two versions on, a worker still finds the files of the version that it runs.
    bare.run("test", "-e", f"{first}/bin/python")
    bare.run("systemctl", "restart", worker)
    assert release_of(bare, worker) == bare.run("readlink", "/opt/wa-agent/venv").strip()
    fleet.until_connected(within=60)


@pytest.fixture
def undisturbed(fleet: Fleet) -> Iterator[None]:
    """Whatever the test does: no session restarts."""
    fleet.until_connected()
    runs = fleet.runs()
    yield
    fleet.until_connected()
    assert fleet.runs() == runs, "a session was restarted"


def still_runs(bed: Bed, expected: str, agent: str) -> None:
    """The agent of the older version was not even restarted, and would be what starts again."""
    assert bed.show(AGENT, "InvocationID") == agent
    assert version(bed) == expected
    assert f"wa-agent {expected}, " in bed.run("wa-agent", "--version")


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize(
    ("moment", "left"), [("unpack", debian.MIB), ("configure", 36 * debian.MIB)]
)
def test_a_full_disk_leaves_the_older_version_running(bare: Bed, newer, moment: str, left: int):
    before, agent = version(bare), bare.show(AGENT, "InvocationID")
    new = newer(unchanged)
    with full_disk(bare, left):
        done = dpkg(bare, "--install", new.path)
        assert done.returncode != 0
        assert ("No space left" in done.stderr) == (moment == "unpack"), done.stderr
        assert ("What ran\n  before keeps running" in done.stderr) == (moment == "configure")
        assert ("Setting up wa-agent" in done.stdout) == (moment == "configure"), done.stdout
        still_runs(bare, before, agent)
    again = ("--install", new.path) if moment == "unpack" else ("--configure", "-a")
    succeed(dpkg(bare, *again))
    assert version(bare) == new.version


@pytest.mark.usefixtures("undisturbed")
def test_an_upgrade_runs_nothing_of_the_service_on_roots_terminal(bare: Bed, newer):
    """Who runs on root's terminal types there."""
    new = newer(unchanged)
    done = on_a_terminal(bare, "/usr/bin/dpkg", "--install", new.path)
    assert done.status == 0, done.text
    assert any("config check" in line for line in done.seen)
    assert not done.on_terminal
    assert version(bare) == new.version


@pytest.mark.usefixtures("undisturbed")
def test_dpkg_killed_while_it_unpacks_leaves_the_older_version_running(bare: Bed, newer):
    before, agent = version(bare), bare.show(AGENT, "InvocationID")
    new = newer(unchanged)
    killer = threading.Thread(target=bare.run, args=("timeout", "120", "sh", "-c", KILL_DPKG))
    killer.start()
    done = dpkg(bare, "--install", new.path)
    killer.join()
    assert done.returncode == -9, done.stdout + done.stderr
    still_runs(bare, before, agent)
    succeed(dpkg(bare, "--install", new.path))
    assert version(bare) == new.version


KILL_DPKG = """\
until [ -e /opt/wa-agent/package/scripts/after-stop.dpkg-new ]; do :; done
kill -KILL $(pidof dpkg)
"""


KILL = 'if mkdir /run/killed-once 2>/dev/null; then kill -KILL "$PPID" $$; fi\n'


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize(
    "place",
    ["    ln -sfn ", "# Automatically added by dh_installsystemd"],
    ids=["before the switch", "after the switch"],
)
def test_dpkg_killed_while_it_configures_goes_on_later(bare: Bed, newer, place: str):
    before, agent = version(bare), bare.show(AGENT, "InvocationID")
    new = newer(lambda tree: insert_before(tree / "DEBIAN/postinst", place, KILL))
    bare.run("rm", "-rf", "/run/killed-once")
    assert dpkg(bare, "--install", new.path).returncode == -9
    assert bare.show(AGENT, "InvocationID") == agent
    assert version(bare) == before, "the older version runs"
    succeed(dpkg(bare, "--configure", "-a"))
    assert version(bare) == new.version


def insert_before(path: Path, place: str, text: str) -> None:
    before, found, after = path.read_text().partition(place)
    assert found, f"{path}: no {place!r}"
    path.write_text(f"{before}{text}{found}{after}")


def wants_a_missing_module(tree: Path) -> None:
    insert_before(program(tree) / "daemon/main.py", "import asyncio", "import not_there\n")


def refuses_the_settings(tree: Path) -> None:
    insert_before(
        program(tree) / "cli/agent.py",
        "import argparse",
        "import sys\nif 'check' in sys.argv:\n"
        "    print('start.stagger is unknown')\n    sys.exit(1)\n",
    )


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize(
    ("change", "said", "restarted"),
    [
        (refuses_the_settings, "start.stagger is unknown", False),
        (wants_a_missing_module, "the version before it runs again", True),
    ],
)
def test_a_version_that_cannot_run_leaves_the_one_before(
    bare: Bed, newer, change: debian.Change, said: str, restarted: bool
):
    before, agent = version(bare), bare.show(AGENT, "InvocationID")
    done = dpkg(bare, "--install", newer(change).path)
    assert done.returncode != 0
    assert said in done.stdout + done.stderr
    assert (bare.show(AGENT, "InvocationID") != agent) == restarted
    bare.until(lambda: Fleet(bare, ()).list())
    assert version(bare) == before
    releases = bare.run("ls", "/opt/wa-agent/releases").split()
    repaired = newer(unchanged)
    succeed(dpkg(bare, "--install", repaired.path))
    assert version(bare) == repaired.version
    assert len(bare.run("ls", "/opt/wa-agent/releases").split()) <= len(releases) + 1


@pytest.mark.usefixtures("undisturbed")
def test_a_downgrade_works_unless_the_database_is_too_new_for_it(bare: Bed, newer, package: Path):
    shutil.copy(package, bare.root / "srv")
    succeed(apt(bare, "install", "--allow-downgrades", f"/srv/{package.name}"))
    older = version(bare)
    assert older in package.name

    later = newer(adds_a_step_to_the_schema)
    succeed(apt(bare, "install", later.path))
    agent = bare.show(AGENT, "InvocationID")
    refused = apt(bare, "install", "--allow-downgrades", f"/srv/{package.name}")
    assert refused.returncode != 0
    assert f"schema 2, version {older} knows" in refused.stdout + refused.stderr
    still_runs(bare, later.version, agent)
    assert not bare.run("dpkg", "--audit")


def play(bed: Bed, repository: Path, folder: Path, *options: str) -> str:
    """Runs the role over ssh: sshd answers on its standard input, no port is opened."""
    ssh = f"nsenter -t {bed.init} -m -u -i -p -C -- /usr/sbin/sshd -i"
    settings = {
        "wa_agent_repository": "file:/srv/apt",
        "wa_agent_key": str(repository / "wa-agent.gpg"),
        "wa_agent_settings": OWN,
        "wa_agent_unattended": True,
        "ansible_ssh_private_key_file": str(folder / "key"),
        # A shared connection would need a socket whose path is too long below pytest's folder.
        "ansible_ssh_args": "-o ControlMaster=no -o ControlPath=none",
        "ansible_ssh_common_args": f'-F none -o "ProxyCommand={ssh}"'
        " -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ControlPersist=60",
        "ansible_pipelining": True,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    roles = [{"role": str(SOURCE / "systemd/ansible")}]
    (folder / "play.yml").write_text(
        json.dumps([{"hosts": "all", "gather_facts": False, "roles": roles}])
    )
    inventory = ("-i", "bare,", "-u", "root", "-e", f"@{folder}/settings.json")
    command = ["ansible-playbook", *inventory, *options, folder / "play.yml"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "HOME": str(folder), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def changes(output: str) -> int:
    found = re.search(r"changed=(\d+)", output)
    assert found, output
    return int(found[1])


def test_the_ansible_role_installs_it_and_changes_nothing_again(
    bare: Bed, repository: Path, tmp_path: Path
):
    apt(bare, "purge", "wa-agent", "unattended-upgrades")
    succeed(apt(bare, "update"))
    succeed(apt(bare, "install", "python3"))
    listed = bare.root / "etc/apt/sources.list.d/wa-agent.list"
    listed.unlink(missing_ok=True)
    key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"]
    subprocess.run(key, check=True, capture_output=True, timeout=60)
    own = bare.write("/root/.ssh/authorized_keys", (tmp_path / "key.pub").read_text(), 0o600)
    own.parent.chmod(0o700)
    bare.run("mkdir", "-p", "/run/sshd")

    assert changes(play(bare, repository, tmp_path, "--check", "--diff")) > 0
    assert not listed.exists(), "a check changes nothing"
    assert bare.try_run("test", "-e", "/opt/wa-agent").returncode == 1

    assert changes(play(bare, repository, tmp_path)) > 5
    assert version(bare)
    assert bare.show(AGENT, "UnitFileState") == "enabled"
    assert bare.run("cat", "/etc/wa-agent/agent.toml") == OWN
    assert bare.run("stat", "-c", "%U:%G %a", "/etc/wa-agent/agent.toml") == "root:wa-agent 640\n"
    assert changes(play(bare, repository, tmp_path)) == 0
