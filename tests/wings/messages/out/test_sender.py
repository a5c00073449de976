"""The sender of one session over what stands in for the session: order, holds, unknown ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from agent.core.model import Claim, ClaimFact, ConnectionStatus, InstanceId
from agent.core.view import InstanceView
from agent.engines.catalog import CATALOG
from agent.errors import EngineError, TryLater, WaError
from agent.wings.messages.out.answer import End
from agent.wings.messages.out.file import OutboxFiles
from agent.wings.messages.out.message import OutMessage
from agent.wings.messages.out.rows import NewMessage
from agent.wings.messages.out.session.hold import Hold
from agent.wings.messages.out.session.queue import Waiting, waiting_of
from agent.wings.messages.out.session.sender import SessionSender
from agent.wings.messages.out.states import Pace, State
from agent.wings.messages.out.store import OutboxStore
from tests.fakes.supervisor import make_view

ID = InstanceId("sales")
CONNECTED = ConnectionStatus.CONNECTED
Eventually = Callable[..., Awaitable[Any]]
QUICK = Pace(first=0.02, longest=0.05, session_longest=0.05)
UNKNOWN = TryLater("cannot tell whether it was sent", code="unknown_outcome")


@dataclass
class Session:
    """Sends at once what no test forbids."""

    shown: InstanceView = field(default_factory=lambda: make_view(ID))
    sent: list[tuple[str, str]] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    refuses: dict[str, list[WaError]] = field(default_factory=dict)
    """By text, one for each try."""
    before_answer: list[Any] = field(default_factory=list)
    shows: list[str] = field(default_factory=list)
    """What a look finds, one after another; an error's code for "unknown"."""
    looked: list[float] = field(default_factory=list)

    def view(self, _id: InstanceId) -> InstanceView:
        return self.shown

    async def find(
        self, _id: InstanceId, _chat: str, _ids: Sequence[str]
    ) -> Mapping[str, Mapping[str, Any]]:
        return {}

    async def ask_sent(
        self, _id: InstanceId, message: Mapping[str, Any], begun_wall: float
    ) -> Mapping[str, Any]:
        self.looked.append(begun_wall)
        shown = self.shows.pop(0)
        if shown == "unknown":
            raise UNKNOWN
        if shown not in ("sent", "not_sent"):
            raise EngineError("its server is away", code=shown)
        return {"id": f"WA-{message['text']}" if shown == "sent" else "", "outcome": shown}

    async def send(
        self, _id: InstanceId, message: Mapping[str, Any], _file: Path | None = None
    ) -> Mapping[str, Any]:
        text = message["text"]
        self.tried.append(text)
        await asyncio.sleep(0)
        if self.refuses.get(text):
            raise self.refuses[text].pop(0)
        self.sent.append((message["to"], text))
        for call in self.before_answer:
            call(f"WA-{text}")
        return {"id": f"WA-{text}", "outcome": "sent"}


@dataclass
class Bench:
    session: Session
    store: OutboxStore
    sender: SessionSender
    ends: dict[str, End]

    async def take(self, to: str, text: str, *, impatient: bool = False) -> OutMessage:
        row = OutMessage(
            number=0,
            id=f"out_{text}",
            instance=ID,
            born=self.session.shown.instance.created_wall,
            chat=to,
            type="text",
            state=State.ACCEPTED,
            accepted_wall=1.0,
            expires_wall=9e9,
            changed_wall=1.0,
            repeats=f"key of {text}",
        )
        content = f'{{"type":"text","to":"{to}","text":"{text}","key":"k"}}'
        row, _ = await self.store.take(NewMessage(row, content), lambda _taken: None)
        self.sender.add(waiting_of(row, impatient=impatient))
        return row

    async def state(self, text: str) -> str:
        row = await self.store.find(ID, f"out_{text}")
        assert row is not None
        return f"{row.state} {row.reason}".strip()

    def held_for(self) -> str:
        self.sender.wake()
        return self.sender.hold.code if self.sender.hold else ""

    async def run(self) -> None:
        async with asyncio.timeout(30):
            await self.sender.run()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store, ends = await OutboxStore.open(tmp_path / "outbox.db"), {}

    def ended(waiting: Waiting, end: End) -> None:
        ends[waiting.id] = end

    session, files = Session(), OutboxFiles(tmp_path / "outbox")
    sender = SessionSender(ID, session, store, files, ended, pace=QUICK)
    yield Bench(session, store, sender, ends)
    await store.close()


