"""The same request twice happens once, whatever happened in between."""

import asyncio
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import pytest

from agent.api.http.idempotency import PREFIX, IdempotentAnswers
from agent.errors import EngineError, Refused, StoreError, TryLater
from agent.store.database import Store
from tests.fakes.supervisor import FakeKeys

KEY = ("shop", "sales", "order-7")


class Work:
    """What is done; each time it says which time it is."""

    def __init__(self, *errors: BaseException | None) -> None:
        self.errors = list(errors)
        self.done = 0

    async def __call__(self) -> Mapping[str, Any]:
        self.done += 1
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        return {"id": f"M{self.done}"}


async def test_the_next_agent_knows_what_the_one_before_did():
    store, work = FakeKeys(), Work()
    first = await IdempotentAnswers(store).once(KEY, "hello", work)
    again = await IdempotentAnswers(store).once(KEY, "hello", work)
    assert (first, again, work.done) == (({"id": "M1"}, False), ({"id": "M1"}, True), 1)


async def test_an_answer_does_not_outlive_the_instance_that_it_was_for():
    store, work = FakeKeys(), Work()
    remembered = IdempotentAnswers(store)
    answers = [await remembered.once(KEY, "hello", work, born=born) for born in (5.5, 5.5, 7.5)]
    assert answers == [({"id": "M1"}, False), ({"id": "M1"}, True), ({"id": "M2"}, False)]


async def test_a_request_begun_and_never_answered_stays_unknown():
    """The agent was killed while it sent: its key may not be used to send again."""
    store, work = FakeKeys(), Work(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await IdempotentAnswers(store).once(KEY, "hello", work)
    with pytest.raises(TryLater) as caught:
        await IdempotentAnswers(store).once(KEY, "hello", work)
    assert (caught.value.code, work.done) == ("unknown_outcome", 1)


async def test_an_unknown_outcome_is_not_tried_again_under_its_key():
    unknown = TryLater("cannot tell whether it was sent", code="unknown_outcome")
    remembered, work = IdempotentAnswers(FakeKeys()), Work(unknown)
    for _ in range(2):
        with pytest.raises(TryLater) as caught:
            await remembered.once(KEY, "hello", work)
        assert caught.value.code == "unknown_outcome"
    assert work.done == 1


async def test_a_request_that_surely_failed_may_be_tried_again():
    store = FakeKeys()
    remembered, work = IdempotentAnswers(store), Work(EngineError("cannot send: the phone is off"))
    with pytest.raises(EngineError):
        await remembered.once(KEY, "hello", work)
    assert store.facts == {}
    assert await remembered.once(KEY, "hello", work) == ({"id": "M2"}, False)


async def test_a_second_caller_waits_for_the_answer_of_the_first():
    may_go, work = asyncio.Event(), Work()

    async def slow() -> Mapping[str, Any]:
        await may_go.wait()
        return await work()

    remembered = IdempotentAnswers(FakeKeys())
    asked = [asyncio.create_task(remembered.once(KEY, "hello", slow)) for _ in range(3)]
    await asyncio.sleep(0)
    may_go.set()
    answers = await asyncio.gather(*asked)
    assert sorted(again for _, again in answers) == [False, True, True]
    assert {str(answer) for answer, _ in answers} == {"{'id': 'M1'}"}


async def test_another_request_under_the_same_key_is_refused():
    remembered = IdempotentAnswers(FakeKeys())
    await remembered.once(KEY, "hello", Work())
    with pytest.raises(Refused) as caught:
        await remembered.once(KEY, "goodbye", Work())
    assert caught.value.code == "idempotency_key_reused"


async def test_neither_key_nor_message_can_be_read_in_the_database():
    store = FakeKeys()
    await IdempotentAnswers(store).once(KEY, "a secret text", Work())
    assert not any(word in str(store.facts) for word in (*KEY, "secret"))


async def test_the_oldest_are_forgotten_after_a_day_and_beyond_the_bound():
    now = [1000.0]
    store = FakeKeys()
    remembered = IdempotentAnswers(store, most=20, wall=lambda: now[0])
    for number in range(60):
        now[0] += 1
        await remembered.once(("a", "b", str(number)), "hello", Work())
    assert len(store.facts) <= 22
    assert all(name.startswith(PREFIX) for name in store.facts)
    assert (await remembered.once(("a", "b", "59"), "hello", Work()))[1] is True
    now[0] += 86_400
    assert (await remembered.once(("a", "b", "59"), "hello", Work()))[1] is False
    for number in range(3):
        await remembered.once(("c", "d", str(number)), "hello", Work())
    assert len(store.facts) <= 5


async def test_what_was_done_is_answered_though_the_database_does_not_take_it(tmp_path):
    """Another program holds the database from the middle of the request on."""
    file, work = tmp_path / "agent.db", Work(None, Refused("full"))
    store = await Store.open(file)

    def execute(statements: str) -> None:
        with closing(sqlite3.connect(file, timeout=30)) as database:
            database.executescript(statements)

    async def and_then_it_refuses() -> Mapping[str, Any]:
        for verb in ("INSERT", "UPDATE", "DELETE"):
            execute(
                f"CREATE TRIGGER no_{verb} BEFORE {verb} ON facts"
                " BEGIN SELECT RAISE(ABORT, 'refused'); END;"
            )
        return await work()

    remembered = IdempotentAnswers(store)
    assert await remembered.once(KEY, "hello", and_then_it_refuses) == ({"id": "M1"}, False)
    assert await remembered.once(KEY, "hello", work) == ({"id": "M1"}, True)
    with pytest.raises(StoreError):
        await remembered.once(("another",), "hello", work)
    assert work.done == 1, "it was not begun"
    execute("DROP TRIGGER no_INSERT; DROP TRIGGER no_UPDATE; DROP TRIGGER no_DELETE;")
    with pytest.raises(Refused):
        await remembered.once(("another",), "hello", and_then_it_refuses)
    execute("DROP TRIGGER no_INSERT; DROP TRIGGER no_UPDATE; DROP TRIGGER no_DELETE;")
    assert await remembered.once(("another",), "hello", work) == ({"id": "M3"}, False)
    assert await IdempotentAnswers(store).once(KEY, "hello", work) == ({"id": "M1"}, True)
    await store.close()
