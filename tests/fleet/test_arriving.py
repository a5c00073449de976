"""Sessions that go on on another machine: their files, messages and orders, with real agents."""

import io
import json
import os
import signal
import sqlite3
from asyncio import gather
from collections.abc import Callable
from contextlib import closing
from typing import Any

import aiohttp

from agent.core.model import InstanceId
from agent.fleet.copies.change import FleetKey, Sealed, seal
from agent.fleet.copies.changed import Beside, Changed
from agent.fleet.copies.standby import Standby
from agent.fleet.etcd import Put
from agent.fleet.forward import HEADER
from agent.fleet.peers import NAME, OWNER
from agent.fleet.records import Session, encoded
from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent, cli, done, make_agent
from tests.fleet.members import Members
from tests.fleet.test_agents import KEYS, NEW, etcd, in_fleet, is_well, its, reason, says, store_of
from tests.ports import free_port
from tests.waiting import alive, connected

__all__ = ["etcd", "make_agent"]
ONE, PEER, KEY = "/api/instance/s", "4915112345678", FleetKey(b"k" * 32)


async def rows(agent: RunningAgent, *, others: bool = False) -> list[Any]:
    every = (await agent.do("GET", "/api/instances"))["instances"]
    return [it for it in every if ("machine" in it) == others]


async def said(agent: RunningAgent) -> str:
    """The sentence of the first session of another machine, up to its first comma."""
    return str((await rows(agent, others=True))[0]["sentence"]).partition(",")[0]


async def test_a_session_goes_on_with_its_copy(
    make_agent: Callable[..., RunningAgent], etcd: Members, eventually: Eventually
) -> None:
    a, b = two_with_key(make_agent, etcd)
    async with store_of(etcd) as store:
        await a.start()
        await connected(a, eventually, "s")
        account = (await a.show("s"))["account"]
        await a.do("POST", "/api/instance/s/stop")
        await eventually(lambda: a.pid("s"), 0)
        await done(a, "send", "s", PEER, "hello", "--wait", 0)
        await a.stop()
        beside = Beside(root := a.state / "sessions", a.state / "outbox.db")
        (it := root / "s/instance.json").write_text(it.read_text().replace('boot": "', 'boot": "x'))
        beside.look()
        change = Changed(root, InstanceId("s"), "sandbox", beside).look()
        copy = seal(KEY, Sealed("s", 1, 7, True, "row", b""), change)
        Standby(b.state / "fleet/standby", KEY).take(copy)
        moved = Session("b", 2, "sandbox", wanted="stopped")
        await store.commit([], [Put(KEYS.session("s"), encoded(moved))])
        await b.start({"WA_FAILPOINT": "staging_in_place:kill"}, ready=False)
        await eventually(lambda: b.process.returncode is not None)
        await b.start()
        orders = b.state / "fleet/orders.json"
        await eventually(lambda: orders.exists() and json.loads(orders.read_text())["s"][1], 2)
        await eventually(lambda: reason(b, "s"), "stopped")
        assert (await b.show("s"))["account"] == account
        await b.do("POST", f"{ONE}/start")  # its agent crashed: it waits for the new lease
        await eventually(lambda: b.status("s"), "CONNECTED")
        await eventually(lambda: outbox(b), ["read"])


async def test_a_machine_takes_over_and_gives_back(
    make_agent: Callable[..., RunningAgent], etcd: Members, eventually: Eventually
) -> None:
    a, b = two_with_key(make_agent, etcd)
    async with store_of(etcd) as store:
        await gather(a.start(), b.start())
        await connected(a, eventually, "s")
        account = (await a.show("s"))["account"]
        await eventually(lambda: its(store, "s", "copies"), ("b",))
        await any_machine_is_asked(a, b)
        await eventually(lambda: outbox(a), ["read"])
        behind = f"{ONE}/messages?after={(await a.do('GET', f'{ONE}/messages'))['next']}"
        # The session's machine is dead, as far as others see: it goes on there, as ordered last.
        pid = await a.pid("s")
        await a.do("POST", "/api/instance/s/stop")
        assert b'"stopped"' in Standby(b.state / "fleet/standby", KEY).build("s")["instance.json"]
        a.process.send_signal(signal.SIGSTOP)  # it takes a connection, and says nothing
        await eventually(lambda: said(b), "a says nothing of it now: it was stopped by an order")
        told = (await b.ask("DELETE", ONE))[1]
        assert (told["error"], told["message"][-17:]) == ("owner_away", "no answer in time")
        await a.kill()
        await eventually(lambda: not alive(pid))
        await eventually(lambda: rows(b))
        await eventually(lambda: reason(b, "s"), "stopped")
        await b.do("POST", "/api/instance/s/start")
        await eventually(lambda: is_up(b, account))
        assert [await its(store, "s", it) for it in ("machine", "epoch")] == ["b", 2]
        assert "message_gap" in str(await b.do("GET", behind)), "its machine may have taken more"
        # The machine comes back: its folder is old, and goes once it has a copy of the newer one.
        # A message that only this machine had accepted is sent there: no copy has it, since the
        # machine died meanwhile.
        late = "id = 'out_late', state = 'sending', message_id = '', repeats = '', content = ?"
        content = json.dumps({"key": "k", "to": PEER, "type": "text", "text": "late"})
        with closing(sqlite3.connect(a.state / "outbox.db")) as db, db:
            db.execute(f"update messages set {late}", [content])
        await a.start()
        await eventually(lambda: its(store, "s", "copies"), ("a",))
        await eventually(lambda: rows(a), [])
        await eventually(lambda: outbox(b), ["read", "read"])
        await eventually(lambda: is_well(a))
        # An operator gives it back.
        assert await cli(a, "fleet", "move", "s", "a") == (0, "s is a's now\n")
        await eventually(lambda: is_up(a, account))
        await eventually(lambda: its(store, "s", "copies"), ("b",))
        assert [await its(store, "s", it) for it in ("machine", "epoch")] == ["a", 3]
        assert str(await a.do("GET", behind)).count("message_gap") == 1, "and the other has not"
        await eventually(lambda: rows(b), [])
        await eventually(lambda: is_well(b))
        assert "cannot go on with it" not in a.log.read_text()
        # An operator wants the session's machine empty.
        await done(a, "fleet", "drain")
        await eventually(lambda: is_up(b, account))
        assert " drained " in (await cli(b, "fleet", "status"))[1]
        assert [(await a.ask(*NEW))[0], (await cli(a, "fleet", "undrain"))[0]] == [409, 0]