@pytest.fixture
def settles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        CATALOG, "sandbox", replace(CATALOG["sandbox"], repeats=False, settles=True)
    )


@pytest.mark.parametrize(
    ("shows", "tried", "ends"),
    [
        (["sent"], 1, "sent"),
        (["unknown", "backend_down", "sent"], 1, "sent"),
        (["not_sent"], 2, "sent"),
        (["unknown"] * 4, 1, "failed unknown"),
    ],
)
async def test_an_unknown_outcome_is_looked_up_and_not_sent_again_for_that(
    bench: Bench, settles: None, shows: list[str], tried: int, ends: str
) -> None:
    bench.session.refuses["a1"] = [UNKNOWN]
    bench.session.shows = list(shows)
    await bench.take("a", "a1")
    await bench.take("a", "a2")
    await bench.run()
    assert bench.session.tried == ["a1"] * tried + ["a2"]
    assert bench.session.shows == []
    assert len(set(bench.session.looked)) == 1  # by the time of the try, not of the look
    assert (await bench.state("a1"), await bench.state("a2")) == (ends, "sent")


async def test_a_chat_keeps_its_order_and_its_trouble_delays_no_other(bench: Bench) -> None:
    bench.session.refuses["a1"] = [EngineError("x", code="browser_gone")] * 3
    for text in ("a1", "a2", "b1", "b2"):
        await bench.take(text[0], text)
    await bench.run()
    texts = [text for _, text in bench.session.sent]
    assert texts.index("a1") < texts.index("a2")
    assert texts.index("b2") < texts.index("a1")
    assert bench.session.tried.count("a1") == 4
    assert {await bench.state(text) for text in texts} == {"sent"}


async def test_what_is_about_the_message_fails_at_once_and_frees_its_key(bench: Bench) -> None:
    bench.session.refuses["a1"] = [EngineError("no such number", code="number_unknown")]
    first = await bench.take("a", "a1")
    await bench.take("a", "a2")
    await bench.run()
    assert await bench.state("a1") == "failed number_unknown"
    assert await bench.state("a2") == "sent"
    error = bench.ends["out_a1"].error
    assert error is not None
    assert (error.http, error.code) == (409, "number_unknown")
    row = await bench.store.find(ID, first.id)
    assert row is not None
    assert row.repeats == ""


async def test_a_refusal_after_an_unknown_outcome_does_not_say_that_it_stayed(
    bench: Bench,
) -> None:
    bench.session.refuses["a1"] = [UNKNOWN, EngineError("no", code="number_unknown")]
    row = await bench.take("a", "a1")
    await bench.run()
    assert await bench.state("a1") == "failed unknown"
    found = await bench.store.find(ID, row.id)
    assert found is not None
    assert found.repeats, "its key must not send it a second time"


async def test_a_client_that_waits_hears_the_refusal_and_nothing_is_kept(bench: Bench) -> None:
    bench.session.shown = make_view(ID, status=ConnectionStatus.DISCONNECTED)
    bench.session.refuses["a1"] = [EngineError("not connected", code="not_connected")]
    await bench.take("a", "a1", impatient=True)
    await bench.run()
    assert await bench.state("a1") == "failed not_connected"
    error = bench.ends["out_a1"].error
    assert error is not None
    assert (error.http, str(error)) == (409, "not connected")


