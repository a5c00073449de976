"""The routes of backends, and the one that their servers call."""

import json
import logging

import aiohttp
import pytest

from agent.core.model import InstanceId, RemoteSession
from agent.errors import EngineError
from tests.fakes.backends import HOOK_SECRET
from tests.fakes.supervisor import make_view

HOOK = f"/hooks/evo/{HOOK_SECRET}"
TOLD = {"event": "connection.update", "instance": "shop-1", "data": {"state": "close"}}
FOREIGN = {"Host": "host.docker.internal:8470"}


@pytest.fixture
def evo(house):
    backends = house.supervisor.backends
    backends.declare("evo")
    backends.there["evo"] = [
        RemoteSession("shop-2", "open", "491700000002"),
        RemoteSession("shop-1", "close"),
    ]
    return backends


async def make(local, id="shop", **more):
    body = {"id": id, "engine": "evolution", "backend": "evo", **more}
    answer = await local.post("/api/instance", json=body)
    assert answer.status == 201, await answer.text()
    return await answer.json()


async def test_an_instance_is_put_on_a_backend(local, house, evo):
    made = await make(local, remote="shop-1", settings={"x": 1})
    assert (made["backend"], made["remote"]) == ("evo", "shop-1")
    kept = house.supervisor.known[InstanceId("shop")].instance.settings
    assert kept == {"backend": "evo", "remote": "shop-1", "x": 1}
    by_settings = await local.post(
        "/api/instance", json={"id": "b", "engine": "evolution", "settings": {"backend": "evo"}}
    )
    assert (await by_settings.json())["remote"] == "b", "the id is its name there"
    here = await local.post("/api/instance", json={"id": "c", "engine": "sandbox"})
    assert ((await here.json())["backend"], (await here.json())["remote"]) == (None, None)
    listed = await (await local.get("/api/instances?backend=evo")).json()
    assert [one["id"] for one in listed["instances"]] == ["b", "shop"]


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({"engine": "evolution"}, "settings.backend", "unknown_backend"),
        ({"engine": "whaticket", "backend": "evo"}, "engine", "wrong_engine"),
        ({"engine": "sandbox", "backend": "evo"}, "backend", "invalid_request"),
        (
            {"engine": "evolution", "backend": "evo", "settings": {"backend": "x"}},
            "backend",
            "invalid_request",
        ),
        (
            {"engine": "evolution", "settings": {"backend": ["evo"]}},
            "settings.backend",
            "invalid_request",
        ),
    ],
)
async def test_a_place_that_is_none_is_refused(local, evo, body, field, code):
    answer = await local.post("/api/instance", json={"id": "a", **body})
    found = await answer.json()
    assert (answer.status, found["field"], found["error"]) == (400, field, code), found


async def test_a_changed_setting_does_not_make_it_another_session(local, house, evo):
    await make(local, remote="shop-1")
    path = "/api/instance/shop"
    changed = await local.patch(path, json={"settings": {"name": "Shop"}})
    assert (await changed.json())["settings"] == {
        "backend": "evo",
        "remote": "shop-1",
        "name": "Shop",
    }
    for settings in ({"remote": "shop-2"}, {"backend": "other"}, {"backend": ""}):
        refused = await local.patch(path, json={"settings": settings})
        assert (refused.status, (await refused.json())["error"]) == (409, "place_is_fixed")
    house.supervisor.known[InstanceId("here")] = make_view("here")
    moved = await local.patch("/api/instance/here", json={"settings": {"backend": "evo"}})
    assert moved.status == 400


async def test_setting_up_on_a_backend_takes_its_engine(local, house, evo):
    body = {"name": "Shop", "instanceName": "shop", "backend": "evo", "remote": "shop-1"}
    path = "/api/v1/whatsapp/setup"
    made = await (await local.post(path, json=body)).json()
    assert (made["created"], made["status"]) == (True, "QR_REQUIRED")
    instance = house.supervisor.known[InstanceId("shop")].instance
    assert instance.engine == "evolution"
    assert instance.settings == {"name": "Shop", "backend": "evo", "remote": "shop-1"}
    assert (await (await local.post(path, json=body)).json())["created"] is False
    for more, status, field in (
        ({"remote": "shop-2"}, 409, "settings"),
        ({"instanceName": "b", "backend": "none"}, 400, "backend"),
        ({"instanceName": "b", "engine": "sandbox"}, 400, "backend"),
        ({"instanceName": "b", "engine": "whaticket"}, 400, "engine"),
    ):
        answer = await local.post(path, json=body | more)
        assert (answer.status, (await answer.json())["field"]) == (status, field), more


