"""The Debian package on a bare machine: installed, upgraded, removed, purged."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engines.web.browser.process import PACKAGES, SHELL
from tests.system.bed import SOURCE, Bed
from tests.system.debian import apt, build, edit, full_disk, make_debian, next_version, program
from tests.system.fleet import AGENT, Fleet, traffic
from tests.system.terminal import on_a_terminal

pytestmark = pytest.mark.timeout(900)


OWN = "# an operator's own\n[start]\nstagger = 0.1\n"


SESSIONS = int(os.environ.get("WA_PACKAGE_SESSIONS", "3"))


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


@pytest.fixture(scope="module")
def later(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A newer package, whose database has one more step."""
    folder = tmp_path_factory.mktemp("later")
    return next_version(package, folder, "99.1", adds_a_step_to_the_schema)


def publish(package: Path, repository: Path) -> None:
    command = [SOURCE / "scripts/packaging/repository", package, repository, ""]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def succeed(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dpkg(bed: Bed, *words: str) -> subprocess.CompletedProcess[str]:
    return bed.try_run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", *words, within=300)


def test_apt_installs_it_with_its_dependencies_on_a_bare_machine(bare: Bed, fleet: Fleet):
    assert bare.show(AGENT, "ActiveState") == "active"
    assert bare.show(AGENT, "UnitFileState") == "enabled"
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


def test_an_upgrade_drops_no_session_and_no_request(
    bare: Bed, fleet: Fleet, repository: Path, later: Path
):
    runs, accounts = fleet.runs(), fleet.accounts()
    publish(later, repository)
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


def adds_a_step_to_the_schema(tree: Path) -> None:
    edit(tree / "DEBIAN/preinst", r'known="1"', 'known="2"')
    edit(
        program(tree) / "store/database.py",
        r"(?m)^    \),\n\)",
        '    ),\n    ("later", "create table later (x)"),\n)',
    )


def test_removal_keeps_the_sessions_and_a_purge_moves_them_away(
    bare: Bed, fleet: Fleet, later: Path, package: Path
):
    accounts = fleet.accounts()
    succeed(apt(bare, "remove", "wa-agent"))
    assert set(fleet.states().values()) == {"inactive"}
    assert bare.try_run("test", "-e", "/opt/wa-agent").returncode == 1
    assert len(bare.run("ls", "/var/lib/wa-agent/sessions").split()) == SESSIONS
    # It was installed in another way meanwhile, and removed.
    shutil.copy(SOURCE / "scripts/uninstall", bare.root / "srv")
    bare.run("/srv/uninstall")
    for path in (package, later):
        shutil.copy(path, bare.root / "srv")
    assert "schema 2, version" in dpkg(bare, "--install", f"/srv/{package.name}").stderr
    unpack_over_a_fifo(bare, f"/srv/{later.name}")
    succeed(dpkg(bare, "--configure", "wa-agent"))
    fleet.until_connected(within=180)
    assert (fleet.accounts(), bare.show(AGENT, "UnitFileState")) == (accounts, "enabled")

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
    """A pipe that the service's user put in the database's place holds root's upgrade up by
    nothing."""
    database = "/var/lib/wa-agent/agent.db"
    bed.run("mv", database, f"{database}.test")
    bed.run("mkfifo", database, user="wa-agent")
    done = on_a_terminal(bed, "/usr/bin/dpkg", "--unpack", package)
    bed.run("mv", "-f", f"{database}.test", database)
    assert done.status == 0, done.text
    assert not done.seen, "root reads the four bytes itself"