async def test_a_client_that_waits_overtakes_no_earlier_message_of_its_chat(
    bench: Bench, eventually: Eventually
) -> None:
    connected = bench.session.shown
    bench.session.shown = replace(connected, status=ConnectionStatus.DISCONNECTED)
    bench.session.refuses["b1"] = [EngineError("not connected", code="not_connected")]
    await bench.take("a", "a1")
    await bench.take("a", "a2", impatient=True)
    await bench.take("b", "b1", impatient=True)
    running = asyncio.create_task(bench.run())
    await eventually(lambda: "out_b1" in bench.ends)
    assert bench.session.tried == ["b1"]
    bench.session.shown = connected
    bench.sender.wake()
    await running
    assert bench.session.tried == ["b1", "a1", "a2"]


async def test_a_time_lock_holds_the_session_until_whatsapp_lifts_it(
    bench: Bench, eventually: Eventually
) -> None:
    refusal = EngineError("cannot send: WhatsApp refused it with error 463", code="refused")
    bench.session.refuses["a1"] = [refusal]
    for text in ("a1", "a2"):
        await bench.take(text, text)
    free, claim = bench.session.shown, Claim(CONNECTED, "restricted", until_wall=9e9)
    locked = replace(free, reason="restricted", claim=ClaimFact(claim, 10.0, 5.0))
    bench.session.before_answer.append(lambda _id: setattr(bench.session, "shown", locked))
    running = asyncio.create_task(bench.run())
    await eventually(lambda: bench.held_for() == "restricted")
    assert bench.sender.hold is not None
    assert "error 463" in bench.sender.hold.sentence
    assert "2255" in bench.sender.hold.sentence, "it says until when"
    assert await bench.state("a1") == "accepted refused"
    bench.session.before_answer.clear()
    bench.session.shown = free
    bench.sender.wake()
    await running
    assert await bench.state("a1") == "sent"


async def test_an_acknowledgement_that_comes_before_the_answer_counts(bench: Bench) -> None:
    bench.session.before_answer += [
        lambda id: bench.sender.note_ack(id, "server"),
        lambda id: bench.sender.note_ack(id, "read"),
    ]
    await bench.take("a", "a1")
    await bench.run()
    assert await bench.state("a1") == "read"


def paired_with(bench: Bench, account: str, status: ConnectionStatus = CONNECTED) -> None:
    shown = bench.session.shown
    record = replace(shown.record, paired=bool(account), account=account)
    bench.session.shown = replace(shown, record=record, claim=None, status=status)


async def test_what_waits_at_a_logout_waits_for_the_same_account(
    bench: Bench, eventually: Eventually
) -> None:
    paired_with(bench, "4915100000001", ConnectionStatus.DISCONNECTED)
    await bench.take("1", "for the first")
    running = asyncio.create_task(bench.run())
    await eventually(lambda: bool(bench.held_for()))
    paired_with(bench, "", ConnectionStatus.QR_REQUIRED)
    bench.sender.wake()
    await eventually(lambda: "QR_REQUIRED" in (bench.sender.hold or Hold("", "")).sentence)
    paired_with(bench, "4915100000001:7@s.whatsapp.net")
    bench.sender.wake()
    await running
    assert bench.session.sent == [("1", "for the first")]


async def test_another_account_sends_nothing_that_was_accepted_before_it(
    bench: Bench, eventually: Eventually
) -> None:
    paired_with(bench, "4915100000001", ConnectionStatus.DISCONNECTED)
    await bench.take("1", "a")
    await bench.take("1", "b")
    await bench.take("2", "c")
    running = asyncio.create_task(bench.run())
    await eventually(lambda: bool(bench.held_for()))
    paired_with(bench, "4915100000002")
    bench.sender.wake()
    await running
    assert bench.session.tried == []
    for text in ("a", "b", "c"):
        assert await bench.state(text) == "failed other_account"
        error = bench.ends[f"out_{text}"].error
        assert error is not None and error.code == "other_account"
    await bench.take("1", "of the second")
    await bench.run()
    assert bench.session.sent == [("1", "of the second")]