async def test_setting_up_without_an_engine_means_the_only_backend(local, house, evo):
    path = "/api/v1/whatsapp/setup"
    made = await local.post(path, json={"name": "Test", "instanceName": "test_corrupted"})
    assert made.status == 200
    instance = house.supervisor.known[InstanceId("test_corrupted")].instance
    assert (instance.engine, instance.backend) == ("evolution", "evo")
    local_one = {"name": "Here", "instanceName": "here", "engine": "sandbox"}
    assert (await local.post(path, json=local_one)).status == 200
    assert house.supervisor.known[InstanceId("here")].instance.backend == ""


async def test_the_servers_session_goes_only_when_it_is_said_in_words(local, house, evo):
    await make(local, remote="shop-1")
    path = "/api/instance/shop?remote=true"
    for body in ({}, {"confirm": "yes"}, {"confirm": "delete shop"}):
        refused = await local.delete(path, json=body)
        found = await refused.json()
        assert (refused.status, found["error"]) == (409, "confirm")
        assert "delete shop-1" in found["message"]
    assert house.supervisor.commands == []
    done = await local.delete(path, json={"confirm": "delete shop-1"})
    assert (await done.json())["remote_deleted"] is True
    assert house.supervisor.commands == [("shop", "delete", {})]
    assert InstanceId("shop") not in house.supervisor.known
    house.supervisor.known[InstanceId("here")] = make_view("here")
    local_one = await local.delete(
        "/api/instance/here?remote=true", json={"confirm": "delete here"}
    )
    assert local_one.status == 400
    assert InstanceId("here") in house.supervisor.known


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        ("not_supported", 409, "not_supported"),
        ("invalid_request", 409, "not_supported"),
    ],
)
async def test_a_session_that_its_server_did_not_delete_is_not_forgotten_here(
    local, house, evo, monkeypatch, *, code, status, told
):
    await make(local, remote="shop-1")

    async def refuse(*_about, **_how):
        raise EngineError("cannot delete shop-1: the server does not answer", code=code)

    monkeypatch.setattr(house.supervisor, "command", refuse)
    failed = await local.delete("/api/instance/shop?remote=true", json={"confirm": "delete shop-1"})
    assert (failed.status, (await failed.json())["error"]) == (status, told)
    assert InstanceId("shop") in house.supervisor.known


# hooks


@pytest.fixture
async def server(house):
    """A client over TCP, without a key."""
    async with aiohttp.ClientSession(house.url) as session:
        yield session


async def test_an_event_of_a_server_is_handed_to_its_worker(server, evo):
    answer = await server.post(HOOK, json=TOLD)
    assert (answer.status, await answer.json()) == (200, {"taken": True})
    assert answer.headers["Cache-Control"] == "no-store"
    assert evo.told == [("evo", TOLD)]


async def test_a_server_in_a_container_has_another_name_for_us(server, evo):
    assert (await server.post(HOOK, json=TOLD, headers=FOREIGN)).status == 200
    assert (await server.get("/healthz", headers=FOREIGN)).status == 403
    assert (await server.get("/api/backends", headers=FOREIGN)).status == 403
    page = {"Origin": "https://evil.example", **FOREIGN}
    assert (await server.post(HOOK, json=TOLD, headers=page)).status == 403
    assert len(evo.told) == 1


async def test_a_header_of_the_servers_own_is_no_key_of_ours(server, evo):
    headers = {"Authorization": "Bearer eyJhbGciOiJIUzI1NiJ9.e30.x"}
    assert (await server.post(HOOK, json=TOLD, headers=headers)).status == 200


