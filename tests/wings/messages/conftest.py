"""An agent, the server and the commands over what stands in for one, and a worker whose engine
keeps what a test lets arrive."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.link.client import Link
from tests.api.conftest import house, local, open_house
from tests.cli.conftest import cli
from tests.daemon.conftest import make_agent
from tests.worker.conftest import Bench, make_bench

__all__ = ["cli", "house", "local", "make_agent", "make_bench", "open_house"]


class KeepingBench(Bench):
    program = ("-m", "tests.wings.messages.keeping")

    async def arrive(self, first: int, count: int = 1, text: str = "") -> None:
        assert self.link is not None
        arguments = {"first": first, "count": count, "text": text}
        await self.link.call("command", {"name": "arrive", "arguments": arguments})

    async def page(self, after: int = 0, limit: int = 100, wait: float = 0.0) -> dict[str, Any]:
        assert self.link is not None
        asked = {"after": after, "limit": limit, "wait": wait, "deadline": wait + 20}
        return dict(await self.link.call("messages", asked))

    async def again(self) -> Link:
        """The next run of its worker."""
        self.start()
        return await self.linked()


@pytest.fixture
async def make_keeping(
    make_bench: Callable[[Path], Bench], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], KeepingBench]:
    monkeypatch.setattr("tests.worker.conftest.Bench", KeepingBench)

    def make(root: Path) -> KeepingBench:
        bench = make_bench(root)
        assert isinstance(bench, KeepingBench)
        return bench

    return make


@pytest.fixture
async def keeping(make_keeping: Callable[[Path], KeepingBench], tmp_path: Path) -> KeepingBench:
    return make_keeping(tmp_path)