async def test_a_stop_without_store_and_other_machines_is_in_order(
    make_agent: Callable[..., RunningAgent], etcd: Members, eventually: Eventually
) -> None:
    a, b = two_with_key(make_agent, etcd)
    async with store_of(etcd) as store:
        await gather(a.start(), b.start())
        assert sorted(it[0] for it in await gather(a.ask(*NEW), b.ask(*NEW))) == [201, 409]
        await connected(a, eventually, "s")
        await eventually(lambda: its(store, "s", "copies"), ("b",))
        await b.kill()
        etcd.kill("m0")
        await eventually(lambda: says(a, "cannot reach etcd", path="/api/fleet/sessions/s"))
        assert (await a.stop(), "the agent has stopped" in a.log.read_text()) == (0, True)


def two_with_key(make_agent: Callable[..., RunningAgent], etcd: Members) -> list[RunningAgent]:
    both = [make_agent(name="a"), make_agent(name="b")]
    for one in both:
        in_fleet(one, etcd, one.state.name, f"127.0.0.1:{free_port()}")
    return both


async def outbox(agent: RunningAgent) -> list[str]:
    return [it["state"] for it in (await agent.do("GET", "/api/instance/s/outbox"))["messages"]]


async def any_machine_is_asked(a: RunningAgent, b: RunningAgent) -> None:
    """The session is one of `a`."""
    hello, keyed = {"to": PEER, "text": "hello"}, {"Idempotency-Key": "kéy"}
    sent = [await it.ask("POST", f"{ONE}/messages?wait=20", hello, keyed) for it in (b, a, b)]
    assert [(status, it["id"]) for status, it in sent] == [(200, sent[0][1]["id"])] * 3
    assert await said(b) == "on a: connected"
    settings = {**(await b.show("s"))["settings"], "name": "token=abcdefgh"}
    await b.do("PATCH", ONE, {"settings": settings})
    assert (await a.show("s"))["settings"] == settings
    key = await b.do("POST", "/api/keys", {"name": "looks", "scopes": ["read"]})
    looks = {"Authorization": f"Bearer {key['token']}"}
    shown = (await b.ask("GET", f"{ONE}/details", None, looks))[1]["settings"]
    assert [shown["name"], (await b.ask("DELETE", ONE, None, looks))[0]] == ["token=[removed]", 403]
    assert f"uid {os.getuid()} via machine b: PATCH {ONE}" in a.log.read_text()
    # Requests that another machine may not make
    machines = (await b.do("GET", "/api/fleet"))["machines"]

    async def code(path: str, name: str = "b", epoch: Any = 1, body: Any = None) -> tuple[int, str]:
        headers = {"Host": OWNER, NAME: name, HEADER: json.dumps(["x", 4, False, epoch])}
        url = f"http://{machines[0]['address']}{path}"
        async with aiohttp.request("POST", url, headers=headers, data=body) as reply:
            return reply.status, (await reply.json())["error"]

    assert await code(f"{ONE}/stop", epoch=0) == (503, "owner_changed")
    assert await code(f"{ONE}/stop", "stranger") == (503, "unknown_machine")
    assert await code(f"{ONE}/stop", epoch="") == (400, "invalid_request")
    assert await code(f"{ONE}/logout", body=io.BytesIO(bytes(2 << 20))) == (413, "too_large")
    assert await code("/api/keys") == (404, "unknown_route")


async def is_up(agent: RunningAgent, account: str) -> bool:
    its = [(it["connection_status"], it["account"]) for it in await rows(agent)]
    return its == [("CONNECTED", account)]
