"""Routes of a session on a backend: records that repairs put aside there, and its end."""

import pytest

from agent.core.model import InstanceId
from agent.errors import EngineError, Refused

NAME = "20260115T103000Z"
ASIDE = [
    {
        "name": NAME,
        "at": 1768473000.0,
        "why": "new keys with single peers",
        "state": "done",
        "files": 3,
        "keys": 1,
        "whole": False,
    },
    {"name": f"{NAME}.2", "at": 1768473000.5, "why": "made way", "state": "done"},
]
REMOVED = "/api/instance/shop/removed"
RESTORE = f"{REMOVED}/{NAME}/restore"


@pytest.fixture
async def knows(house, local):
    """Answers of the engine of `shop`, by command."""
    house.supervisor.backends.declare("evo")
    body = {"id": "shop", "engine": "evolution", "backend": "evo"}
    assert (await local.post("/api/instance", json=body)).status == 201
    house.supervisor.answers = {"removed": {"removed": ASIDE}, "restore_removed": {"name": NAME}}
    return house.supervisor.answers


def refusal(code):
    return EngineError("cannot do that to shop", code=code)


async def test_a_file_is_put_back_alone_and_has_time_for_it(house, local, knows):
    done = await local.post(RESTORE)
    found = await done.json()
    assert (done.status, found["removed"]["name"], found["instance"]["id"]) == (200, NAME, "shop")
    assert house.supervisor.commands[-1] == ("shop", "restore_removed", {"name": NAME})
    assert house.supervisor.how["restore_removed"] == (150.0, True)
    assert house.supervisor.how["removed"][1] is False


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{REMOVED}/20200101T000000Z/restore", 404),
        (f"{REMOVED}/..%2fx/restore", 404),
        ("/api/instance/nobody/removed", 404),
    ],
)
async def test_a_missing_file_is_not_found(house, local, knows, path, status):
    async with local.request("POST" if "restore" in path else "GET", path) as answer:
        assert answer.status == status
    assert not any(name == "restore_removed" for _, name, _ in house.supervisor.commands)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (refusal("invalid_request"), 400, "invalid_request"),
        (refusal("not_supported"), 409, "not_supported"),
        (refusal("busy"), 503, "busy"),
        (refusal("redis"), 502, "redis"),
        (Refused("cannot: its worker is away", code="not_running"), 409, "not_running"),
    ],
)
async def test_why_it_could_not_be_put_back_is_said(local, knows, error, status, code):
    knows["restore_removed"] = error
    answer = await local.post(RESTORE)
    assert (answer.status, (await answer.json())["error"]) == (status, code)


async def test_an_engine_without_them_says_so(house, local, knows):
    knows.clear()
    for method, path, body in (
        ("GET", REMOVED, None),
        ("POST", RESTORE, None),
        ("POST", "/api/instance/shop/pairing-code", {"phone": "+49 151 1234567"}),
        ("GET", "/api/instance/shop/screenshot", None),
    ):
        async with local.request(method, path, json=body) as answer:
            found = await answer.json()
            assert (answer.status, found["error"]) == (409, "not_supported"), (method, path)
            assert "engine evolution" in found["message"]


async def test_the_end_over_there_has_time_too(house, local, knows):
    path, body = "/api/instance/shop?remote=true", {"confirm": "delete shop"}
    for code, status, told in (
        ("busy", 503, "busy"),
        ("not_supported", 409, "not_supported"),
        ("invalid_request", 409, "not_supported"),
    ):
        knows["delete"] = refusal(code)
        failed = await local.delete(path, json=body)
        assert (failed.status, (await failed.json())["error"]) == (status, told)
        assert InstanceId("shop") in house.supervisor.known
    knows["delete"] = {}
    assert (await local.delete(path, json=body)).status == 200
    assert house.supervisor.how["delete"] == (150.0, True)
