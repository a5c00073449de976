"""The Debian package on a bare machine: installed, upgraded, broken off, removed, purged."""

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.engines.web.browser.arguments import PACKAGES, SHELL
from tests.system.bed import SOURCE, Bed
from tests.system.debian import apt, build, edit, full_disk, make_debian, next_version, program
from tests.system.fleet import AGENT, Fleet, connect, traffic
from tests.system.terminal import on_a_terminal

pytestmark = pytest.mark.timeout(900)

OWN = "# an operator's own\n[start]\nstagger = 0.1\nspread = 0.0\n"
SESSIONS = int(os.environ.get("WA_PACKAGE_SESSIONS", "8"))
MIB = 1024 * 1024
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Path:
    folder = tmp_path_factory.mktemp("repository") / "apt"
    publish(package, folder)
    return folder


@pytest.fixture(scope="module")
def bare(repository: Path) -> Iterator[Bed]:
    """A minimal Debian that knows the repository."""
    bed = make_debian()
    try:
        keyring = bed.root / "etc/apt/keyrings/wa-agent.gpg"
        keyring.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repository / "wa-agent.gpg", keyring)
        signed = "[signed-by=/etc/apt/keyrings/wa-agent.gpg]"
        bed.write("/etc/apt/sources.list.d/wa-agent.list", f"deb {signed} file:/srv/apt ./\n")
        shutil.copytree(repository, bed.root / "srv/apt")
        bed.boot()
        yield bed
    finally:
        bed.close()


@pytest.fixture(scope="module")
def fleet(bare: Bed) -> Fleet:
    """The package is installed, its sessions are connected."""
    succeed(apt(bare, "update"))
    succeed(apt(bare, "install", "wa-agent"))
    bare.write("/etc/wa-agent/agent.toml", OWN, mode=0o640)
    bare.run("systemctl", "restart", AGENT)
    fleet = Fleet(bare, tuple(f"s{number}" for number in range(SESSIONS)))
    for id in fleet.ids:
        fleet.cli("create", id, "--engine", "sandbox")
    fleet.until_connected(within=180)
    return fleet


@dataclass(frozen=True)
class Newer:
    version: str
    path: str
    """On the machine."""


NUMBERS = itertools.count(1)


@pytest.fixture
def newer(package: Path, tmp_path: Path, bare: Bed) -> Callable[[Change], Newer]:
    """Makes a changed package, each newer than the one before."""

    def make(change: Change) -> Newer:
        version = f"100.{next(NUMBERS)}"
        made = next_version(package, tmp_path, version, change)
        shutil.copy(made, bare.root / "srv")
        return Newer(version, f"/srv/{made.name}")

    return make


