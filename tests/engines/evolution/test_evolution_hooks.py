"""The webhook: set where it is ours to set, and read without trust."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.model import ConnectionStatus
from agent.engines.evolution.claims import Live
from agent.engines.evolution.settings import Pace
from agent.engines.evolution.view import SessionView
from agent.engines.evolution.webhook.hooks import (
    EVENTS,
    read_acks,
    read_event,
    read_messages,
)
from tests.conftest import Eventually
from tests.engines.evolution.conftest import PACE, Bench, MakeBench, MakeStandIn

Status = ConnectionStatus
SECRET = "hook-secret-77"


class Ear:
    """Where the agent's API would be: it hands the body to the backend."""

    def __init__(self) -> None:
        self.bench: Bench | None = None
        self.paths: list[str] = []
        self.fails = 0

    async def take(self, request: web.Request) -> web.Response:
        self.paths.append(request.path)
        if self.fails:
            self.fails -= 1
            return web.Response(status=500)
        assert self.bench is not None
        await self.bench.backend.hook(await request.json())
        return web.Response()


@pytest.fixture
async def ear() -> AsyncIterator[tuple[Ear, str]]:
    made = Ear()
    app = web.Application()
    app.router.add_post("/{path:.*}", made.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield made, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture(params=["2.3.7", "1.8.6"])
async def hooked(
    request: pytest.FixtureRequest,
    make_stand_in: MakeStandIn,
    make_bench: MakeBench,
    ear: tuple[Ear, str],
) -> Bench:
    standin = await make_stand_in(request.param)
    bench = await make_bench(standin, webhook=True, webhook_url=ear[1], hook=SECRET)
    ear[0].bench = bench
    await bench.backend.check()
    return bench


async def test_every_step_of_a_login_is_reported(
    hooked: Bench, ear: tuple[Ear, str], eventually: Eventually
) -> None:
    session = hooked.hold("sales")
    await session.connect()
    instance = hooked.standin.instances["sales"]
    await eventually(lambda: instance.webhook is not None)
    assert instance.webhook is not None
    assert instance.webhook["url"] == f"{ear[1]}/hooks/eu/{SECRET}"
    heard = hooked.by_id["sales"]
    await session.qr()
    await eventually(heard.last, (Status.QR_REQUIRED, ""))
    instance.scan()
    await eventually(heard.last, (Status.CONNECTED, ""))
    # Its proof reads the row: one that is read when the session has just ended, and was not yet
    # seen closed, counts as an older end.
    await eventually(lambda: heard.claims[-1].proof_age is not None)
    assert heard.claims[-1].account == instance.wuid.split("@")[0]
    instance.end(401)
    await eventually(heard.last, (Status.DISCONNECTED, "logout"))
    assert ear[0].paths[0] == f"/hooks/eu/{SECRET}"
    assert (await session.probe(deep=True)).detail["webhook"] == "ours"


async def test_messages_and_acks_are_counted_once_and_without_their_text(
    hooked: Bench, ear: tuple[Ear, str], eventually: Eventually
) -> None:
    instance = hooked.standin.add("sales", "open")
    hooked.hold("sales")
    await eventually(lambda: instance.webhook is not None)
    ear[0].fails = 1  # and the server repeats it
    tell = hooked.standin.webhooks.tell
    key = {"remoteJid": "5511777776666:3@s.whatsapp.net", "fromMe": False, "id": "IN1"}
    body = {"key": key, "messageType": "conversation", "message": {"conversation": "s3cret"}}
    tell(instance, "messages.upsert", body)
    tell(instance, "messages.upsert", body)
    mine = {**body, "key": {**key, "fromMe": True, "id": "OUT1"}, "messageType": "imageMessage"}
    tell(instance, "messages.upsert", mine)
    ack = {"fromMe": True, "status": "DELIVERY_ACK"}
    tell(instance, "messages.update", ack | ({"id": "X"} if hooked.standin.old else {"keyId": "X"}))
    happenings = hooked.by_id["sales"].happenings
    await eventually(lambda: len(happenings), 3)
    await eventually(lambda: hooked.standin.webhooks.sent, 4)
    found = {each.detail["id"]: dict(each.detail) for each in happenings}
    assert found["IN1"] == {
        "direction": "in",
        "type": "text",
        "id": "IN1",
        "peer": "5511777776666",
    }
    assert found["OUT1"] == {"direction": "out", "type": "imageMessage", "id": "OUT1"}
    assert found["X"] == {"id": "X", "ack": "delivered"}
    assert len(happenings) == 3
    assert "s3cret" not in repr(happenings)


async def test_a_webhook_of_another_program_is_left_alone(
    hooked: Bench, eventually: Eventually
) -> None:
    theirs = {"enabled": True, "url": "http://crm.example/in", "events": ["MESSAGES_UPSERT"]}
    instance = hooked.standin.add("sales", "open")
    instance.webhook = dict(theirs)
    session = hooked.hold("sales")

    async def word() -> str:
        return str((await session.probe(deep=True)).detail["webhook"])

    await eventually(word, "taken")
    assert instance.webhook == theirs


@pytest.mark.parametrize("hooked", ["2.3.7"], indirect=True)  # 1.8 does not tell it
async def test_our_own_deletion_is_not_taken_for_a_loss(
    hooked: Bench, eventually: Eventually
) -> None:
    instance = hooked.standin.add("sales", "open")
    session = hooked.hold("sales")
    await eventually(lambda: instance.webhook is not None)
    await session.renew(confirmed=True)
    removed = {"event": "remove.instance", "instance": "sales", "data": None}
    await hooked.backend.hook(removed)
    reasons = {each.reason for each in hooked.by_id["sales"].claims}
    assert "remote_missing" not in reasons
    del hooked.standin.instances["sales"]
    await hooked.backend.hook(removed)
    assert hooked.by_id["sales"].last() == (Status.DISCONNECTED, "remote_missing")


LATE = [
    *(
        ("connection.update", {"state": "close", "statusReason": code})
        for code in (401, 402, 403, 405, 406, 411, 440, 500)
    ),
    ("logout.instance", None),
    ("status.instance", {"status": "closed", "disconnectionReasonCode": 401}),
    ("status.instance", {"status": "closed", "disconnectionReasonCode": 500}),
    ("connection.update", {"state": "connecting", "statusReason": 200}),
    ("connection.update", {"state": "refused", "statusReason": 500}),
    ("qrcode.updated", {"qrcode": {"code": "2@of-an-earlier-login", "count": 1}}),
    ("qrcode.updated", {"message": "QR code limit reached, please login again"}),
]
"""What may come half an hour late, after another login."""
ENDS = ("logout", "banned", "temporary_ban", "account_locked")


def told_late(kind: str, content: Any) -> dict[str, Any]:
    stamp = "2026-01-01T00:00:00.000Z"
    return {"event": kind, "instance": "sales", "date_time": stamp, "data": content}


@pytest.mark.parametrize("version", ["1.8.6"])
@pytest.mark.parametrize("looked", [True, False], ids=["seen before", "a new worker"])
async def test_no_late_event_ends_a_session_that_is_open(
    make_stand_in: MakeStandIn, make_bench: MakeBench, version: str, looked: bool
) -> None:
    """The server repeats each event for half an hour; the state at its arrival decides."""
    bench = await make_bench(await make_stand_in(version))
    bench.standin.add("sales", "open")
    for kind, content in LATE:
        session = bench.hold("sales")
        if looked:
            await session.probe(deep=True)
        await bench.backend.hook(told_late(kind, content))
        assert (await session.probe()).claim.status is Status.CONNECTED
        bad = [one for one in bench.by_id["sales"].claims if one.status is not Status.CONNECTED]
        assert bad == [], (kind, content)
        bench.backend.release(session.id)


@pytest.mark.parametrize("version", ["2.3.7"])
async def test_no_late_event_ends_a_pairing_while_whatsapp_is_away(
    make_stand_in: MakeStandIn, make_bench: MakeBench, eventually: Eventually, version: str
) -> None:
    bench = await make_bench(await make_stand_in(version))
    instance = bench.standin.add("sales", "open")
    session = bench.hold("sales")
    await session.probe(deep=True)
    bench.standin.silence(True)
    instance.drop(408)
    await eventually(lambda: instance.state, "connecting")
    await session.probe()
    for kind, content in LATE:
        await bench.backend.hook(told_late(kind, content))
        claim = (await session.probe()).claim
        assert claim.paired, (kind, content, claim)
    told = [one.reason for one in bench.by_id["sales"].claims]
    assert not set(told) & set(ENDS), told


@pytest.mark.parametrize("version", ["1.8.6"])
@pytest.mark.parametrize("looked", [True, False], ids=["seen before", "a new worker"])
async def test_no_late_event_ends_a_pairing_between_two_tries_of_its_server(
    make_stand_in: MakeStandIn, make_bench: MakeBench, version: str, looked: bool
) -> None:
    pace = replace(PACE, stays_closed=60.0)
    for kind, content in LATE:
        bench = await make_bench(await make_stand_in(version, again=60.0), pace=pace)
        instance = bench.standin.add("sales", "open")
        await bench.backend.check()
        session = bench.hold("sales")
        if looked:
            await session.probe(deep=True)
        instance.drop(408)
        await bench.backend.hook(told_late(kind, content))
        claim = (await session.probe()).claim
        assert claim.paired or not looked, (kind, content, claim)
        assert claim.reason not in (*ENDS, "qr_idle"), (kind, content, claim)


async def test_a_repeated_old_event_is_ignored(bench: Bench) -> None:
    bench.standin.add("sales", "open")
    bench.hold("sales")
    for state, at in (("open", "10:00:05.000Z"), ("close", "10:00:01.000Z")):
        data = {"instance": "sales", "state": state, "statusReason": 401}
        stamp = f"2026-01-15T{at}"
        told = {"event": "connection.update", "instance": "sales", "data": data}
        await bench.backend.hook({**told, "date_time": stamp})
    assert bench.by_id["sales"].last() == (Status.CONNECTED, "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
NAMES = ("state", "statusReason", "status", "disconnectionReasonCode", "qrcode", "code", "key")
NAMES += ("id", "fromMe", "message", "count", "pairingCode", "keyId", "wuid", "messageType")
BODIES = st.dictionaries(st.sampled_from(NAMES), JSON, max_size=6)


@settings(max_examples=300)
@given(
    event=st.sampled_from([each.lower().replace("_", ".", 1) for each in EVENTS]) | st.text(),
    content=JSON | BODIES | st.lists(BODIES, max_size=3),
    stamp=JSON | st.just("2026-01-15T10:00:00.000Z"),
)
def test_no_body_breaks_the_view(event: str, content: Any, stamp: Any) -> None:
    raw = {"event": event, "instance": "sales", "data": content, "date_time": stamp}
    read = read_event(raw)
    view = SessionView(Pace())
    if read is not None:
        view.note_event(read)
        assert view.claim().status in Status
        assert view.live in Live
    for happening in (*read_messages(content), *read_acks(content)):
        assert set(happening.detail) <= {"direction", "type", "id", "peer", "ack"}
        assert all(isinstance(value, str) for value in happening.detail.values())
