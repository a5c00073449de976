"""What a desk sends, and what an impostor sends."""

import asyncio
import contextlib
import gzip
from typing import Any

import aiohttp
import pytest

from agent.api.http.connection import Connection
from agent.api.http.crowd import Stage
from agent.api.http.wrong_tries import MOST, WITHIN, WrongTries
from agent.core.invitation_line import HEADER, parse_invitation
from agent.core.model import InstanceId
from agent.errors import TryLater
from tests.api.conftest import House, OpenHouse
from tests.conftest import Eventually
from tests.fakes.supervisor import make_view
from tests.fakes.vault import ARCHIVE

PATH = "/api/instance/sales/pairing"
ARCHIVED = {"Content-Type": "application/octet-stream"}


@pytest.fixture(autouse=True)
def sales(house: House) -> None:
    house.supervisor.known[InstanceId("sales")] = make_view("sales")


async def door(house: House) -> dict[str, str]:
    async with house.local() as local:
        made = await local.post("http://localhost/api/instance/sales/invite")
        assert made.status == 201
        line = (await made.json())["line"]
    return {HEADER: parse_invitation(line, InstanceId("sales")).door, **ARCHIVED}


async def code_of(answer: aiohttp.ClientResponse) -> tuple[int, str]:
    return answer.status, (await answer.json())["error"]


async def test_an_invitation_lets_one_upload_in_and_shows_what_came_of_it(house: House) -> None:
    right = await door(house)
    async with aiohttp.ClientSession(house.url) as desk:
        seen = await (await desk.get(PATH, headers=right)).json()
        assert seen["used"] is False
        taken = await desk.post(PATH, data=ARCHIVE, headers=right)
        assert taken.status == 201, await taken.text()
        seen = await (await desk.get(PATH, headers=right)).json()
        assert (seen["id"], seen["used"]) == ("sales", True)
        assert await code_of(await desk.post(PATH, data=ARCHIVE, headers=right)) == (
            403,
            "invite_used",
        )


async def test_a_token_opens_no_other_instance_and_no_other_route(house: House) -> None:
    house.supervisor.known[InstanceId("other")] = make_view("other")
    right = await door(house)
    async with aiohttp.ClientSession(house.url) as desk:
        for path in ("/api/instance/other/pairing", "/api/instance/nobody/pairing"):
            assert await code_of(await desk.post(path, data=ARCHIVE, headers=right)) == (
                401,
                "invite_unknown",
            )
        for method, path in (
            ("POST", "/api/import"),
            ("GET", "/api/instance/sales"),
            ("POST", "/api/instance/sales/invite"),
            ("DELETE", "/api/instance/sales/invite"),
        ):
            answer = await desk.request(method, path, headers=right)
            assert answer.status == 401, path
        bearer = {"Authorization": f"Bearer {right[HEADER]}"}
        assert (await desk.get("/api/instance/sales", headers=bearer)).status == 401


async def test_a_caller_that_guesses_is_stopped_before_the_body_is_read(
    open_house: OpenHouse,
) -> None:
    async with open_house() as house:
        house.supervisor.known[InstanceId("sales")] = make_view("sales")
        right = await door(house)
        head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{HEADER}: {'0' * 64}\r\n"
        endless = f"{head}Content-Type: application/gzip\r\nContent-Length: 1000000000\r\n\r\n"
        for _ in range(MOST):
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            writer.write(endless.encode())
            async with asyncio.timeout(30):
                assert b" 401 " in await reader.readline(), "no byte of the body was sent"
            writer.close()
        async with aiohttp.ClientSession(house.url) as desk:
            wrong = {**right, HEADER: "0" * 64}
            assert await code_of(await desk.post(PATH, data=ARCHIVE, headers=wrong)) == (
                503,
                "too_many_tries",
            ), "whatever it guesses now"
            taken = await desk.post(PATH, data=ARCHIVE, headers=right)
            assert taken.status == 201, "behind a proxy all desks have one address"


