"""What a forged machine, an ordinary key and a captured header do not get from a fleet."""

import json
import uuid
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agent.api.http.call import plain_path
from agent.api.routes import ROUTES
from agent.core.fleet.headers import CALLER
from agent.core.model import InstanceId
from agent.fleet.coordinator import Machine, Member, NewSession
from agent.fleet.peers import Sent, refuse_peer
from agent.fleet.words import over
from tests.fleet.machines import BEARER, AMachine, Fleet
from tests.standin.evolution.certificates import Certificates

Two = tuple[AMachine, AMachine]
RIGHT = f"Fleet {BEARER}"


def caller(**changes: Any) -> str:
    named = {"name": "key x", "level": "admin", "instances": [], "through": "m1"}
    return json.dumps({**named, **changes})


async def ask(
    machine: AMachine, method: str, path: str, headers: dict[str, str], **more: Any
) -> tuple[int, str]:
    """Straight to the address for machines."""
    async with aiohttp.ClientSession() as client:
        answer = await client.request(
            method, machine.face.address + path, headers=headers, ssl=False, **more
        )
        raw = await answer.read()
        return answer.status, json.loads(raw).get("error", "")


async def test_a_caller_header_without_the_bearer_is_refused(two: Two) -> None:
    machine = two[1]
    named = {CALLER: caller()}
    path = "/api/instance/shop"
    assert await ask(machine, "GET", path, named) == (401, "fleet_bearer")
    key = await machine.key("an admin", "admin")
    assert await ask(machine, "GET", path, {**named, **key}) == (401, "fleet_bearer")
    async with machine.local() as client:  # a trusted socket names no other caller either
        assert (await client.get(path, headers=named)).status == 401
    wrong = {**named, "Authorization": "Fleet " + "00" * 32}
    assert await ask(machine, "GET", path, wrong) == (401, "fleet_bearer")
    assert await ask(machine, "GET", path, {**named, "Authorization": RIGHT}) == (200, "")


UNREADABLE = (
    *("", "null", "[]", "{", '"admin"', "{}", "[" * 5000),
    *(caller(level="root"), caller(level=4), caller(level=["admin"]), caller(level="ADMIN")),
    *(caller(name=None), caller(name="x" * 500), caller(name="a\nforged line")),
    *(caller(instances="shop"), caller(instances=["../etc"]), caller(instances=[1])),
    *(caller(through=""), caller(through=None)),
)


async def test_a_caller_that_cannot_be_read_gets_nothing(two: Two) -> None:
    for header in UNREADABLE:
        headers = {"Authorization": RIGHT, CALLER: header}
        found = await ask(two[1], "POST", "/api/instance/shop/stop", headers)
        assert found == (400, "invalid_request"), header


async def test_a_huge_or_doubled_caller_is_refused(two: Two) -> None:
    huge = caller(instances=[f"shop{number}" for number in range(5000)])
    status, _ = await ask(
        two[1], "GET", "/api/instance/shop", {"Authorization": RIGHT, CALLER: huge}
    )
    assert status == 400
    twice = aiohttp.ClientSession(
        headers=[("Authorization", RIGHT), (CALLER, caller(level="read")), (CALLER, caller())]
    )
    async with twice as client:
        answer = await client.get(two[1].face.address + "/api/instance/shop", ssl=False)
        assert answer.status == 400


async def test_a_forwarded_caller_has_its_own_rights_and_no_more(two: Two) -> None:
    _, second = two

    async def stop(**changes: Any) -> int:
        headers = {"Authorization": RIGHT, CALLER: caller(**changes)}
        return (await ask(second, "POST", "/api/instance/shop/stop", headers))[0]

    assert await stop(level="read") == 403
    assert await stop(level="") == 401
    assert await stop(level="", instances=["sales"]) == 403
    assert await stop(level="", instances=["shop"]) == 202
    assert await stop(level="operate") == 202
    picture = "/api/instance/shop/screenshot"
    headers = {"Authorization": RIGHT, CALLER: caller(level="operate")}
    assert (await ask(second, "GET", picture, headers))[0] == 403


