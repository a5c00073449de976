"""Records of a client that does not wait for the answers: each line gets one."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from agent.engines.baileys.keeping import AT_ONCE, MOST_ASKED, Keeping

LINES = 50


class Client:
    def __init__(self) -> None:
        self.answers: dict[str, str] = {}

    async def call(self, do: str, seconds: float, **answer: str) -> Mapping[str, Any]:
        assert do == "kept"
        await asyncio.sleep(0)
        self.answers[answer["n"]] = answer.get("error", "")
        return {}


class Slow:
    keeps = True

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def keep(self, records: Sequence[Mapping[str, Any]]) -> None:
        await self.go_on.wait()


async def test_a_line_too_many_is_answered_with_an_error() -> None:
    slow, client = Slow(), Client()
    keeping = Keeping(slow)
    for number in range(LINES):
        keeping.take({"n": str(number), "records": [{"id": "m"}]}, client)  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        while len(client.answers) < LINES - AT_ONCE:  # noqa: ASYNC110 - the client tells nobody
            await asyncio.sleep(0)
        assert all("not kept" in answer for answer in client.answers.values())
        slow.go_on.set()
        while len(client.answers) < LINES:  # noqa: ASYNC110 - the client tells nobody
            await asyncio.sleep(0)
    assert [client.answers[str(number)] for number in range(AT_ONCE)] == [""] * AT_ONCE
    assert LINES < MOST_ASKED
