"""The Debian package: built, put into a repository, installed, upgraded, removed, purged by apt."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.bed import SOURCE, Bed, free_port
from tests.system.fleet import AGENT, Fleet, traffic

pytestmark = pytest.mark.timeout(900)

NEXT = "99.1.0"
OWN = "# an operator's own\n[start]\nstagger = 0.1\nspread = 0.0\n"
SESSIONS = int(os.environ.get("WA_PACKAGE_SESSIONS", "8"))


def build(out: Path, *more: str) -> Path:
    command = [SOURCE / "scripts/package", "--out", out, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(done.stdout.splitlines()[0])


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Path:
    """Signed; it holds this version."""
    folder = tmp_path_factory.mktemp("repository") / "apt"
    key = [SOURCE / "scripts/packaging/repository", package, folder, ""]
    subprocess.run(key, check=True, capture_output=True, timeout=120)
    return folder


@pytest.fixture(scope="module")
def bare(repository: Path) -> Iterator[Bed]:
    """A booted Debian whose only source of packages is that repository."""
    bed = Bed.make()
    try:
        # An image's own ban on starting services would hold for the package, too.
        (bed.root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
        sources = bed.root / "etc/apt"
        for path in (sources / "sources.list", sources / "sources.list.d"):
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
        shutil.copytree(repository, bed.root / "srv/apt")
        keyring = bed.root / "etc/apt/keyrings/wa-agent.gpg"
        keyring.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repository / "wa-agent.gpg", keyring)
        signed = "[signed-by=/etc/apt/keyrings/wa-agent.gpg]"
        bed.write("/etc/apt/sources.list.d/wa-agent.list", f"deb {signed} file:/srv/apt ./\n")
        bed.port = free_port()
        bed.write(
            "/etc/systemd/system/wa-agent-http.socket.d/bed.conf",
            f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{bed.port}\n",
        )
        bed.boot()
        yield bed
    finally:
        bed.close()


def apt(bed: Bed, *words: str) -> str:
    quiet = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-q")
    # apt's own user cannot read a repository that lies in a file of root's.
    return bed.run(*quiet, "-o", "APT::Sandbox::User=root", *words, within=300)


def test_two_builds_are_the_same_bytes(tmp_path: Path, package: Path):
    again = build(tmp_path)
    assert again.name == package.name
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (package, again)]
    assert digests[0] == digests[1]


def test_lintian_has_nothing_to_say(package: Path):
    command = ["lintian", "--fail-on", "error,warning", "--tag-display-limit", "0", package]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout


def test_its_whole_life_on_one_machine(bare: Bed, repository: Path, tmp_path: Path):
    apt(bare, "update")
    apt(bare, "install", "--no-install-recommends", "wa-agent")
    assert bare.show(AGENT, "ActiveState") == "active"
    assert bare.show(AGENT, "UnitFileState") == "enabled"
    assert "wa-repair" not in bare.run("systemctl", "list-units", "--type=timer")
    assert bare.run("man", "--path", "wa-agent").strip().endswith("wa-agent.1.gz")
    assert bare.run("stat", "-c", "%U:%G %a", "/etc/wa-agent/agent.toml") == "root:wa-agent 640\n"
    doctor = bare.try_run("wa-agent", "doctor")
    problems = [line for line in doctor.stdout.splitlines() if line.startswith("FAIL")]
    assert not problems, doctor.stdout
    assert "built from" in bare.run("wa-agent", "--version")

    fleet = Fleet(bare, tuple(f"s{number}" for number in range(SESSIONS)))
    bare.write("/etc/wa-agent/agent.toml", OWN, mode=0o640)
    bare.run("chgrp", "wa-agent", "/etc/wa-agent/agent.toml")
    bare.run("systemctl", "restart", AGENT)
    for id in fleet.ids:
        fleet.cli("create", id, "--engine", "sandbox")
    fleet.until_connected(within=180)
    runs, accounts = fleet.runs(), fleet.accounts()

    newer = build(tmp_path, "--version", NEXT)
    add = [SOURCE / "scripts/packaging/repository", newer, repository, ""]
    subprocess.run(add, check=True, capture_output=True, timeout=120)
    shutil.copytree(repository, bare.root / "srv/apt", dirs_exist_ok=True)
    with traffic(bare) as seen:
        apt(bare, "update")
        apt(bare, "upgrade")
        assert f"wa-agent {NEXT}, built from " in bare.run("wa-agent", "--version")
        fleet.until_connected(within=60)
    assert seen.answered > 50
    assert not seen.lost, seen.lost[:3]
    assert fleet.runs() == runs, "no session was restarted"
    assert fleet.accounts() == accounts
    assert bare.run("cat", "/etc/wa-agent/agent.toml") == OWN

    apt(bare, "remove", "wa-agent")
    assert set(fleet.states().values()) == {"inactive"}
    assert bare.try_run("test", "-e", "/opt/wa-agent").returncode == 1
    assert len(bare.run("ls", "/var/lib/wa-agent/sessions").split()) == SESSIONS
    apt(bare, "install", "--no-install-recommends", "wa-agent")
    fleet.until_connected(within=180)
    assert fleet.accounts() == accounts

    apt(bare, "purge", "wa-agent")
    assert bare.try_run("test", "-e", "/var/lib/wa-agent").returncode == 1
    (backup,) = bare.run("sh", "-c", "ls -d /var/backups/wa-agent.*").split()
    assert bare.run("ls", f"{backup}/state/sessions/s1/session").split() == ["sandbox.json"]
    assert bare.run("stat", "-c", "%a", backup).strip() == "700"
