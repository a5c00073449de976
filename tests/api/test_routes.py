"""Every route does what its row says, over a real socket."""

import re

import aiohttp

from agent.api.http.auth import Right
from agent.api.http.call import plain_path
from agent.api.routes import ROUTES
from agent.core.model import ConnectionStatus, InstanceId
from agent.engines.base import Qr
from agent.page.pages import PARTS
from tests.api.conftest import House
from tests.fakes.supervisor import make_view

Client = aiohttp.ClientSession


async def make(local: Client, id: str = "sales", **more: object) -> dict[str, object]:
    answer = await local.post("/api/instance", json={"id": id, "engine": "sandbox", **more})
    assert answer.status == 201, await answer.text()
    return await answer.json()


async def test_an_instance_is_created_shown_changed_and_deleted(local: Client) -> None:
    made = await make(local, settings={"scan": "manual"})
    assert made["id"] == "sales"
    assert made["connection_status"] == "QR_REQUIRED"

    shown = await (await local.get("/api/instance/sales")).json()
    assert shown["health"]["verdict"] == "disconnected"

    changed = await local.patch("/api/instance/sales", json={"settings": {"scan": "auto"}})
    assert (await changed.json())["settings"] == {"scan": "auto"}

    details = await (await local.get("/api/instance/sales/details")).json()
    assert details["unit"]["main_pid"] == 1234
    assert details["claim"]["status"] == "QR_REQUIRED"
    assert (details["proof_limit_seconds"], details["watchdog_seconds"]) == (90.0, 20.0)
    assert [event["kind"] for event in details["events"]] == ["created"]

    deleted = await (await local.delete("/api/instance/sales")).json()
    told = {"id": "sales", "trash": "sales.20260115T103045Z", "machine": "", "declared": False}
    assert deleted == {**told, "keys_ended": []}
    assert (await local.get("/api/instance/sales")).status == 404


async def test_a_proxy_s_password_is_shown_to_who_may_change_it(
    house: House, local: Client
) -> None:
    await make(local, engine="web", settings={"proxy": "http://u:secret@proxy.example:80"})
    async with aiohttp.ClientSession(house.url) as client:
        for scope, seen in (("read", "[removed]@"), ("operate", "u:secret@")):
            key = await house.key(scope)
            details = await client.get("/api/instance/sales/details", headers=key)
            assert seen in (await details.json())["settings"]["proxy"]
        # Where it connects to is no word of theirs: they would try ports with it, or listen.
        for name in ("url", "media_url", "proxy"):
            there = {
                "settings": {"proxy": "http://u:secret@proxy.example:80", name: "http://[::1]:1"}
            }
            said = await client.patch("/api/instance/sales", json=there, headers=key)
            assert (said.status, f"change settings.{name}" in await said.text()) == (403, True)


async def test_a_key_of_an_instance_ends_with_it_and_opens_no_next_one(
    house: House, local: Client
) -> None:
    await make(local)
    await make(local, id="till")
    own, both = [await house.key(*scopes) for scopes in (["instance:sales"], BOTH)]
    async with aiohttp.ClientSession(house.url) as client:
        for headers in (own, both):
            assert (await client.get("/api/instance/sales", headers=headers)).status == 200
        deleted = await (await local.delete("/api/instance/sales")).json()
        assert deleted["keys_ended"] == ["a test", "a test"]
        await make(local)
        assert (await client.get("/api/instance/sales", headers=own)).status == 401
        assert (await client.get("/api/instance/sales", headers=both)).status == 403
        assert (await client.get("/api/instance/till", headers=both)).status == 200


BOTH = ["instance:sales", "instance:till"]


async def test_the_list_is_filtered_and_paged(house: House, local: Client) -> None:
    for number in range(7):
        status = ConnectionStatus.CONNECTED if number % 2 else ConnectionStatus.QR_REQUIRED
        id = f"i{number}"
        house.supervisor.known[InstanceId(id)] = make_view(id, status=status)
    first = await (await local.get("/api/instances?limit=3")).json()
    assert ([i["id"] for i in first["instances"]], first["next"], first["total"]) == (
        ["i0", "i1", "i2"],
        "i2",
        7,
    )
    rest = await (await local.get("/api/instances?limit=4&after=i2")).json()
    assert ([i["id"] for i in rest["instances"]], rest["next"]) == (["i3", "i4", "i5", "i6"], None)
    connected = await (await local.get("/api/instances?status=CONNECTED")).json()
    assert [i["id"] for i in connected["instances"]] == ["i1", "i3", "i5"]


