"""The address for other machines: TLS, a certificate that is read again, the usual guards."""

import asyncio
import shutil
import ssl
from pathlib import Path

import aiohttp
import pytest

from agent.api.http.certificate import Certificate
from agent.api.http.crowd import Stage
from agent.errors import ConfigError
from agent.fleet.peers import PeerAway, Peers
from tests.fleet.machines import BEARER, Address, AMachine, Fleet
from tests.standin.evolution.certificates import Certificates

Two = tuple[AMachine, AMachine]


async def serial(machine: AMachine, certificates: Certificates) -> int:
    """Of the certificate that a new connection is shown."""
    context = ssl.create_default_context(cafile=str(certificates.authority))
    host, _, port = machine.face.address.removeprefix("https://").rpartition(":")
    _reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    shown = writer.get_extra_info("peercert")
    writer.close()
    await writer.wait_closed()
    return int(shown["serialNumber"], 16)


async def test_the_same_interface_answers_at_the_address_for_machines(
    two: Two, certificates: Certificates
) -> None:
    machine = two[0]
    key = await machine.key("grafana", "read")
    context = ssl.create_default_context(cafile=str(certificates.authority))
    async with aiohttp.ClientSession(machine.face.address) as client:
        assert (await client.get("/api/instance/sales", ssl=context)).status == 401
        assert (await client.get("/api/instance/sales", ssl=context, headers=key)).status == 200
        foreign = {**key, "Host": "evil.example"}
        assert (await client.get("/api/fleet", ssl=context, headers=foreign)).status == 403
        old = ssl.create_default_context(cafile=str(certificates.authority))
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert (await client.get("/healthz", ssl=old)).status == 200
    assert machine.face.address in machine.server.addresses


async def test_plain_http_at_the_address_with_a_certificate_gets_nothing(two: Two) -> None:
    host, _, port = two[0].face.address.removeprefix("https://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(10):
        assert not (await reader.read()).startswith(b"HTTP")
    writer.close()


async def test_a_new_certificate_is_shown_after_a_reload_and_open_connections_go_on(
    fleet: Fleet, certificates: Certificates, tmp_path: Path
) -> None:
    for end in ("pem", "key"):
        shutil.copy(certificates.folder / f"good.{end}", certificates.folder / f"mine.{end}")
    machine = await fleet.add("m1", certificate="mine")
    before = await serial(machine, certificates)
    context = ssl.create_default_context(cafile=str(certificates.authority))
    async with aiohttp.ClientSession(machine.face.address) as client:
        assert (await client.get("/healthz", ssl=context)).status == 200
        for end in ("pem", "key"):
            shutil.copy(certificates.folder / f"other.{end}", certificates.folder / f"mine.{end}")
        (certificates.folder / "mine.key").write_text("no key")
        machine.server.reload_certificate()
        assert await serial(machine, certificates) == before, "half a pair is not taken"
        shutil.copy(certificates.folder / "fresh.key", certificates.folder / "mine.key")
        shutil.copy(certificates.folder / "fresh.pem", certificates.folder / "mine.pem")
        machine.server.reload_certificate()
        assert await serial(machine, certificates) != before
        assert (await client.get("/healthz", ssl=context)).status == 200


@pytest.mark.parametrize(
    ("certificate", "key"),
    [("good.pem", "other.key"), ("nothing.pem", "good.key"), ("good.key", "good.key")],
)
def test_files_that_do_not_fit_are_refused_by_name(
    certificates: Certificates, certificate: str, key: str
) -> None:
    folder = certificates.folder
    address = Address("127.0.0.1:0", str(folder / certificate), str(folder / key))
    with pytest.raises(ConfigError, match="cannot use the certificate") as refused:
        Certificate.of(address)
    assert refused.value.field == "fleet.certificate"


async def test_sessions_run_without_an_address_that_cannot_be_opened_and_get_it_later(
    fleet: Fleet, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    machine = await fleet.add("m1", certificate="later")
    listen = machine.face.address.removeprefix("https://")
    assert "cannot use the certificate" in caplog.text
    async with machine.local() as client:
        ready = await (await client.get("/readyz")).json()
        assert list(ready["not_listening"]) == [listen]
        for end in ("pem", "key"):
            shutil.copy(certificates.folder / f"good.{end}", certificates.folder / f"later.{end}")
        async with asyncio.timeout(20):
            await machine.server.get_missing_ports()
        assert await serial(machine, certificates)
        assert (await (await client.get("/readyz")).json())["not_listening"] == {}


async def test_a_ca_that_cannot_be_read_is_named_and_nothing_is_sent(
    fleet: Fleet, tmp_path: Path
) -> None:
    machine = await fleet.add("m1")
    await fleet.settle()
    row = machine.face.directory.machines["m1"]
    for ca in (tmp_path / "missing.pem", tmp_path):
        peers = Peers(BEARER, "m1", str(ca))
        with pytest.raises(PeerAway, match=ca.name):
            await peers.ask_promise(row, 1, 1)
        await peers.close()
    assert machine.face.asked == []
    peers = Peers(BEARER, "m1", machine.face.peers._ca)
    assert await peers.ask_promise(row, 1, 1)
    peers._ca = str(tmp_path / "missing.pem")
    peers.reload()
    assert await peers.ask_promise(row, 1, 1)
    await peers.close()


async def test_a_client_that_never_finishes_its_handshake_is_let_go(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.api.server._HANDSHAKE_SECONDS", 0.3)
    machine = await fleet.add("m1")
    host, _, port = machine.face.address.removeprefix("https://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    async with asyncio.timeout(15):
        assert await reader.read() == b""
    writer.close()


async def test_a_promise_is_given_while_other_requests_are_refused_for_their_number(
    fleet: Fleet,
) -> None:
    first, second = await fleet.add("m1"), await fleet.add("m2", connections_per_address=4)
    await second.own("shop")
    await fleet.settle()
    second.supervisor.gate.clear()
    places = second.server._entrance.limits
    async with first.local() as client:
        held = []
        for number in range(1, 5):
            sent = {"to": "1", "text": "hello"}
            asking = client.post("/api/instance/shop/messages", json=sent)
            held.append(asyncio.create_task(asking))
            async with asyncio.timeout(30):
                while places.count(Stage.REQUEST) < number:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        answer = await client.get("/api/instance/shop")
        assert (answer.status, (await answer.json())["error"]) == (503, "busy")
        row = first.face.directory.machines["m2"]
        assert await first.face.peers.ask_promise(row, 1, 7)
        second.supervisor.gate.set()
        assert [(await task).status for task in held] == [200] * 4
