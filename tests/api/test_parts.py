"""The small parts: remembered answers, the Accept header, the Host header."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from agent.api.accept import choose_form
from agent.api.guard import host_name
from agent.api.remembered import Remembered
from agent.errors import EngineError, Refused


class Work:
    def __init__(self) -> None:
        self.done = 0
        self.gate = asyncio.Event()
        self.fails = False

    async def __call__(self) -> Mapping[str, Any]:
        self.done += 1
        await self.gate.wait()
        if self.fails:
            raise EngineError("cannot send")
        return {"number": self.done}


async def test_two_at_the_same_time_share_one_piece_of_work() -> None:
    answers, work = Remembered(), Work()
    first = asyncio.create_task(answers.once(("k",), "d", work))
    await asyncio.sleep(0)
    second = asyncio.create_task(answers.once(("k",), "d", work))
    await asyncio.sleep(0)
    work.gate.set()
    assert await first == ({"number": 1}, False)
    assert await second == ({"number": 1}, True)


async def test_both_hear_of_a_failure_and_the_next_try_is_new() -> None:
    answers, work = Remembered(), Work()
    work.fails = True
    tasks = [asyncio.create_task(answers.once(("k",), "d", work)) for _ in range(2)]
    await asyncio.sleep(0)
    work.gate.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in found] == [EngineError, EngineError]
    work.fails = False
    assert await answers.once(("k",), "d", work) == ({"number": 2}, False)


async def test_a_first_caller_that_leaves_does_not_leave_the_second_hanging() -> None:
    answers, work = Remembered(), Work()
    first = asyncio.create_task(answers.once(("k",), "d", work))
    await asyncio.sleep(0)
    second = asyncio.create_task(answers.once(("k",), "d", work))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(Refused):
        async with asyncio.timeout(1):
            await second
    assert len(answers) == 0


async def test_memory_is_bounded_in_number_and_age() -> None:
    now = [0.0]
    answers, work = Remembered(most=3, seconds=10, clock=lambda: now[0]), Work()
    work.gate.set()
    for key in "abcd":
        await answers.once((key,), "d", work)
    assert len(answers) == 3
    assert (await answers.once(("a",), "d", work))[1] is False, "the oldest was forgotten"
    now[0] = 11.0
    assert (await answers.once(("d",), "d", work))[1] is False, "too old"
    with pytest.raises(Refused):
        await answers.once(("d",), "other", work)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "a/json"),
        ("*/*", "a/json"),
        ("a/png", "a/png"),
        ("a/*", "a/json"),
        ("a/json;q=0.5, a/png", "a/png"),
        ("a/png;q=0, a/json", "a/json"),
        ("*/*;q=0.1, a/png;q=0.2", "a/png"),
        ("x/y", None),
        ("a/png;q=nonsense", None),
        (";;,,;q=", None),
    ],
)
def test_the_most_wanted_form_is_chosen(accept: str, expected: str | None) -> None:
    assert choose_form(accept, ("a/json", "a/png")) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost:1", "localhost"),
        ("LOCALHOST", "localhost"),
        ("[::1]:80", "::1"),
        ("a@b", None),
        ("a/b", None),
        ("a:b", None),
        ("a?b", None),
        ("[::1", None),
    ],
)
def test_a_host_header_is_a_name_and_nothing_else(host: str, expected: str | None) -> None:
    assert host_name(host) == expected