async def test_the_code_comes_in_the_form_that_is_accepted(local: Client) -> None:
    await make(local)
    path = "/api/instance/sales/qr"
    as_json = await local.get(path, headers={"Accept": "application/json"})
    assert await as_json.json() == {"qr": "SANDBOX,2@abc", "expires_in": 18.5, "number": 1}
    png = await local.get(path, headers={"Accept": "image/png"})
    assert (await png.read()).startswith(b"\x89PNG")
    svg = await local.get(path, headers={"Accept": "image/avif,image/svg+xml,*/*;q=0.8"})
    assert b"<svg" in await svg.read()
    text = await local.get(path, headers={"Accept": "text/plain"})
    assert text.headers["X-Qr-Number"] == "1"
    lines = (await text.text()).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert set("".join(lines)) == set("█▀▄ ")
    for answer in (as_json, png, svg, text):
        assert answer.headers["Cache-Control"] == "no-store"
    assert (await local.get(path, headers={"Accept": "video/mp4"})).status == 406


async def test_a_code_that_cannot_be_is_explained(house: House, local: Client) -> None:
    await make(local)
    del house.supervisor.codes[InstanceId("sales")]
    later = await local.get("/api/instance/sales/qr")
    assert (later.status, (await later.json())["error"]) == (503, "no_qr")
    assert house.metrics.http.counted()[1] == 0, "it comes by itself: that is no failure"
    house.supervisor.codes[InstanceId("sales")] = Qr("x" * 5000, 1.0, 1)
    too_long = await local.get("/api/instance/sales/qr", headers={"Accept": "image/png"})
    assert (too_long.status, (await too_long.json())["error"]) == (502, "engine")
    assert house.metrics.http.counted()[1] == 1
    house.supervisor.known[InstanceId("sales")] = make_view("sales")
    connected = await local.get("/api/instance/sales/qr")
    assert (connected.status, (await connected.json())["error"]) == (409, "connected")


async def test_history_is_paged_newest_first(house: House, local: Client) -> None:
    await make(local)
    for number in range(5):
        house.supervisor.note(InstanceId("sales"), "status", f"number {number}")
    first = await (await local.get("/api/instance/sales/events?limit=2&kind=status")).json()
    assert [e["sentence"] for e in first["events"]] == ["number 4", "number 3"]
    path = f"/api/instance/sales/events?limit=2&kind=status&before={first['next']}"
    more = (await (await local.get(path)).json())["events"]
    assert [e["sentence"] for e in more] == ["number 2", "number 1"]
    everything = await (await local.get("/api/events?limit=1")).json()
    assert everything["events"][0]["instance"] == "sales"


async def test_a_message_is_checked_and_handed_on(house: House, local: Client) -> None:
    house.supervisor.known[InstanceId("sales")] = make_view("sales")
    path, to = "/api/instance/sales/messages?wait=30", "49151123456"
    answer = await local.post(path, json={"to": to, "text": "hi"})
    assert (await answer.json())["message_id"] == "M1"
    ((id, sent),) = house.supervisor.sent
    assert (id, sent["type"], sent["to"], sent["text"]) == ("sales", "text", to, "hi")
    for wrong, field in (
        ({"to": "491"}, "text"),
        ({"text": "hi"}, "to"),
        ({"to": "491", "text": "hi", "latitude": 1}, "latitude"),
        ({"to": "491", "type": "fax"}, "type"),
        ({"to": "491", "type": "location", "latitude": 91, "longitude": 0}, "latitude"),
        ({"to": "491", "type": "media", "mimetype": "image/png"}, "url"),
        ({"to": ["491"], "text": "hi"}, "to"),
        ({"to": "491", "text": "x", "mentions": ["nobody"]}, "mentions"),
        ({"to": "491", "type": "location", "latitude": 1, "longitude": 1, "quote": "M"}, "quote"),
        ({"to": "491", "type": "edit", "text": "x"}, "message_id"),
        ({"to": "491", "type": "delete", "message_id": "M1", "sender": "1@g.us"}, "sender"),
    ):
        refused = await local.post(path, json=wrong)
        assert (refused.status, (await refused.json())["field"]) == (400, field), wrong
    assert len(house.supervisor.sent) == 1