async def test_uploads_without_their_token_take_no_place_of_a_right_one(
    open_house: OpenHouse, eventually: Eventually
) -> None:
    """Whoever reads the network along knows the door; behind a proxy all have one address."""
    async with open_house(connections_per_address=4, body_timeout=600.0) as house:
        house.supervisor.known[InstanceId("sales")] = make_view("sales")
        right, limits = await door(house), house.server._entrance.limits
        lines = [f"{name}: {value}" for name, value in right.items()]
        head = [f"POST {PATH} HTTP/1.1", "Host: 127.0.0.1", *lines, "Content-Length: 1000000000"]
        async with contextlib.AsyncExitStack() as stack:
            for number in range(1, limits.unread_per_address + 5):
                _, writer = await asyncio.open_connection("127.0.0.1", house.port)
                stack.callback(writer.close)
                writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
                at_most = min(number, limits.unread_per_address)
                gone = number - at_most
                await eventually(
                    lambda: (limits.count(Stage.UNPROVEN), limits.gave_way), (at_most, gone)
                )
            assert limits.count(Stage.REQUEST) == 0
            async with aiohttp.ClientSession(house.url) as desk:
                taken = await desk.post(PATH, data=ARCHIVE, headers=right)
                assert taken.status == 201, await taken.text()


async def test_an_upload_that_has_to_go_while_it_is_read_leaves_no_error(
    house: House, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [f"{name}: {value}" for name, value in (await door(house)).items()]
    head = [f"POST {PATH} HTTP/1.1", "Host: 127.0.0.1", *lines, "Content-Length: 1000000000"]
    limits = house.server._entrance.limits
    _, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
    await eventually(lambda: limits.count(Stage.UNPROVEN), 1)
    (connection,) = limits._standing[Stage.UNPROVEN]
    assert isinstance(connection, Connection)
    handler = connection._task_handler
    assert handler is not None
    connection.data_received(b"\x1f")
    connection.give_way()
    await asyncio.wait([handler], timeout=30)
    assert handler.done()
    assert not [one for one in caplog.records if one.levelname in ("ERROR", "CRITICAL")]
    writer.close()


async def test_an_upload_that_drips_is_given_up(open_house: OpenHouse) -> None:
    """No pause is long, and the whole would take for ever."""
    async with open_house(body_timeout=1.0) as house:
        house.supervisor.known[InstanceId("sales")] = make_view("sales")
        right = await door(house)
        lines = [f"{name}: {value}" for name, value in right.items()]
        head = [f"POST {PATH} HTTP/1.1", "Host: 127.0.0.1", *lines, "Content-Length: 1000000000"]
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
        answer = bytearray()

        async def listen() -> None:
            with contextlib.suppress(ConnectionResetError):  # a byte crossed its end
                while part := await reader.read(65536):
                    answer.extend(part)

        listening = asyncio.create_task(listen())
        async with asyncio.timeout(60):
            while not listening.done():
                writer.write(b"x")
                await asyncio.wait([listening], timeout=0.2)
        assert b" 408 " in answer.partition(b"\r\n")[0]
        assert b"bytes a second" in answer
        writer.close()


def test_wrong_ones_are_forgotten_after_a_while_and_do_not_pile_up() -> None:
    now = [0.0]
    wrong = WrongTries("an invitation", now=lambda: now[0])
    for _ in range(MOST):
        wrong.check("a")
        wrong.note("a")
    with pytest.raises(TryLater):
        wrong.check("a")
    wrong.check("b")
    now[0] = WITHIN + 1
    wrong.check("a")
    for number in range(5000):
        wrong.note(f"address {number}")
    assert len(wrong._seen) <= 1024


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/json"}, 415),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "evil.example"}, 403),
        ({}, 400),
    ],
)
async def test_a_body_that_is_no_upload_of_a_desk_is_refused(
    house: House, headers: dict[str, str], status: int
) -> None:
    async with aiohttp.ClientSession(house.url) as desk:
        sent: Any = gzip.compress(b"x")
        answer = await desk.post(PATH, data=sent, headers={**await door(house), **headers})
        assert answer.status == status


@pytest.mark.parametrize(
    ("section", "url"),
    [
        ({}, ""),
        ({"public_url": "https://wa.example"}, "https://wa.example"),
    ],
)
async def test_the_line_names_an_address_only_where_desks_reach_it(
    open_house: OpenHouse, section: dict[str, str], url: str
) -> None:
    async with open_house(**section) as house:
        house.supervisor.known[InstanceId("sales")] = make_view("sales")
        async with house.local() as local:
            made = await local.post("http://localhost/api/instance/sales/invite")
            assert (await made.json())["url"] == url
