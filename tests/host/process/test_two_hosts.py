"""Two hosts in one agent, one for the instances and one for the backends: neither sees the other.

Both kinds have a worker of the same name here, which is what a mistake would mix up first.
"""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agent.config.sections import WorkerSection
from agent.core.model import InstanceId, UnitState
from agent.host import choose
from agent.host.process.host import ProcessHost
from agent.host.process.run_file import read_note
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


async def test_an_event_of_one_kind_of_worker_does_not_reach_the_other_kind(pair, eventually):
    instances, backends = await pair.open()
    for host in (instances, backends):
        await host.start(GOOD)
    calm = await instances.status(GOOD)
    pid = (await backends.status(GOOD)).main_pid
    pair.woken.clear()
    os.kill(pid, signal.SIGKILL)

    async def back():
        status = await backends.status(GOOD)
        return (status.state, status.result, status.restarts)

    await eventually(back, (UnitState.ACTIVE, "signal", 1))
    await backends.stop(GOOD)
    assert await backends.list() == {}
    assert await instances.status(GOOD) == calm
    assert "wa-instance@good" not in pair.woken


async def test_the_next_agent_adopts_both_and_replaces_the_strays_of_both(
    pair, tmp_path, eventually
):
    locker = InstanceId("locker")
    for root in ("sessions", "backends"):
        (tmp_path / root / "locker").mkdir(parents=True)
    earlier = await pair.open()
    before = []
    for host in earlier:
        for id in (GOOD, locker):
            await host.start(id)
        before.append((await host.status(GOOD), await host.status(locker)))
        await host.close(leave_workers=True)
    pair.hosts.clear()
    for run in ("run", "run-backends"):
        assert read_note(tmp_path / run / "locker") is not None
        (tmp_path / run / "locker" / "run.json").unlink()
    for host, (good, stray) in zip(await pair.open(), before, strict=True):
        adopted = await host.status(GOOD)
        assert (adopted.run, adopted.main_pid) == (good.run, good.main_pid)

        async def replaced(host=host, stray=stray):
            status = await host.status(locker)
            return status.state == "active" and status.main_pid != stray.main_pid

        await eventually(replaced, True)


async def test_the_second_kind_follows_the_choice_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(choose, "BOOTED_BY_SYSTEMD", tmp_path / "absent")
    host = await choose.open_host(
        "auto",
        lambda _: None,
        run_dir=tmp_path / "run-backends",
        session_root=tmp_path / "backends",
        worker=WorkerSection(),
        kind=BACKENDS,
    )
    assert host.name == "process"
    await host.close(leave_workers=False)


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
