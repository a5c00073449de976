"""A session's sender at a pace: what waits says why and until when, and a restart forgets nothing
of what was used."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.core.model import InstanceId
from agent.errors import Refused
from agent.supervise.messages.page import MessagePage
from agent.wings.messages.out.file import OutboxFiles
from agent.wings.messages.out.session.pace import DAY, Moment
from agent.wings.messages.out.session.pacing import PaceOf, Pacer, person_in
from agent.wings.messages.out.session.people import PeopleReader
from agent.wings.messages.out.session.queue import waiting_of
from agent.wings.messages.out.session.sender import SessionSender
from agent.wings.messages.out.store import OutboxStore
from agent.wings.messages.settings import PaceSettings
from tests.fakes.supervisor import make_view
from tests.wings.messages.out.test_sender import ID, QUICK, Bench, Session
from tests.wings.messages.spools import message


@dataclass
class Clock:
    """Stands still until a test moves it."""

    at: float = 1000.0
    wall: float = 1e9
    boot: str = "one"

    def moment(self, wall: float) -> Moment:
        return Moment(self.boot, self.at, wall)

    def pass_by(self, seconds: float) -> None:
        self.at += seconds
        self.wall += seconds


@dataclass
class Paced:
    store: OutboxStore
    clock: Clock = field(default_factory=Clock)
    rules: PaceSettings = field(default_factory=PaceSettings)
    paired_wall: float | None = None

    async def paired(self, _id: InstanceId) -> float | None:
        return self.paired_wall

    async def pacer(self, **rules: Any) -> Pacer:
        """Of an agent that has just started."""
        self.rules = replace(self.rules, **rules)
        of = PaceOf(lambda: self.rules, self.paired, self.clock.moment)
        pacer = Pacer(ID, self.store.ledger, of, lambda: self.clock.wall, lambda: 0.0)
        await pacer.load(make_view(ID))
        return pacer

    def sender(self, session: Session, **rules: Any) -> Bench:
        self.rules = replace(self.rules, **rules)
        ends: dict[str, Any] = {}
        sender = SessionSender(
            *(ID, session, self.store, OutboxFiles(Path("/nowhere"))),
            lambda waiting, end: ends.update({waiting.id: end}),
            pace=QUICK,
            pace_of=PaceOf(lambda: self.rules, self.paired),
        )
        return Bench(session, self.store, sender, ends)


@pytest.fixture
async def paced(tmp_path: Path) -> AsyncIterator[Paced]:
    store = await OutboxStore.open(tmp_path / "outbox.db")
    await store.ledger.open_mark()
    yield Paced(store)
    await store.close()


async def test_the_pace_holds_the_session_until_the_next_may_go(paced: Paced) -> None:
    pacer = await paced.pacer(per_minute=2)
    assert pacer.hold() is None and await pacer.take("1") is None
    hold = pacer.hold()
    assert hold is not None and hold.code == "paced" and hold.until_wall == 1e9 + 30
    assert "[messages.pace]" in hold.sentence and "2001-09-09" in hold.sentence
    paced.clock.pass_by(29.9)
    assert pacer.hold() is not None
    paced.clock.pass_by(0.2)
    assert pacer.hold() is None


@pytest.mark.parametrize("jump", [0.0, -1e8, 1e8])
async def test_an_agent_that_was_restarted_goes_on_where_the_one_before_it_was(
    paced: Paced, jump: float
) -> None:
    await (await paced.pacer(per_minute=2)).take("1")
    paced.clock.wall += jump
    paced.clock.pass_by(10.0)
    hold = (await paced.pacer()).hold()
    assert hold is not None and hold.until_wall == pytest.approx(paced.clock.wall + 20)


async def test_only_new_people_wait_for_their_limit(paced: Paced) -> None:
    pacer = await paced.pacer(new_people=2)
    key = await paced.store.ledger.key()
    known = person_in("77", key)
    assert known is not None
    await paced.store.ledger.meet(ID, [known], 0, paced.clock.moment(1e9))
    assert [await pacer.take(chat) for chat in ("1", "2", "1", "2")] == [None] * 4
    hold = await pacer.take("3")
    assert hold is not None and hold.code == "new_people" and hold.until_wall == 1e9 + DAY
    for chat in ("1", "77", "1203@g.us", "1203@newsletter"):
        assert await pacer.take(chat) is None
    again = await paced.pacer()
    assert await again.take("3") is not None, "a restart gives no second day"
    paced.clock.pass_by(DAY)
    assert await again.take("3") is None


async def test_no_number_of_a_person_is_kept(paced: Paced, tmp_path: Path) -> None:
    pacer = await paced.pacer(new_people=2)
    await pacer.take("4915112345678")
    files = b"".join(path.read_bytes() for path in tmp_path.glob("outbox.db*"))
    assert b"4915112345678" not in files
    assert (tmp_path / "outbox.db").stat().st_mode & 0o777 == 0o600


async def test_what_waits_for_the_pace_says_so_and_goes_on_in_the_next_agent(
    paced: Paced, eventually: Any
) -> None:
    bench = paced.sender(Session(), per_minute=0.1, jitter=0.0)
    for text in ("a", "b"):
        await bench.take(text, text)
    for _ in range(2):
        running = asyncio.create_task(bench.run())
        await eventually(lambda sender=bench.sender: sender.paced is not None)
        assert bench.sender.paced is not None and bench.sender.hold is None
        assert "600 s" in bench.sender.paced.sentence
        running.cancel()
        bench = paced.sender(bench.session)
        for row in await paced.store.waiting():
            bench.sender.add(waiting_of(row))
    assert bench.session.sent == [("a", "a")]
    paced.rules = PaceSettings()
    await bench.run()
    assert bench.session.sent == [("a", "a"), ("b", "b")]


async def test_who_wrote_and_who_was_written_to_is_no_new_person(paced: Paced) -> None:
    def record(chat: str, **more: Any) -> dict[str, Any]:
        return {**message(1), "chat": chat, "sender": chat, **more}

    records = (
        record("11@s.whatsapp.net", alias="9011@lid"),
        record("12@lid", sender="12@lid", alias="12000@s.whatsapp.net"),
        record("13@s.whatsapp.net", from_me=True, sender="99@s.whatsapp.net"),
        record("1203@g.us", sender="14@s.whatsapp.net"),
        {**record("15@s.whatsapp.net"), "kind": "message_ack"},
    )
    asked: list[int] = []

    async def page(id: InstanceId, after: int, limit: int) -> MessagePage:
        if id != ID:
            raise Refused("its worker does not run", code="not_running")
        asked.append(after)
        return MessagePage(records if after < 5 else (), 5, 1, 5, more=False)

    source: Any = SimpleNamespace(page=page)
    ledger, key = paced.store.ledger, await paced.store.ledger.key()
    for _ in range(2):
        reader = PeopleReader(source, lambda: paced.rules, lambda: paced.clock.moment(1e9))
        for id in (InstanceId("gone"), ID):
            await reader._read(ledger, id, key)
    assert asked == [0, 5]

    async def knows(chat: str) -> bool:
        person = person_in(chat, key)
        assert person is not None
        return await ledger.knows(ID, person)

    chats = ("11", "9011@lid", "12@lid", "12000", "13", "14", "15", "99", "9011")
    found = [chat for chat in chats if await knows(chat)]
    assert found == ["11", "9011@lid", "12@lid", "12000", "13"]
