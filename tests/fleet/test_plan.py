"""The plan of a fleet makes members of etcd that take the fleet's machines and no one else."""

import os
import shutil
import ssl
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli.command import run
from agent.errors import InvalidRequest, Refused
from agent.fleet import plan
from agent.fleet.etcd import Etcd
from agent.fleet.store import Get, Put, StoreAway
from tests.lacking import lacks


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The members run; `machines`: their addresses."""
    if shutil.which("etcd") is None:
        lacks("there is no etcd")
    net = f"127.{os.getpid() % 250 + 1}.{os.getpid() // 250 % 250 + 1}"
    addresses = {name: f"{net}.{at}" for at, name in enumerate("abw", 1)}
    plan.plan("shops", addresses, tmp_path)
    processes = []
    for name in addresses:
        folder = tmp_path / name
        folder.mkdir()
        with tarfile.open(tmp_path / f"plan-{name}.tar") as archive:
            for member in archive:
                (folder / member.name).write_bytes(archive.extractfile(member).read())
        settings = (folder / "etcd").read_text().replace(plan.ETCD, str(folder))
        lines = settings.replace("/var/lib/etcd", str(folder)).splitlines()
        env = {**os.environ, **dict(line.split("=", 1) for line in lines)}
        with (folder / "log").open("wb") as log:
            processes.append(subprocess.Popen(["etcd"], env=env, stdout=log, stderr=log))
    yield addresses
    for process in processes:
        process.kill()
        process.wait()


async def test_three_planned_members_take_machines_of_the_fleet_only(
    tmp_path: Path, machines: dict[str, str]
) -> None:
    urls = [f"https://{address}:{plan.CLIENTS}" for address in machines.values()]
    tls = ssl.create_default_context(cafile=tmp_path / "a/ca.pem")
    stranger = Etcd(urls, ssl.create_default_context(cafile=tmp_path / "a/ca.pem"))
    tls.load_cert_chain(tmp_path / "a/machine.pem", tmp_path / "a/machine.key")
    etcd, end = Etcd(urls, tls), time.monotonic() + 30
    try:
        while True:
            try:
                assert (await etcd.commit([], [Put("wa/shops/x", b"1")])).committed
                break
            except StoreAway:
                assert time.monotonic() < end
        with pytest.raises(StoreAway):
            await stranger.read(Get("wa/shops/x"))
    finally:
        await etcd.close()
        await stranger.close()


def test_a_plan_replaces_nothing_and_names_what_it_cannot_take(tmp_path: Path) -> None:
    two = {"a": "10.0.0.1", "b": "10.0.0.2"}
    for bad in (
        {"a": "10.0.0.1"},
        {**two, "c": "10.0.0.2"},
        {**two, "c": "host"},
        {**two, "../c": "10.0.0.3"},
    ):
        with pytest.raises(InvalidRequest):
            plan.plan("shops", bad, tmp_path)
    assert not [*tmp_path.iterdir()]
    paths = plan.plan("shops", two, tmp_path)
    assert {path.name for path in paths} == {"plan-a.tar", "plan-b.tar", "ca.key"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in paths)
    with pytest.raises(Refused, match="exists"):
        plan.plan("shops", two, tmp_path)


def test_the_command_says_what_is_done_next(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for machines, status in ("a=10.0.0.1 a=10.0.0.2", 2), ("a 10.0.0.2", 2), ("a=::1 b=::2", 0):
        assert run(["fleet", "plan", *machines.split(), "--out", str(tmp_path)]) == status
    said = capsys.readouterr()
    assert ("NAME=ADDRESS" in said.err, "plan-b.tar" in said.out) == (True, True)
    assert "witness" in said.out.splitlines()[-1]
