"""Installing again where it runs: what it must leave alone, and whom it must not follow."""

from collections.abc import Iterator

import pytest

from agent.engines.web.fetch import bundle_path
from tests.system.bed import CHECKOUT, SOURCE, Bed
from tests.system.conftest import PYTHON
from tests.system.fleet import AGENT


def test_a_prefix_that_cannot_work_is_refused(bed: Bed):
    for arguments in (["--prefix", "/home/x"], ["--prefix"]):
        done = bed.try_run(CHECKOUT / "scripts/install", *arguments)
        assert done.returncode == 1
        assert "scripts/install: " in done.stderr


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
    # A boot does the first as root; a person does the second, by our advice.
    bed.run("systemd-tmpfiles", "--create", "/usr/local/lib/tmpfiles.d/wa-agent.conf")
    bed.try_run(PYTHON, "-m", "agent.engines.web.fetch", f"{STATE}/cache", within=300)
    assert bed.run("sh", "-c", LOOK) == before
    # The agent itself cannot write there; systemd, which makes its state folder, must not either.
    bed.try_run("systemctl", "start", AGENT, within=120)
    bed.run("systemctl", "stop", AGENT, within=120)
    bed.try_run("systemctl", "reset-failed", AGENT)
    assert bed.run("sh", "-c", LOOK) == before
