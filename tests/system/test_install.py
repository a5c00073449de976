"""Installing on a running machine, and taking it away again: nothing of a session is lost."""

from collections.abc import Iterator

import pytest

from tests.system.bed import CHECKOUT, Bed, free_port
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