async def test_a_wrong_secret_is_answered_like_an_unknown_address(server, evo):
    unknown = await server.post("/nothing/there", json=TOLD)
    expected = await unknown.json()
    for path in (
        f"/hooks/evo/{HOOK_SECRET[:-1]}x",
        f"/hooks/evo/{HOOK_SECRET}x",
        f"/hooks/other/{HOOK_SECRET}",
        f"/hooks/EVO/{HOOK_SECRET}",
        "/hooks/evo/short",
        "/hooks/evo/" + "%C3%BC" * 20,
        "/hooks/evo/",
        "/hooks/evo",
        f"/hooks/evo/{HOOK_SECRET}/more",
        f"/hooks/evo/{'x' * 4000}",
    ):
        refused = await server.post(path, json=TOLD)
        found = await refused.json()
        assert refused.status == 404, path
        assert {**found, "request": ""} == {**expected, "request": ""}
    assert evo.told == []


async def test_a_worker_that_is_away_makes_the_server_try_again(server, evo):
    evo.away = True
    answer = await server.post(HOOK, json=TOLD)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    evo.away = False
    assert (await server.post(HOOK, json=TOLD)).status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[1]", 400),
        (b"{", 400),
        (b'{"a":' + b"[" * 100_000, 400),
        (b'{"a":"' + b"x" * 5000 + b'"}', 413),
    ],
)
async def test_a_body_that_is_no_json_object_of_a_fair_size_is_refused(open_house, body, status):
    async with open_house(body_limit=200_100 if status == 400 else 4096) as house:
        house.supervisor.backends.declare("evo")
        async with aiohttp.ClientSession(house.url) as session:
            answer = await session.post(
                HOOK, data=body, headers={"Content-Type": "application/json"}
            )
            assert answer.status == status
        assert house.supervisor.backends.told == []


async def test_an_event_too_large_for_the_link_is_refused_by_the_api(server, evo):
    fits = {"x": "\u00fc" * 120_000}
    body = json.dumps(fits, ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json"}
    assert (await server.post(HOOK, data=body, headers=headers)).status == 200
    assert len(json.dumps({"told": evo.told[0][1]})) < 1 << 20
    too_much = json.dumps({"x": "\u00fc" * 140_000}, ensure_ascii=False).encode()
    assert (await server.post(HOOK, data=too_much, headers=headers)).status == 413


async def test_a_stranger_does_not_get_his_body_read(open_house):
    async with open_house(body_timeout=30.0) as house:
        house.supervisor.backends.declare("evo")
        head = (
            f"POST /hooks/evo/{'x' * 40} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
        )
        assert b" 404 " in (await house.raw(head.encode())).split(b"\r\n")[0]


async def test_a_slow_server_is_ended_at_the_deadline(open_house):
    async with open_house(body_timeout=0.2) as house:
        house.supervisor.backends.declare("evo")
        head = (
            f"POST {HOOK} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
        )
        assert b" 408 " in (await house.raw(head.encode())).split(b"\r\n")[0]


async def test_the_secret_of_a_hook_stands_nowhere(house, evo, local, server, caplog):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("asyncio").setLevel(logging.INFO)
    wrong = HOOK_SECRET[:-1] + "x"
    texts = []
    for broken in (None, RuntimeError("something nobody foresaw"), EngineError("cannot")):
        evo.breaks_with = broken
        for client in (local, server):
            for path in (HOOK, f"/hooks/evo/{wrong}", f"{HOOK}?key=1", f"{HOOK}?x=1"):
                answer = await client.post(path, json=TOLD)
                texts.append(await answer.text())
                texts.append(json.dumps(dict(answer.headers)))
            texts.append(await (await client.get(HOOK)).text())
    texts.append(await (await local.get("/metrics")).text())
    texts.append(await (await local.get("/api/backends/evo")).text())
    texts.append(caplog.text)
    assert "request" in caplog.text, "an unexpected error is logged"
    for text in texts:
        assert HOOK_SECRET[:-1] not in text
    assert 'route="/hooks/{name}/{secret}",method="POST",code="200"' in texts[-3]
    assert 'route="/hooks/{name}/{secret}",method="POST",code="404"' in texts[-3]