CLOSED = [
    route
    for route in ROUTES
    if not route.forwarded and not route.between_machines and not route.hook and route.right
]


NAMES = {
    "{name}": "shop",
    "{key}": "abcd1234",
    "{id}": "shop",
    "{group}": "sandbox",
    "{command}": "00000000-0000-4000-8000-000000000000",
}


async def test_the_bearer_opens_nothing_that_is_not_forwarded(two: Two) -> None:
    assert len(CLOSED) > 30
    for route in CLOSED:
        path = plain_path(route.path)
        for name, text in NAMES.items():
            path = path.replace(name, text)
        if "/trash/" in path:
            path = path.replace("shop", "shop.20260115T103045Z")
        for named in ({}, {CALLER: caller()}):
            found = await ask(two[1], route.method, path, {"Authorization": RIGHT, **named})
            assert found == (403, "fleet_only"), (route.method, path)


async def test_a_forwarded_path_leads_to_no_other_route(two: Two) -> None:
    first, second = two
    row = first.face.directory.machines["m2"]
    shown = {"name": "x", "level": "admin", "instances": []}
    for path in (
        "/api/instance/shop/../../keys",
        "/api/instance/%2e%2e/keys",
        "/api/instance/shop%2f..%2f..%2fkeys",
        "//api/keys",
        "/api/keys?id=shop",
    ):
        status, answer = await first.face.peers.ask(row, Sent("GET", path, caller=shown))
        assert status in (400, 403, 404), (path, answer)
    assert not second.keys.kept


async def test_a_forwarded_request_is_never_forwarded_again(two: Two) -> None:
    first, second = two
    headers = {"Authorization": RIGHT, CALLER: caller(through="m3")}
    # m1 knows that m2 owns it, and does not ask m2 for m3.
    found = await ask(first, "POST", "/api/instance/shop/stop", headers)
    assert found == (503, "not_owner")
    assert second.supervisor.view(InstanceId("shop")).desired.override == "none"


async def test_only_a_machine_of_the_fleet_gets_a_promise(two: Two) -> None:
    first, second = two
    row = first.face.directory.machines["m2"]
    assert await first.face.peers.ask_promise(row, 1, 7)
    assert second.face.asked == [("promise", 1, 7, "")]
    assert not await first.face.peers.ask_promise(replace(row, name="m3"), 1, 7), (
        "the address of a machine that has another one by now"
    )
    assert len(second.face.asked) == 1
    second.face.promises = False
    assert not await first.face.peers.ask_promise(row, 1, 7, "1763.5")
    assert second.face.asked[1:] == [("promise", 1, 7, "1763.5")]
    assert await first.face.peers.rehearse_promise(row, 1, 7) == "it answers, and would not promise"
    second.face.promises = True
    assert await first.face.peers.rehearse_promise(row, 1, 7) == ""
    assert await over(first.face.peers)(row, Member(1, 7, 0)) == second.face.word
    assert [it[0] for it in second.face.asked[2:]] == ["rehearsal"] * 3
    asked = {"json": {"machine": 1, "epoch": 7}}
    admin = await second.key("an admin", "admin")
    for headers in ({}, admin, {"Authorization": "Fleet 00"}):
        found = await ask(second, "POST", "/api/fleet/promise", headers, **asked)
        assert found == (401, "fleet_bearer")
    async with second.local() as client:
        assert (await client.post("/api/fleet/promise", **asked)).status == 401
    assert len(second.face.asked) == 5


async def test_wrong_bearers_are_audited_and_slowed_and_the_right_one_is_not(
    two: Two, caplog: pytest.LogCaptureFixture
) -> None:
    machine, wrong = two[1], "ab" * 32
    with caplog.at_level("INFO"):
        found = [
            await ask(machine, "POST", "/api/fleet/promise", {"Authorization": f"Fleet {wrong}"})
            for _ in range(12)
        ]
    assert found[:10] == [(401, "fleet_bearer")] * 10
    assert found[10:] == [(503, "too_many_tries")] * 2
    assert any("refused 127.0.0.1" in record.getMessage() for record in caplog.records)
    assert wrong not in caplog.text
    row = two[0].face.directory.machines["m2"]
    assert await two[0].face.peers.ask_promise(row, 1, 7)


