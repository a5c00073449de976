"""The plan of a fleet makes members of etcd that take the fleet's machines and no one else."""

import os
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import aclosing, suppress
from pathlib import Path
from unittest.mock import Mock

import pytest

from agent.cli.command import run
from agent.errors import HostError, NotFound, Refused
from agent.fleet import join, plan
from agent.fleet.etcd import Etcd, Get, Put, StoreAway
from agent.fleet.peers import tls_of
from tests.conftest import Eventually
from tests.fleet.members import Members, needs_etcd, own_addresses

ADDRESSES = own_addresses("abwde")


class Planned(Members):
    def start(self, name: str) -> None:
        """As its plan says."""
        folder, content = self._root / name, (self._root / f"plan-{name}.tar").read_bytes()
        join.put_keys(folder, content)
        env = dict(os.environ)
        for what, value in plan.settings_of(plan.unpack(content)).items():
            env[what] = value.replace(plan.ETCD, str(folder)).replace("/var/lib/etcd", str(folder))
        with (folder / "log").open("wb") as log:
            self._processes[name] = subprocess.Popen(["etcd"], env=env, stdout=log, stderr=log)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Planned]:
    needs_etcd()
    made = Planned(tmp_path, {})
    plan.plan("shops", {name: ADDRESSES[name] for name in "abw"}, tmp_path)
    for name in "abw":
        made.start(name)
    yield made
    for name in made._processes:
        made.kill(name)


async def written(etcd: Etcd) -> bool:
    with suppress(StoreAway):
        return (await etcd.commit([], [Put("wa/shops/x", b"1")])).committed
    return False


async def names(etcd: Etcd) -> set[str]:
    return {it.name for it in await etcd.members()}


async def test_planned_members_take_machines_of_the_fleet_only_and_are_replaced(
    tmp_path: Path, machines: Planned, eventually: Eventually
) -> None:
    urls = [f"https://{ADDRESSES[name]}:{plan.CLIENTS}" for name in "abw"]
    tls = tls_of(tmp_path / "a"), ssl.create_default_context(cafile=tmp_path / "a/ca.pem")
    async with aclosing(Etcd(urls, tls[0])) as etcd, aclosing(Etcd(urls, tls[1])) as stranger:
        await eventually(lambda: written(etcd))
        with pytest.raises(StoreAway):
            await stranger.read(Get("wa/shops/x"))
        for old, at, cause in (("x", "d", "has no"), ("b", "d", "runs"), ("a", "w", "ress of w")):
            with pytest.raises((NotFound, Refused), match=f"cannot replace {old}: .*{cause}"):
                await plan.replace(tmp_path, old, "d", ADDRESSES[at])
        machines.kill("a")
        store = await plan.replace(tmp_path, "a", "d", ADDRESSES["d"])
        with pytest.raises(Refused, match=r"plan-d\.tar exists; use it as it is"):
            await plan.replace(tmp_path, "a", "d", ADDRESSES["d"])
        (tmp_path / "plan-d.tar").unlink()  # as if it had been cut off
        assert await plan.replace(tmp_path, "a", "d", ADDRESSES["d"]) == store
        assert {*store} == {*urls[1:], f"https://{ADDRESSES['d']}:{plan.CLIENTS}"}
        # It never starts.
        await plan.replace(tmp_path, "d", "e", ADDRESSES["e"])
        with pytest.raises(NotFound, match=r"a: etcd has no member of that name, but .*w \("):
            await plan.replace(tmp_path, "a", "f", ADDRESSES["d"])
        plans = [plan.unpack((tmp_path / f"plan-{name}.tar").read_bytes()) for name in "be"]
        assert len({plan.settings_of(it)["ETCD_INITIAL_CLUSTER_TOKEN"] for it in plans}) == 1
        machines.start("e")
        machines.kill("b")
        await eventually(lambda: written(etcd))  # with w alone there would be no quorum
        await eventually(lambda: names(etcd), {"b", "w", "e"})


def test_a_plan_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two, full = {"a": "10.0.0.1", "b": "10.0.0.2"}, OSError(28, "No space left")
    with monkeypatch.context() as it, pytest.raises(HostError, match=r"write .*/plan-a\.tar: No"):
        it.setattr(os, "fsync", Mock(side_effect=full))
        plan.plan("shops", two, tmp_path)
    with monkeypatch.context() as it, pytest.raises(HostError, match="cannot run openssl: "):
        it.setenv("PATH", "")
        plan.plan("shops", two, tmp_path)
    assert not [*tmp_path.iterdir()]
    paths = plan.plan("shops", two, tmp_path)
    assert {path.name for path in paths} == {"plan-a.tar", "plan-b.tar", "ca.key"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in paths)
    with pytest.raises(Refused, match="exists"):
        plan.plan("shops", two, tmp_path)


def test_the_command_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bad = "b=10.0.0.1 a=10.0.0.2 ../a=10.0.0.1 a a=host a=0.0.0.0 a=:: a=::1 a=127.0.0.2 a=fe80::1"
    for machine in f"{bad} a=fd00::1%lo a=224.0.0.1 a=255.255.255.255 a=::ffff:127.0.0.1".split():
        machines = (machine, "b=10.0.0.2", "c=10.0.0.3")
        assert run(["fleet", "plan", *machines, "--out", str(tmp_path)]) == 2
        assert "instance" not in (said := capsys.readouterr().err)
        assert ("of its own" if "10.0.0." in machine else repr(machine)) in said or "../a" in said
    assert run(["fleet", "plan", "a=10.0.0.1", "--out", str(tmp_path)]) == 2
    assert run(["fleet", "store", "replace", "a", "d=10.0.0.4", "--plans", str(tmp_path)]) == 4
    assert "member" not in capsys.readouterr().err, "it changes nothing"
    assert run(["fleet", "plan", "a=fd00::1", "b=fd00::2", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert ("plan-b.tar" in said, "witness" in said.splitlines()[-1]) == (True, True)
