"""The routes of backends."""

import pytest

from agent.core.words import InstanceId, RemoteSession
from tests.fakes.supervisor import make_view


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
    listed = await (await local.get("/api/instances")).json()
    assert [one["id"] for one in listed["instances"] if one["backend"] == "evo"] == ["b", "shop"]


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({"engine": "evolution"}, "settings.backend", "unknown_backend"),
        ({"engine": "whaticket", "backend": "evo"}, "engine", "wrong_engine"),
        (
            {"engine": "evolution", "backend": "evo", "settings": {"backend": "x"}},
            "backend",
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
    kept = {"backend": "evo", "remote": "shop-1", "name": "Shop"}
    assert (await changed.json())["settings"] == kept
    for settings in ({"remote": "shop-2"}, {"backend": "other"}, {"backend": ""}):
        refused = await local.patch(path, json={"settings": settings})
        assert (refused.status, (await refused.json())["error"]) == (409, "place_is_fixed")


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
    for more, status in ({}, 200), ({"backend": "evo"}, 409):
        assert (await local.post(path, json=local_one | more)).status == status, "never ignored"
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