def publish(package: Path, repository: Path) -> None:
    command = [SOURCE / "scripts/packaging/repository", package, repository, ""]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def succeed(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def unchanged(tree: Path) -> None:
    """The same program under another version."""


def dpkg(bed: Bed, *words: str) -> subprocess.CompletedProcess[str]:
    return bed.try_run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", *words, within=300)


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


def test_apt_installs_it_with_its_dependencies_on_a_bare_machine(bare: Bed, fleet: Fleet):
    assert bare.show(AGENT, "ActiveState") == "active"
    assert bare.show(AGENT, "UnitFileState") == "enabled"
    assert "wa-repair" not in bare.run("systemctl", "list-units", "--type=timer")
    assert bare.run("stat", "-c", "%U:%G %a", "/etc/wa-agent/agent.toml") == "root:wa-agent 640\n"
    doctor = bare.try_run("wa-agent", "doctor")
    problems = [line for line in doctor.stdout.splitlines() if line.startswith("FAIL")]
    assert not problems, doctor.stdout
    assert "built from" in bare.run("wa-agent", "--version")
    # A browser is hundreds of packages, and only the web engine needs one.
    shown = bare.run("dpkg-query", "-W", "-f", "${Recommends}|${Suggests}", "wa-agent")
    assert shown == f"|{PACKAGES[SHELL]}, fonts-liberation"
    for path in re.findall(
        r"`(/(?:opt|etc|var|run)/[\w./-]+)`", (SOURCE / "README.md").read_text()
    ):
        assert bare.try_run("test", "-e", path).returncode == 0, f"README names {path}"
    bare.run("/opt/wa-agent/venv/bin/python", "-I", "-c", "import agent.fleet.postgres.coordinator")


def test_the_manual_knows_every_command(bare: Bed, fleet: Fleet):
    manual = bare.run("zcat", "/usr/share/man/man1/wa-agent.1.gz").replace("\\-", "-")
    listed = bare.run("/opt/wa-agent/venv/bin/python", "-I", "-c", LIST_COMMANDS).split("\n")
    assert len(listed) > 40
    for command in filter(None, listed):
        assert f"\n.B {command}\n" in manual, command


LIST_COMMANDS = """
import argparse
from agent.cli.main import build_parser

def walk(parser, before):
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not below:
        print(before.strip())
    for action in below:
        for name, command in action.choices.items():
            walk(command, f"{before} {name}")

walk(build_parser(), "")
"""


def test_an_upgrade_drops_no_session_and_no_request(
    bare: Bed, fleet: Fleet, repository: Path, package: Path, tmp_path: Path
):
    runs, accounts = fleet.runs(), fleet.accounts()
    publish(next_version(package, tmp_path, "99.1", unchanged), repository)
    shutil.copytree(repository, bare.root / "srv/apt", dirs_exist_ok=True)
    with traffic(bare, upgrade=True) as seen:
        succeed(apt(bare, "update"))
        succeed(apt(bare, "upgrade"))
        assert "wa-agent 99.1, built from " in bare.run("wa-agent", "--version")
        fleet.until_connected(within=60)
    assert seen.answered > 50
    assert not seen.lost, seen.lost[:3]
    assert fleet.runs() == runs, "no session was restarted"
    assert fleet.accounts() == accounts
    assert bare.run("cat", "/etc/wa-agent/agent.toml") == OWN


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


# Upgrades that fail


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
@pytest.mark.parametrize(("moment", "left"), [("unpack", MIB), ("configure", 36 * MIB)])
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


# New files are renamed to their names when all are there.
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
        program(tree) / "cli/config.py",
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
    bare: Bed, newer, change: Change, said: str, restarted: bool
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


def adds_a_step_to_the_schema(tree: Path) -> None:
    edit(tree / "DEBIAN/preinst", r'known="3"', 'known="4"')
    edit(
        program(tree) / "store/migrations.py",
        r"(?m)^    Migration\(\"a checksum for each row\", add_sums\),\n",
        '    Migration("a checksum for each row", add_sums),\n'
        '    Migration("later", lambda db: db.execute("create table later (x)")),\n',
    )


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
    assert f"schema 4, version {older} knows" in refused.stdout + refused.stderr
    still_runs(bare, later.version, agent)
    assert not bare.run("dpkg", "--audit")


# The end


def test_removal_keeps_the_sessions_and_a_purge_moves_them_away(
    bare: Bed, fleet: Fleet, newer, package: Path
):
    accounts = fleet.accounts()
    later = newer(adds_a_step_to_the_schema)
    succeed(dpkg(bare, "--install", later.path))
    fleet.until_connected()
    succeed(apt(bare, "remove", "wa-agent"))
    assert set(fleet.states().values()) == {"inactive"}
    assert bare.try_run("test", "-e", "/opt/wa-agent").returncode == 1
    assert len(bare.run("ls", "/var/lib/wa-agent/sessions").split()) == SESSIONS
    shutil.copy(package, bare.root / "srv")
    refused = dpkg(bare, "--install", f"/srv/{package.name}")
    assert "schema 4, version" in refused.stderr
    unpack_over_a_fifo(bare, later.path)
    succeed(dpkg(bare, "--configure", "wa-agent"))
    fleet.until_connected(within=180)
    assert fleet.accounts() == accounts

    succeed(apt(bare, "remove", "wa-agent"))
    with full_disk(bare, left=0):
        dpkg(bare, "--purge", "wa-agent")
        states = bare.run("sh", "-c", "ls -d /var/lib/wa-agent/ /var/backups/wa-agent.*/state; :")
        (state,) = states.split()
        assert len(bare.run("ls", f"{state}/sessions").split()) == SESSIONS
    succeed(apt(bare, "purge", "wa-agent"))
    assert bare.try_run("test", "-e", "/var/lib/wa-agent").returncode == 1
    (backup,) = bare.run("sh", "-c", "ls -d /var/backups/wa-agent.*").split()
    assert bare.run("ls", f"{backup}/state/sessions/s1/session").split() == ["sandbox.json"]
    assert bare.run("cat", f"{backup}/settings/agent.toml") == OWN
    assert bare.run("stat", "-c", "%a", backup).strip() == "700"


def unpack_over_a_fifo(bed: Bed, package: str) -> None:
    """What the service's user put in the database's place holds up nothing on root's terminal."""
    database = "/var/lib/wa-agent/agent.db"
    bed.run("mv", database, f"{database}.test")
    bed.run("mkfifo", database, user="wa-agent")
    done = on_a_terminal(bed, "/usr/bin/dpkg", "--unpack", package)
    bed.run("mv", "-f", f"{database}.test", database)
    assert done.status == 0, done.text
    assert not done.seen, "root reads the four bytes itself"


# The Ansible role, on the machine that the purge left empty


def play(bed: Bed, repository: Path, folder: Path, *options: str) -> str:
    """Runs the role over ssh: sshd answers on its standard input, no port is opened."""
    ssh = f"nsenter -t {bed.init} -m -u -i -p -C -- /usr/sbin/sshd -i"
    settings = {
        "wa_agent_repository": "file:/srv/apt",
        "wa_agent_key": str(repository / "wa-agent.gpg"),
        "wa_agent_settings": OWN,
        "wa_agent_unattended": True,
        "ansible_ssh_private_key_file": str(folder / "key"),
        # Its shared connection would need a socket whose path is too long below pytest's folder.
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
