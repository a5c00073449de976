"""Opening and closing: whose socket it is, who holds the port, what is in flight."""

import asyncio
import http.client
import os
import socket
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from agent.api.server import Server, bind_tcp, bind_unix
from agent.config.config import ApiSection
from agent.core.model import InstanceId
from agent.errors import ConfigError, TryLater
from agent.metrics.exporter import Exporter
from tests.api.conftest import House, OpenHouse, serve_fakes
from tests.conftest import Eventually
from tests.fakes.supervisor import FakeKeys, FakeSupervisor, make_view
from tests.ports import free_port


def test_f79_the_unix_socket_is_for_its_user_and_group_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        sock = bind_unix(tmp_path / "api.sock")
    finally:
        os.umask(before)
    found = (tmp_path / "api.sock").stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o660
    sock.close()


def test_a_stale_socket_is_replaced_and_a_living_one_never(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    first = bind_unix(path)
    with pytest.raises(TryLater, match="another agent listens there"):
        bind_unix(path)
    assert path.exists()
    first.close()
    bind_unix(path).close()


def test_a_file_that_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="no socket; move away what is in its way, or point"):
        bind_unix(path)
    assert path.read_text() == "precious"


def test_f56_a_taken_port_names_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(TryLater) as refused:
            bind_tcp(f"127.0.0.1:{port}")
    assert f"pid {os.getpid()}" in str(refused.value)
    assert refused.value.exit_status == 75


@pytest.mark.parametrize("listen", ["8470", "x:y", "1.2.3.4:99999"])
def test_an_address_that_is_none_is_a_configuration_error(listen: str) -> None:
    with pytest.raises(ConfigError, match=r"change api\.listen"):
        bind_tcp(listen)


_TAKE = """
import os, sys
from agent.api.server import describe, take_sockets
sent = dict(os.environ, LISTEN_PID=sys.argv[1] if sys.argv[1] != "me" else str(os.getpid()))
found = take_sockets(sent, os.getpid())
print([describe(sock) for sock in found], sorted(k for k in sent if k.startswith("LISTEN")))
print([sock.get_inheritable() for sock in found])
"""


@pytest.mark.parametrize("meant_for", ["me", "1"])
def test_f56_sockets_of_systemd_are_taken_by_the_one_they_are_meant_for(
    tmp_path: Path, meant_for: str
) -> None:
    unix = bind_unix(tmp_path / "s.sock")
    tcp = socket.create_server(("127.0.0.1", 0))

    def hand_over() -> None:
        for number, opened in enumerate((unix, tcp), 103):
            os.dup2(opened.fileno(), number)
        for number in (103, 104):
            os.dup2(number, number - 100, inheritable=True)

    done = subprocess.run(
        [sys.executable, "-c", _TAKE, meant_for],
        env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"},
        preexec_fn=hand_over,
        close_fds=False,
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    port = tcp.getsockname()[1]
    for opened in (unix, tcp):
        opened.close()
    assert first.endswith("[]"), "the variables are gone"
    if meant_for == "me":
        assert f"http://127.0.0.1:{port}" in first
        assert "unix:" in first
        assert second == "[False, False]"
    else:
        assert first == "[] []"


async def open_server(tmp_path: Path, supervisor: FakeSupervisor, **changes: object) -> Server:
    section = replace(ApiSection(), **{"listen": "127.0.0.1:0", **changes})
    metrics = Exporter(supervisor.views, supervisor.status, [tmp_path])
    return await serve_fakes(section, supervisor, FakeKeys(), metrics, tmp_path / "api.sock")


async def test_requests_in_flight_are_answered_before_the_end(
    open_house: OpenHouse, eventually: Eventually
) -> None:
    async with open_house() as house, house.local(base_url="http://localhost") as local:
        house.supervisor.known[InstanceId("sales")] = make_view("sales")
        house.supervisor.passing.clear()
        sending = asyncio.create_task(
            local.post(
                "/api/instance/sales/messages?wait=30", json={"to": "49151123456", "text": "hi"}
            )
        )
        await eventually(lambda: house.server._runner.server.requests_count == 1)
        closing = asyncio.create_task(house.server.close())
        await eventually(lambda: house.server._entrance.closing)
        assert not sending.done()
        house.supervisor.passing.set()
        assert (await sending).status == 200
        await closing


async def test_a_client_on_a_kept_connection_loses_no_request_to_a_restart(
    house: House, eventually: Eventually
) -> None:
    """One that knows no second try: it must be told that its connection ends."""
    answered, ended = [], threading.Event()

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", house.port, timeout=30)
        while not ended.is_set():
            new = connection.sock is None
            try:
                connection.request("GET", "/healthz")
                with connection.getresponse() as answer:
                    answer.read()
            except OSError:
                # With systemd's socket a new connection waits for the next agent.
                assert new, "a request on a kept connection is lost"
                return
            answered.append(answer.status)

    asking = asyncio.create_task(asyncio.to_thread(ask))
    await eventually(lambda: len(answered) > 3)
    await house.server.close()
    await asyncio.wait_for(asking, 60)
    ended.set()
    assert set(answered) == {200}


async def test_the_socket_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    first = await open_server(tmp_path, FakeSupervisor())
    (tmp_path / "api.sock").unlink()
    second = await open_server(tmp_path, FakeSupervisor())
    await first.close()
    connector = aiohttp.UnixConnector(str(tmp_path / "api.sock"))
    async with aiohttp.ClientSession(connector=connector) as session:
        assert (await session.get("http://localhost/healthz")).status == 200
    await second.close()


async def test_s8_a_taken_port_is_named_and_had_once_it_is_free(
    open_house: OpenHouse, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.api.server.PORT_AGAIN", 0.05)
    port = free_port()  # which no other test gets when its holder is gone
    holder, address = socket.create_server(("127.0.0.1", port)), f"127.0.0.1:{port}"
    async with open_house(listen=address) as house, house.local() as local:
        async with local.get("http://localhost/readyz") as answer:
            assert answer.status == 200
            missing = (await answer.json())["not_listening"]
        assert "the address is in use" in missing[address]
        assert "the address is in use" in caplog.text
        async with local.get("http://localhost/api/health") as answer:
            assert (await answer.json())["agent"]["not_listening"] == missing
        trying = asyncio.create_task(house.server.get_missing_ports())
        done, _ = await asyncio.wait({trying}, timeout=0.3)
        assert not done, "another program still has it"
        holder.close()
        async with asyncio.timeout(60):
            await trying
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"http://{address}/readyz") as answer,
        ):
            assert (await answer.json())["not_listening"] == {}


def test_s8_an_address_that_no_interface_has_yet_is_tried_again() -> None:
    with pytest.raises(TryLater, match="no interface"):
        bind_tcp("192.0.2.7:8470")
