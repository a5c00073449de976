"""Snapshots and archives over HTTP."""

import asyncio

import aiohttp
import pytest

from agent.core.model import InstanceId
from tests.api.conftest import House, OpenHouse
from tests.fakes.supervisor import make_view
from tests.fakes.vault import ARCHIVE

GZIP = {"Content-Type": "application/gzip"}


@pytest.fixture(autouse=True)
def sales(house: House) -> None:
    house.supervisor.known[InstanceId("sales")] = make_view("sales")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/instance/sales/snapshots/20260115T103000Z/restore", None, 404),
        ("POST", "/api/instance/sales/snapshots/..%2fx/restore", None, 404),
        ("POST", "/api/instance/sales/snapshots/20260115T103000Z/restore", {"force": 1}, 400),
        ("POST", "/api/instance/sales/export", {"snapshot": "../x"}, 404),
    ],
)
async def test_an_impossible_restore_is_refused(
    local: aiohttp.ClientSession, method: str, path: str, body: object, status: int
) -> None:
    async with local.request(method, path, json=body) as answer:
        assert answer.status == status


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("", {"Content-Type": "application/json"}, 415),
        ("", {**GZIP, "Content-Encoding": "gzip"}, 415),
        ("?id=Foul%20Id", GZIP, 400),
        ("?path=/etc/passwd", GZIP, 400),
        ("", {**GZIP, "Origin": "https://evil.example"}, 403),
        ("", GZIP, 400),
    ],
)
async def test_a_body_that_is_no_archive_is_refused(
    local: aiohttp.ClientSession, query: str, headers: dict[str, str], status: int
) -> None:
    answer = await local.post(f"/api/import{query}", data=b"x" * 100, headers=headers)
    assert answer.status == status


async def test_an_upload_that_stops_is_ended(open_house: OpenHouse) -> None:
    async with open_house(body_timeout=0.3) as house:
        reader, writer = await asyncio.open_unix_connection(str(house.socket_path))
        head = b"POST /api/import HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/gzip\r\n"
        writer.write(head + b"Content-Length: 1000000\r\n\r\n" + ARCHIVE)
        async with asyncio.timeout(30):
            assert b" 408 " in await reader.readline()
        writer.close()