async def test_health_is_shown_for_all_and_for_one(house: House, local: Client) -> None:
    await make(local)
    one = await (await local.post("/api/instance/sales/health")).json()
    assert one["healthy"] is False
    assert {"healthy", "state", "reason", "shouldCleanup"} <= set(one)
    everything = await (await local.post("/api/health/check")).json()
    assert everything["checked"] == 1
    assert everything["by_verdict"] == {"disconnected": 1}
    fleet = await (await local.get("/api/health")).json()
    assert fleet["instances"]["by_status"] == {"QR_REQUIRED": 1}
    assert (await local.post("/api/health/check", json={"ids": ["nobody"]})).status == 404


async def test_alive_means_that_the_loop_turns(house: House) -> None:
    async with aiohttp.ClientSession(house.url) as anyone:
        assert (await anyone.get("/healthz")).status == 200
        assert (await anyone.get("/readyz")).status == 200
        later = {"alive": False, "ready": False, "restoring": {"done": 1, "total": 5}}
        house.supervisor.agent |= later
        assert (await anyone.get("/healthz")).status == 503
        waiting = await anyone.get("/readyz")
        assert waiting.status == 503
        assert (await waiting.json())["restoring"] == {"done": 1, "total": 5}


async def test_openapi_lists_every_route_and_the_pages_call_no_other_address(house: House) -> None:
    async with aiohttp.ClientSession(house.url) as anyone:
        described = await (await anyone.get("/openapi.json")).json()
        listed = {(m.upper(), path) for path, ms in described["paths"].items() for m in ms}
        assert listed == {(route.method, plain_path(route.path)) for route in ROUTES}
        assert "scope read" in described["paths"]["/api/events"]["get"]["summary"]
        for path in ("/", "/docs", *(f"/page/{name}" for name in PARTS if name != "icon.svg")):
            answer = await anyone.get(path)
            text = await answer.text()
            assert answer.status == 200
            assert "http://" not in text
            assert "https://" not in text
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert not re.search(r"<[^>]+\son\w+=", text), "the policy forbids inline code"


async def test_unknown_addresses_and_methods_answer_in_the_envelope(local: Client) -> None:
    missing = await local.get("/api/nothing")
    assert (missing.status, (await missing.json())["error"]) == (404, "unknown_route")
    wrong = await local.put("/api/instances")
    assert (wrong.status, (await wrong.json())["error"]) == (405, "method_not_allowed")
    assert wrong.headers["Allow"] == "GET,HEAD"


async def test_f74_metrics_count_requests_without_labels_of_a_clients_choice(local: Client) -> None:
    await make(local)
    await local.get("/api/instance/sales")
    await local.get("/anything/" + "x" * 50)
    await local.request("LOCK", "/api/instances")
    answer = await local.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    text = await answer.text()
    assert 'code="200",method="GET",route="/api/instance/{id}"} 1' in text
    assert 'code="404",method="GET",route="other"} 1' in text
    assert 'code="405",method="other",' in text
    assert "xxx" not in text
    assert "LOCK" not in text
    assert 'wa_session_status{session="sales",status="qr_required"} 1' in text


def test_open_routes_are_a_closed_list() -> None:
    assert {route.path for route in ROUTES if route.right is Right.OPEN} == {
        *("/healthz", "/readyz", "/openapi.json", "/docs", "/"),
        *(f"/page/{name}" for name in PARTS),
    }


def test_a_read_key_changes_nothing_and_gets_no_code_message_or_picture() -> None:
    assert all(route.right >= Right.OPERATE for route in ROUTES if route.method != "GET")
    more = {plain_path(it.path) for it in ROUTES if it.method == "GET" and it.right > Right.READ}
    its = (
        *("qr", "screenshot", "sandbox/heard", "worker-lines", "outbox", "outbox/{message}"),
        *("messages", "messages/live", "messages/{message}/media"),
        *("failed-starts", "failed-starts/{failed}/picture"),
    )
    assert more == {"/api/keys", *(f"/api/instance/{{id}}/{name}" for name in its)}
