"""Who may do what."""

import aiohttp
import pytest

from agent.api.handlers.backends import NEW_KEY
from agent.api.http.auth import Caller, KeyRing, Right
from agent.api.http.call import Route, plain_path, read_body
from agent.api.routes import ROUTES
from agent.config.config import is_loopback
from agent.core.model import InstanceId
from agent.errors import InvalidRequest, NotFound, Unauthorized
from tests.api.conftest import House, OpenHouse
from tests.fakes.supervisor import FakeKeys, make_view

A, B = InstanceId("a"), InstanceId("b")


def test_a_right_is_had_or_not() -> None:
    none, own = Caller("x"), Caller("x", instances=frozenset({A}))
    read, operate = Caller("x", Right.READ), Caller("x", Right.OPERATE)
    for caller, right, instance, expected in (
        (none, Right.OPEN, None, True),
        (none, Right.SOME, None, False),
        (read, Right.READ, A, True),
        (read, Right.OPERATE, A, False),
        (operate, Right.READ, A, True),
        (operate, Right.ADMIN, None, False),
        (Caller("x", Right.ADMIN), Right.ADMIN, None, True),
        (own, Right.OPERATE, A, True),
        (own, Right.READ, B, False),
        (own, Right.OPERATE, None, False),
        (own, Right.ADMIN, A, False),
        (own, Right.SOME, None, True),
    ):
        assert caller.may(right, instance) is expected, (caller, right, instance)


async def test_only_a_hash_of_a_key_is_kept_and_a_near_miss_opens_nothing() -> None:
    store = FakeKeys()
    ring = KeyRing(store, await store.keys())
    row, token = await ring.add("prometheus", ("read",))
    assert token not in repr(store.kept)
    assert token.startswith(f"wak_{row.id}_")
    assert ring.caller(token).level is Right.READ
    for wrong in (token[:-1], token + "x", token.upper(), f"wak_{row.id}_", "", "wak_", "\udcff"):
        with pytest.raises(Unauthorized):
            ring.caller(wrong)
    assert KeyRing(store, await store.keys()).caller(token).name == "key prometheus"
    await ring.remove(row.id)
    with pytest.raises(Unauthorized):
        ring.caller(token)
    with pytest.raises(NotFound):
        await ring.remove(row.id)


async def test_a_key_outlives_a_deleted_instance_for_its_others_also_in_the_next_agent() -> None:
    ring = KeyRing(store := FakeKeys(), ())
    await ring.add("own", (f"instance:{A}",))
    row, _ = await ring.add("both", (f"instance:{A}", f"instance:{B}"))
    for wide in ("operate", "instance:all"):
        with pytest.raises(InvalidRequest, match=r"the word all|every session"):
            await ring.add("wide", (f"instance:{A}", wide))
    await ring.end_of(A)
    for its in (ring, KeyRing(store, await store.keys())):
        assert [(it.id, it.scopes) for it in its.rows()] == [(row.id, (f"instance:{B}",))]


@pytest.mark.parametrize("words", [[], ["root"], ["instance:"], ["instance:../x"], ["read", ""]])
def test_a_wrong_scope_makes_no_key(words: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        read_body({"name": "x", "scopes": words}, NEW_KEY)


def test_loopback_is_told_from_what_looks_like_it() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "localhost"):
        assert is_loopback(host), host
    for host in ("10.0.0.1", "localhost.evil.example", "127.0.0.1.evil.example"):
        assert not is_loopback(host), host


def example(path: str) -> str:
    trashed = "sales.20260115T103045Z" if "/trash/" in path else "evo"
    named = {"id": "sales", "name": trashed, "group": "sandbox", "message": "out_0123456789ab"}
    copies = dict.fromkeys(("snapshot", "removed", "failed"), "20260115T103045Z")
    return plain_path(path).format(key="abcd1234", machine="c", **named, **copies)


LESS = {
    Right.READ: ["instance:other"],
    Right.OPERATE: ["read", "instance:other"],
    Right.ADMIN: ["operate"],
}


@pytest.mark.parametrize("row", ROUTES, ids=lambda row: f"{row.method} {row.path}")
async def test_no_route_opens_for_too_little(house: House, row: Route) -> None:
    house.supervisor.known[InstanceId("sales")] = make_view("sales")
    async with aiohttp.ClientSession(house.url) as anyone:
        answer = await anyone.request(row.method, example(row.path))
        await answer.read()  # an answer that is not read keeps its connection
        assert answer.status == (200 if row.right is Right.OPEN else 401)
        if answer.status == 401:
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        if answer.status == 401 and row.right in LESS:
            key = await house.key(*LESS[row.right])
            answer = await anyone.request(row.method, example(row.path), headers=key)
            assert (answer.status, (await answer.json())["error"]) == (403, "forbidden")


async def test_a_key_for_one_instance_sees_and_moves_only_that_one(house: House) -> None:
    for id in ("a", "b"):
        house.supervisor.known[InstanceId(id)] = make_view(id)
    async with aiohttp.ClientSession(house.url, headers=await house.key("instance:a")) as session:
        listed = await (await session.get("/api/instances")).json()
        assert [one["id"] for one in listed["instances"]] == ["a"]
        assert listed["total"] == 1
        assert (await session.post("/api/instance/a/stop")).status == 202
        for path in ("/api/instance/b", "/api/events", "/metrics", "/api/keys"):
            assert (await session.get(path)).status == 403, path
        for path in ("/api/instance/b/stop", "/api/instance"):
            assert (await session.post(path)).status == 403, path


async def test_a_key_that_was_sent_decides_even_where_the_way_in_is_trusted(house: House) -> None:
    key = await house.key("read")
    async with house.local(base_url="http://localhost") as local:
        assert (await local.get("/api/keys", headers=key)).status == 403
        wrong = {"Authorization": "Bearer wak_aaaaaaaa_" + "x" * 40}
        assert (await local.get("/api/health", headers=wrong)).status == 401
        basic = {"Authorization": "Basic cm9vdDpyb290"}
        assert (await local.get("/api/health", headers=basic)).status == 401


async def test_the_unix_socket_is_trusted_only_by_setting(open_house: OpenHouse) -> None:
    async with open_house(trust_socket=False) as house, house.local() as local:
        assert (await local.get("http://localhost/api/health")).status == 401
        assert (await local.get("http://localhost/healthz")).status == 200


async def test_loopback_is_trusted_only_by_setting_and_never_through_a_proxy(
    house: House, open_house: OpenHouse
) -> None:
    async with aiohttp.ClientSession(house.url) as session:
        assert (await session.get("/api/keys")).status == 401
    async with (
        open_house(trust_loopback=True, allowed_hosts=("a.example",)) as trusting,
        aiohttp.ClientSession(trusting.url) as session,
    ):
        assert (await session.get("/api/keys")).status == 200
        for name in ("X-Forwarded-Proto", "X-Real-IP", "Forwarded", "Via", "Host"):
            assert (await session.get("/api/keys", headers={name: "a.example"})).status == 401


async def test_a_failing_revocation_still_closes_the_door() -> None:
    class Broken(FakeKeys):
        async def remove_key(self, id: str) -> bool:
            raise OSError("disk full")

    store = Broken()
    ring = KeyRing(store, await store.keys())
    row, token = await ring.add("x", ("admin",))
    with pytest.raises(OSError, match="disk full"):
        await ring.remove(row.id)
    with pytest.raises(Unauthorized):
        ring.caller(token)
