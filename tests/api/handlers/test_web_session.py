"""Pairing codes and pictures of the page over the real server: who may, and what comes back."""

import base64
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest

from agent.errors import EngineError
from tests.api.conftest import House

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(16)
CODE = {"code": "ABCD-1234", "expires_in": 195.0}


@pytest.fixture
async def says(house: House, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Answers of the worker by command, or the code with which it refuses."""
    async with house.local(base_url="http://localhost") as local:
        await local.post("/api/instance", json={"id": "shop", "engine": "web"})
    found: dict[str, Any] = {
        "pairing_code": CODE,
        "screenshot": {"type": "image/png", "content": base64.b64encode(PICTURE).decode()},
    }

    async def command(
        _id: str, name: str, _arguments: Mapping[str, Any], **_how: Any
    ) -> Mapping[str, Any]:
        if isinstance(found[name], str):
            raise EngineError("cannot do that", code=found[name])
        return found[name]

    monkeypatch.setattr(house.supervisor, "command", command)
    return found


async def test_a_picture_is_for_admins_and_no_cache_keeps_it(
    house: House, says: dict[str, Any]
) -> None:
    path = f"{house.url}/api/instance/shop/screenshot"
    async with aiohttp.ClientSession() as session:
        for scope in ("read", "operate", "instance:shop"):
            async with session.get(path, headers=await house.key(scope)) as answer:
                assert answer.status == 403
        async with session.get(path, headers=await house.key("admin")) as answer:
            assert (answer.status, answer.content_type) == (200, "image/png")
            assert answer.headers["Cache-Control"] == "no-store"
            assert await answer.read() == PICTURE
        photo = b"\xff\xd8\xff\xe0" + bytes(16)
        says["screenshot"] = {"content": base64.b64encode(photo).decode()}
        async with session.get(path, headers=await house.key("admin")) as answer:
            assert (answer.status, answer.content_type) == (200, "image/jpeg")
            assert await answer.read() == photo
        says["screenshot"] = {"content": base64.b64encode(b"<script>").decode()}
        async with session.get(path, headers=await house.key("admin")) as answer:
            assert answer.status == 502


@pytest.mark.parametrize(
    ("body", "told", "expected"),
    [
        pytest.param({"phone": "+49 151 1234567"}, CODE, (200, None), id="a code"),
        pytest.param({}, CODE, (400, "invalid_request"), id="no phone"),
        pytest.param({"phone": "1" * 16}, CODE, (400, "invalid_request"), id="too long"),
        pytest.param({"phone": "491511234567"}, "not_waiting", (409, "not_waiting"), id="paired"),
    ],
)
async def test_a_pairing_code_or_why_there_is_none(
    house: House, says: dict[str, Any], body: dict[str, str], told: Any, expected: tuple[int, Any]
) -> None:
    status, error = expected
    says["pairing_code"] = told
    async with house.local(base_url="http://localhost") as local:
        answer = await local.post("/api/instance/shop/pairing-code", json=body)
        found = await answer.json()
        assert (answer.status, found.get("error")) == (status, error)
        if status == 200:
            assert found == CODE
