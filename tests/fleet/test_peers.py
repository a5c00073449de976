"""The line between machines: who asks, and who answers, is as a certificate of the fleet says."""

import asyncio
import socket
import ssl
from pathlib import Path
from unittest.mock import Mock

import aiohttp
import pytest

from agent.core.model import InstanceId
from agent.errors import ConfigError, Refused, TryLater
from agent.fleet import join, plan
from agent.fleet.copies.change import Change, File, FleetKey, Sealed, seal
from agent.fleet.copies.standby import Standby
from agent.fleet.forward import TIMES
from agent.fleet.peers import Peers, Taken
from tests.conftest import Eventually
from tests.fleet.members import own_addresses
from tests.ports import free_port

ID = InstanceId("shop")


class Machine:
    def __init__(self, root: Path, name: str, host: str) -> None:
        self.name, self.folder = name, root / name
        self.folder.mkdir(exist_ok=True)
        self.key, self.address = FleetKey(b"k" * 32), f"{host}:{free_port()}"
        self.standby = Standby(self.folder / "standby", self.key)
        self.elsewhere, self.api, self.settings = {ID: "a"}.get, aiohttp.web.Application, self
        self.peers = Peers(self, self.standby)  # in place of Joined

    def change(self, number: int) -> Sealed:
        head = Sealed(ID, 1, number, True, "", b"")
        return seal(self.key, head, Change({"session/a": File(1, {0: b"x"})}))


def listens(machine: Machine) -> bool:
    host, _, port = machine.address.partition(":")
    with socket.socket() as it:
        return it.connect_ex((host, int(port))) == 0


@pytest.fixture
def machines(tmp_path: Path) -> dict[str, Machine]:
    """With certificates."""
    addresses = own_addresses("abc")
    plan.plan("shops", addresses, tmp_path)
    for name in addresses:
        join.put_keys(tmp_path / name, (tmp_path / f"plan-{name}.tar").read_bytes())
    return {name: Machine(tmp_path, name, address) for name, address in addresses.items()}


async def test_the_certificate_counts(machines: dict[str, Machine], eventually: Eventually) -> None:
    a, b, c = machines.values()
    serving = asyncio.create_task(b.peers.run())

    await eventually(lambda: listens(b))
    assert await a.peers.send(b.address, "b", [a.change(1)]) == [Taken("", 1, 1)]
    # It does not own the session, whatever its header says.
    c.name = "a"
    assert b.peers.asks(Mock(get_extra_info=lambda _: {})) == "", "its line was cut"
    assert await c.peers.send(b.address, "b", [c.change(2)]) == [Taken("not_owner", 1, 1)]
    assert await c.peers.get(b.address, "b", f"/copies/{ID}", tuple[int, int]) == (1, 1)
    with pytest.raises(Refused, match="no copy"):
        await a.peers.get(b.address, "b", "/copies/other", tuple[int, int])
    # It is not the machine that it answers for.
    with pytest.raises(TryLater, match="certificate"):
        await a.peers.send(b.address, "c", [a.change(2)])
    stranger = ssl.create_default_context(cafile=a.folder / "ca.pem")
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"https://{b.address}/copies/{ID}", ssl=stranger)
    serving.cancel()
    for it in machines.values():
        await it.peers.close()


async def test_without_certificates_only_loopback(tmp_path: Path, eventually: Eventually) -> None:
    with pytest.raises(ConfigError, match="only loopback"):
        await Machine(tmp_path, "far", "10.9.8.7").peers.run()
    a, b = (Machine(tmp_path, name, "127.0.0.1") for name in "ab")
    serving = asyncio.create_task(b.peers.run())
    async with aiohttp.ClientSession() as session:

        async def status(path: str, body: bytes | None = None) -> int:
            url, how = f"http://{b.address}/copies{path}", "GET" if body is None else "POST"
            async with session.request(how, url, data=body) as reply:
                return reply.status

        await eventually(lambda: listens(b))
        await a.peers.send(b.address, "b", [a.change(1)])
        await asyncio.gather(b.peers.run(), return_exceptions=True)
        assert b.peers.deaf.endswith("in use; make it free, or change [fleet] address")
        odd = ("/..%2fshop", "/%2e%2e", "/shop%00", "/shop/whole", f"/{'a' * 999}")
        assert [await status("", b"\xc1"), *{await status(path) for path in odd}] == [400, 404]
        assert {await status(it) for it in ("/shop", "/shop?whole=1")} == {200}
    # An answer is cut off: what was asked may have been done, and is not asked again.
    asked = list[bytes]()

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b" "))
        writer.close()

    c = Machine(tmp_path, "c", "127.0.0.1")
    async with await asyncio.start_server(cut, *c.address.split(":")):
        with pytest.raises(TryLater, match="machine c at"):
            await a.peers.ask(c.address, "c", "DELETE", "/api/instance/shop", TIMES)
    assert asked == [b"DELETE "]
    serving.cancel()
    await a.peers.close()
    with pytest.raises(TryLater, match="no connection"):  # its agent stops
        await a.peers.get(b.address, "b", f"/copies/{ID}", tuple[int, int])