async def test_a_machine_with_another_key_is_told_apart_from_its_client(fleet: Fleet) -> None:
    first, second = await fleet.add("m1"), await fleet.add("m2", bearer="77" * 32)
    await second.own("shop")
    await fleet.settle()
    async with first.local() as client:
        answer = await client.get("/api/instance/shop")
        found = await answer.json()
    assert (answer.status, found["error"]) == (503, "fleet_key")
    assert BEARER not in found["message"]


@pytest.mark.parametrize("which", ["self", "other", "expired"])
async def test_the_bearer_is_not_sent_to_a_machine_with_a_wrong_certificate(
    fleet: Fleet, which: str
) -> None:
    first, second = await fleet.add("m1"), await fleet.add("m2", certificate=which)
    await second.own("shop")
    await fleet.settle()
    async with first.local() as client:
        answer = await client.post("/api/instance/shop/health")
        found = await answer.json()
    assert (answer.status, found["error"]) == (503, "owner_away")
    assert "certificate" in found["message"]
    assert not second.supervisor.checked


async def test_an_owner_gets_what_it_needs_and_no_secret_of_the_client(
    fleet: Fleet, certificates: Certificates
) -> None:
    """The owner is any server that shows a good certificate; it sends the client on."""
    first, got = await fleet.add("m1"), []

    async def answer(request: web.Request) -> web.Response:
        got.append(request)
        headers = {"Location": "https://evil.example/", "Set-Cookie": "a=b", "Server": "evil"}
        return web.Response(status=307, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=certificates.context("good"))
    try:
        coordinator = first.face.coordinator
        member = await coordinator.join(
            Machine("m2", str(uuid.uuid4()), address=f"https://127.0.0.1:{server.port}")
        )
        await coordinator.register(member, [NewSession("shop", "sandbox")])
        await fleet.settle()
        key = await first.key("app", "operate")
        secrets = {"Cookie": "c=d", "X-Forwarded-For": "1.2.3.4", "Proxy-Authorization": "x"}
        headers = {**key, **secrets, "Idempotency-Key": "k", "Accept": "text/plain"}
        async with first.local() as client:
            found = await client.post(
                "/api/instance/shop/stop?x=1", headers=headers, allow_redirects=False
            )
    finally:
        await server.close()
    assert found.status == 307
    assert found.headers.getall("Server") == ["wa-agent"]
    assert "Set-Cookie" not in found.headers
    assert [request.path_qs for request in got] == ["/api/instance/shop/stop?x=1"]
    sent = dict(got[0].headers)
    assert sent.pop("Authorization") == RIGHT
    assert json.loads(sent.pop(CALLER)) == {
        **{"name": "key app", "level": "operate", "instances": [], "through": "m1"}
    }
    assert {name.lower() for name in sent} == {
        *("host", "accept", "accept-encoding", "content-type", "content-length"),
        "idempotency-key",
    }


async def test_the_bearer_follows_no_proxy_of_the_environment(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    row = two[0].face.directory.machines["m2"]
    assert await two[0].face.peers.ask_promise(row, 1, 7)
    assert await two[0].face.peers.reachable([row]) == {"m2": True}


@pytest.mark.parametrize(
    ("address", "ca", "expected"),
    [
        ("http://8.8.8.8:8471", "", "loopback and private"),
        ("http://[::ffff:8.8.8.8]:8471", "", "loopback and private"),
        ("http://169.254.169.254", "", "loopback and private"),
        ("http://shop.example:8471", "", "loopback and private"),
        ("http://10.0.0.7:8471", "ca.pem", "plain http"),
        ("https://user:word@10.0.0.7", "", "no http"),
        ("ftp://10.0.0.7", "", "no http"),
        ("", "", "no http"),
    ],
)
def test_an_address_of_the_database_cannot_lure_the_bearer_away(
    address: str, ca: str, expected: str
) -> None:
    assert expected in refuse_peer(address, tls=bool(ca))
    assert not refuse_peer("http://10.0.0.7:8471", tls=False)
    assert not refuse_peer("https://shop.example", tls=True)
