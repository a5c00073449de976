"""Which sessions need a lease is in their files, and stays there until the machine leaves."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core.model import Instance, InstanceId
from agent.errors import VaultError
from agent.store.database import Store
from agent.supervise import registry as its
from agent.supervise.passes.act import set_aside
from agent.supervise.registry import Registry
from agent.supervise.start_up import load_instances
from agent.vault.identity import Identity, read_identity, replace_identity
from tests.conftest import Eventually

SALES, REMOTE = InstanceId("sales"), InstanceId("remote")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = await Store.open(tmp_path / "agent.db")
    yield made
    await made.close()


@pytest.fixture
async def registry(store: Store, tmp_path: Path) -> Registry:
    """Of a machine without a fleet: a local session, and one of a backend."""
    made = Registry(store, None, tmp_path / "sessions")
    await made.create(Instance(SALES, "sandbox", True), "made")
    await made.create(Instance(REMOTE, "evolution", True, {"backend": "evo"}), "made")
    return made


def in_file(tmp_path: Path, id: InstanceId = SALES) -> bool:
    return read_identity(tmp_path / "sessions" / id).instance.leased


async def test_a_machine_joins_and_leaves(registry: Registry, tmp_path: Path) -> None:
    assert not in_file(tmp_path)
    await registry.set_leased(True)
    assert in_file(tmp_path) and not in_file(tmp_path, REMOTE)
    assert not registry.facts[REMOTE].instance.leased
    await registry.create(Instance(InstanceId("desk"), "sandbox", True), "made")
    assert in_file(tmp_path, InstanceId("desk"))
    await registry.set_leased(False)
    assert not in_file(tmp_path)


async def test_a_file_that_cannot_say_so_keeps_the_machine_out(
    registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "sessions" / SALES).rename(tmp_path / "elsewhere")
    with pytest.raises(VaultError, match="sales"):
        await registry.set_leased(True)


async def test_what_a_pass_finds_meanwhile_keeps_no_machine_in_its_fleet(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registry.set_leased(True)
    facts = registry.facts[SALES]

    def paired_meanwhile(root: Path, identity: Identity) -> None:
        replace_identity(root, identity)
        facts.record = replace(facts.record, paired=True)
        facts.saved.identity_behind = True

    monkeypatch.setattr(its, "replace_identity", paired_meanwhile)
    await registry.set_leased(False)
    assert not in_file(tmp_path)
    assert facts.saved.identity_behind, "the pass writes what it found"


async def test_a_session_that_is_deleted_meanwhile_keeps_no_machine_in_its_fleet(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture, eventually: Eventually
) -> None:
    await registry.set_leased(True)
    facts = registry.facts[SALES]
    async with facts.busy:
        (tmp_path / "sessions" / SALES).rename(tmp_path / "trash")
        leaving = asyncio.create_task(registry.set_leased(False))
        await eventually(lambda: "cannot write its identity file" in caplog.text)
        registry.drop(facts)
    await leaving


async def test_an_agent_without_a_fleet_takes_no_fence_off(
    registry: Registry, store: Store, tmp_path: Path
) -> None:
    await registry.set_leased(True)
    await registry.save(registry.facts[SALES])  # the database is as new as the file
    later = Registry(store, None, tmp_path / "sessions")
    await load_instances(later, store, tmp_path / "sessions", [])
    facts = later.facts[SALES]
    assert facts.instance.leased
    assert later.tenure.wait_reason(facts) == "no_lease"
    facts.record = replace(facts.record, paired=True)
    await later.save(facts)
    assert in_file(tmp_path)


async def test_a_session_that_is_set_aside_stays_fenced(registry: Registry, tmp_path: Path) -> None:
    await registry.set_leased(True)
    set_aside(tmp_path / "sessions", registry.facts[SALES], "needs_scan")
    assert in_file(tmp_path)
