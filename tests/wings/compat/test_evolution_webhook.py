"""Webhooks in Evolution's form: a real agent with a session of the sandbox."""

from typing import Any

import pytest

from tests.wings.compat.conftest import CONTACT, ON, hook, recorded, shape_of
from tests.wings.webhooks.receiver import Receiver, Taken


@pytest.fixture
async def target():
    async with Receiver().open() as one:
        yield one


def events(target: Receiver, name: str) -> list[dict[str, Any]]:
    return [one.body for one in target.taken if one.body["event"] == name]


def real(name: str, **wanted: Any) -> dict[str, Any]:
    return next(
        each
        for each in recorded("webhooks")
        if each["event"] == name and wanted.items() <= (each["data"] or {}).items()
    )


def by_session(one: Taken) -> bool:
    return one.headers["X-WA-Delivery"].startswith("shop-")


async def test_a_receiver_of_evolutions_events_gets_all_of_them_past_a_kill(
    make_agent, target, eventually
):
    agent = make_agent(ON + hook(target))
    await agent.start()
    body = {"id": "shop", "engine": "sandbox", "settings": {"scan_after": 3600}}
    await agent.do("POST", "/api/instance", body)
    await eventually(lambda: len(events(target, "qrcode.updated")) > 0)
    (code, *_) = events(target, "qrcode.updated")
    shown = real("qrcode.updated")
    assert shape_of(code) == shape_of(shown)
    assert code["data"]["qrcode"]["base64"].startswith("data:image/png;base64,")
    await agent.do("POST", "/api/instance/shop/sandbox/scan", {})
    await eventually(lambda: agent.status("shop"), "CONNECTED")
    states = [each["data"]["state"] for each in events(target, "connection.update")]
    await eventually(lambda: last_state(target), "open")
    assert set(states) <= {"connecting", "close", "open"}
    opened = next(
        each for each in events(target, "connection.update") if each["data"]["state"] == "open"
    )
    assert shape_of(opened) == shape_of(real("connection.update", state="open"))

    await agent.kill()
    await agent.start()
    await eventually(lambda: agent.status("shop"), "CONNECTED")
    say = {"contact": CONTACT, "text": "good morning", "fields": {"name": "Ana"}}
    await agent.do("POST", "/api/instance/shop/sandbox/say", say)
    message = {"to": CONTACT, "text": "hello"}
    sent = await agent.do("POST", "/api/instance/shop/messages?wait=30", message)
    await eventually(lambda: len(events(target, "messages.update")) >= 3, within=30)
    (came,) = events(target, "messages.upsert")
    assert came["data"]["message"] == {"conversation": "good morning"}
    assert (came["data"]["pushName"], came["data"]["status"]) == ("Ana", "DELIVERY_ACK")
    no_lid = {".data.key.remoteJidAlt: str"}
    assert shape_of(real("messages.upsert")) - shape_of(came) == no_lid
    assert shape_of(came) <= shape_of(real("messages.upsert"))
    (out,) = events(target, "send.message")
    assert (out["data"]["key"]["id"], out["data"]["message"]) == (
        sent["id"],
        {"conversation": "hello"},
    )
    assert shape_of(out) <= shape_of(real("send.message"))
    acks = events(target, "messages.update")
    assert [each["data"]["status"] for each in acks] == ["SERVER_ACK", "DELIVERY_ACK", "READ"]
    assert {each["data"]["keyId"] for each in acks} == {sent["id"]}
    assert shape_of(acks[1]) == shape_of(real("messages.update"))
    await agent.do("POST", "/api/instance/shop/stop")
    await eventually(lambda: last_state(target), "close")
    log = agent.log.read_text()
    assert "good morning" not in log
    assert code["data"]["qrcode"]["code"] not in log


def last_state(target: Receiver) -> str:
    return str(events(target, "connection.update")[-1]["data"]["state"])


async def test_what_its_target_refuses_is_a_dead_letter_and_comes_again(
    make_agent, target, eventually
):
    target.status = lambda body: 422 if body["data"].get("messageType") else 200
    agent = make_agent(hook(target, '"message"') + "tries = 1\n")
    await agent.start()
    await agent.create("shop")
    await eventually(lambda: agent.status("shop"), "CONNECTED")
    say = {"contact": CONTACT, "text": "refused"}
    await agent.do("POST", "/api/instance/shop/sandbox/say", say)
    await eventually(lambda: dead(agent), 1)
    target.status = lambda body: 200
    await agent.do("POST", "/api/webhooks/bot/retry")
    await eventually(lambda: dead(agent), 0)
    (taken,) = events(target, "messages.upsert")
    assert taken["data"]["message"] == {"conversation": "refused"}
    first, *others = [one.headers["X-WA-Delivery"] for one in target.asked if by_session(one)]
    assert others == [first]
    for unknown, said in (("x", "is no form"), ("Evolution", "is no form")):
        agent.config.write_text(agent.config.read_text().replace('"evolution"', f'"{unknown}"'))
        assert said in (await agent.ask("POST", "/api/reload", {}))[1].get("message", said)
        agent.config.write_text(agent.config.read_text().replace(f'"{unknown}"', '"evolution"'))


async def dead(agent: Any) -> int:
    (found,) = (await agent.do("GET", "/api/webhooks"))["webhooks"]
    return int(found["dead"])
