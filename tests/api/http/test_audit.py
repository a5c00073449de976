"""The audit log: who was refused, who changed something, who read a code; from where, and when."""

import logging
from typing import Any

import aiohttp
import pytest
from yarl import URL

from agent.core.model import ConnectionStatus, InstanceId
from agent.engines.base import Qr
from agent.logfiles import AUDIT
from tests.api.conftest import House
from tests.fakes.supervisor import make_view


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name == AUDIT]


@pytest.fixture(autouse=True)
def sales(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    house.supervisor.known[InstanceId("sales")] = make_view("sales")


async def test_requests_with_a_wrong_key_leave_a_line_and_a_count(
    house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {"Authorization": "Bearer wak_abcdefgh_" + "x" * 43}
    async with aiohttp.ClientSession(house.url) as tcp:
        number = (await tcp.get("/api/instances", headers=wrong)).headers["X-Request-Id"]
        for client in range(49):  # one line, whatever clients its sender names
            named = {**wrong, "X-Forwarded-For": f"10.0.0.{client}"}
            assert (await tcp.get("/api/instances", headers=named)).status == 401
        (line,) = said(caplog)
        refused = "refused 127.0.0.1: GET /api/instances → 401 unauthorized (request "
        assert line == f"{refused}{number})"
        monkeypatch.setattr("agent.api.http.auth.QUIET_SECONDS", 0)
        await tcp.get("/api/instances", headers=wrong)
    assert said(caplog)[1].startswith(refused)
    assert said(caplog)[1].endswith("); 49 more like the last came before it")
    assert all(one.levelno == logging.WARNING for one in caplog.records if one.name == AUDIT)
    assert "x" * 20 not in caplog.text


async def test_a_key_that_lacks_a_right_leaves_one_line(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    key = await house.key("read")
    before = len(said(caplog))
    async with aiohttp.ClientSession(house.url, headers=key) as tcp:
        for _ in range(20):
            assert (await tcp.post("/api/instance/sales/stop")).status == 403
    (line,) = said(caplog)[before:]
    assert line.startswith("refused key a test from 127.0.0.1: POST /api/instance/sales/stop")
    assert "→ 403 " in line


async def test_a_change_is_noted_with_its_address_and_its_number(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    async with aiohttp.ClientSession(house.url, headers=await house.key("operate")) as tcp:
        forwarded = {"X-Forwarded-For": "203.0.113.9"}
        answer = await tcp.post("/api/instance/sales/stop", headers=forwarded)
    number = answer.headers["X-Request-Id"]
    assert said(caplog)[-1] == (
        "key a test from 127.0.0.1 for '203.0.113.9': POST /api/instance/sales/stop → 202"
        f" (request {number})"
    )


async def test_a_reader_of_a_code_is_noted_once_a_minute(
    house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.supervisor.known[InstanceId("sales")] = make_view(
        "sales", status=ConnectionStatus.QR_REQUIRED
    )

    async def qr(_id: Any) -> Qr:
        return Qr("the secret text", 30.0, 1)

    monkeypatch.setattr(house.supervisor, "qr", qr)
    async with house.local(base_url="http://localhost") as local:
        for _ in range(5):
            assert (await local.get("/api/instance/sales/qr")).status == 200
    (line,) = [one for one in said(caplog) if "/qr" in one]
    assert "GET /api/instance/sales/qr → 200 (request " in line
    assert "uid " in line
    assert "the secret text" not in caplog.text


MESSAGE = "m%3A4915177712345@s.whatsapp.net%3A4915177712345@s.whatsapp.net%3AMID30"
PATHS = {
    f"GET /api/instance/sales/messages/{MESSAGE}/media": "sales/messages/{message}/media",
    "DELETE /api/instance/sales/outbox/out_4915177712345": "sales/outbox/{message}",
    "POST /message/sendText/4915177712345@s.whatsapp.net": "an unknown path",
}


@pytest.mark.parametrize("request_line", PATHS)
@pytest.mark.parametrize("host", ["localhost", "evil.example"])
async def test_no_line_names_a_contact_or_a_message_of_the_path(
    house: House, caplog: pytest.LogCaptureFixture, request_line: str, host: str
) -> None:
    key = await house.key("instance:other" if host == "localhost" else "operate")
    caplog.clear()
    method, path = request_line.split()
    async with aiohttp.ClientSession(headers={"Host": host, **key}) as session:
        await session.request(method, URL(house.url + path, encoded=True))
    assert "49151" not in caplog.text
    assert "MID30" not in caplog.text
    lines = said(caplog)
    assert len(lines) == (host != "localhost" or "sales" in PATHS[request_line])
    assert all(f"{method} " in line and PATHS[request_line] in line for line in lines)
