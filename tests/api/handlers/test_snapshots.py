"""Snapshots and archives over HTTP."""

import asyncio
import hashlib

import aiohttp
import pytest

from agent.core.model import InstanceId
from agent.errors import Refused
from agent.supervise.copies.work import Progress
from tests.api.conftest import House, OpenHouse
from tests.fakes.supervisor import make_view
from tests.fakes.vault import ARCHIVE

GZIP = {"Content-Type": "application/gzip"}


@pytest.fixture(autouse=True)
def sales(house: House) -> None:
    house.supervisor.known[InstanceId("sales")] = make_view("sales")


async def test_snapshots_are_made_listed_and_restored(
    house: House, local: aiohttp.ClientSession
) -> None:
    made = await local.post("/api/instance/sales/snapshots")
    assert made.status == 201
    shown = await made.json()
    assert (shown["good"], shown["state"], shown["files"], shown["bytes"]) == (True, "whole", 1, 3)
    listed = await (await local.get("/api/instance/sales/snapshots")).json()
    assert listed == {"snapshots": [shown], "under_way": None}
    path = f"/api/instance/sales/snapshots/{shown['name']}/restore"
    done = await (await local.post(path, json={})).json()
    assert (done["snapshot"], done["instance"]["id"], done["trash"]) == (shown, "sales", "")
    house.supervisor.keeping.breaks_with = Refused("cannot: newer", code="newer_session")
    refused = await local.post(path)
    assert (refused.status, (await refused.json())["error"]) == (409, "newer_session")
    assert (await local.post(path, json={"force": True})).status == 200
    assert house.supervisor.keeping.forced == [False, True]


async def test_the_progress_of_a_snapshot_can_be_read(
    house: House, local: aiohttp.ClientSession
) -> None:
    house.supervisor.keeping.under_way[InstanceId("sales")] = Progress("export", 1.0, 5, 10)
    listed = await (await local.get("/api/instance/sales/snapshots")).json()
    assert listed["under_way"] == {"what": "export", "done": 5, "total": 10}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/instance/nobody/snapshots", None, 404),
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


async def test_an_archive_goes_out_with_its_sum_and_comes_in(local: aiohttp.ClientSession) -> None:
    out = await local.post("/api/instance/sales/export")
    raw = await out.read()
    assert out.headers["X-Archive-SHA256"] == hashlib.sha256(raw).hexdigest()
    assert out.headers["Content-Length"] == str(len(raw))
    assert out.headers["Cache-Control"] == "no-store"
    assert "sales.20260115T103000Z.wa-session.tar.gz" in out.headers["Content-Disposition"]
    exists = await local.post("/api/import", data=raw, headers=GZIP)
    assert (exists.status, (await exists.json())["error"]) == (409, "exists")
    made = await local.post("/api/import?id=other&enable=true", data=raw, headers=GZIP)
    found = await made.json()
    assert (made.status, found["id"], found["sha256"]) == (
        201,
        "other",
        out.headers["X-Archive-SHA256"],
    )
    assert made.headers["Location"] == "/api/instance/other"
    replaced = await local.post("/api/import?replace=1", data=raw, headers=GZIP)
    assert (await replaced.json())["trash"] == "sales.20260115T103045Z"


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


async def test_an_upload_that_drips_is_given_up(open_house: OpenHouse) -> None:
    """No pause is long, and the whole would take for ever."""
    async with open_house(body_timeout=1.0) as house:
        reader, writer = await asyncio.open_unix_connection(str(house.socket_path))
        head = b"POST /api/import HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/gzip\r\n"
        writer.write(head + b"Content-Length: 1000000000\r\n\r\n")
        answer = asyncio.create_task(reader.readuntil(b"bytes a second"))
        async with asyncio.timeout(60):
            while not answer.done():
                writer.write(b"x")
                await asyncio.wait([answer], timeout=0.2)
        assert b" 408 " in (await answer).partition(b"\r\n")[0]
        writer.close()
