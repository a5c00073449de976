"""Two hosts in one agent, one for the instances and one for the backends: neither sees the other.

Both kinds have a worker of the same name here, which is what a mistake would mix up first.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agent.core.model import InstanceId
from agent.host.process.host import ProcessHost
from agent.host.systemd.enabled_units import read_unit_files
from agent.host.units import BACKENDS, INSTANCES
from tests.host.short_limits import FAST, STANDIN

GOOD = InstanceId("good")


class Pair:
    """One agent's two hosts."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.woken: list[str] = []
        self.hosts: list[ProcessHost] = []

    async def open(self) -> tuple[ProcessHost, ProcessHost]:
        return await self._one(INSTANCES, "run", "sessions"), await self._one(
            BACKENDS, "run-backends", "backends"
        )

    async def _one(self, kind, run, root) -> ProcessHost:
        host = await ProcessHost.open(
            lambda id: self.woken.append(f"{kind.prefix}{id}"),
            self.place / run,
            self.place / root,
            FAST,
            kind,
            program=[str(STANDIN)],
        )
        self.hosts.append(host)
        return host


@pytest_asyncio.fixture
async def pair(tmp_path) -> AsyncIterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    for host in pair.hosts:
        await host.close(leave_workers=False)


def words_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0")[2:-1]  # python -P


async def test_both_kinds_of_workers_start_with_their_own_command_and_folders(pair, tmp_path):
    instances, backends = await pair.open()
    for host in (instances, backends):
        await host.start(GOOD)
    one, other = await instances.status(GOOD), await backends.status(GOOD)
    assert one.main_pid != other.main_pid and one.run != other.run
    assert words_of(one.main_pid)[1:] == ["good"]
    assert words_of(other.main_pid)[1:] == ["--backend", "good"]
    assert instances.link_path(GOOD) == tmp_path / "run/good/link.sock"
    assert backends.link_path(GOOD) == tmp_path / "run-backends/good/link.sock"
    environment = Path(f"/proc/{other.main_pid}/environ").read_text(encoding="utf-8").split("\0")
    assert f"WA_SESSION_ROOT={tmp_path / 'backends'}" in environment
    assert f"RUNTIME_DIRECTORY={tmp_path / 'run-backends/good'}" in environment
    assert set(pair.woken) == {"wa-instance@good", "wa-backend@good"}


@pytest.mark.parametrize("kind", [INSTANCES, BACKENDS], ids=lambda kind: kind.prefix)
def test_enabled_and_masked_units_are_read_by_kind(kind, tmp_path):
    wants = tmp_path / "multi-user.target.wants"
    wants.mkdir()
    for each in (INSTANCES, BACKENDS):
        (wants / each.unit(each.prefix[:4])).symlink_to("/x")
        (tmp_path / each.unit("masked")).symlink_to("/dev/null")
    (wants / kind.unit("mine")).symlink_to("/x")
    found = read_unit_files([tmp_path], kind)
    assert found.enabled == {kind.prefix[:4], "mine"}
    assert found.masked == {"masked"}
