"""A worker program whose engine keeps what the command `arrive` tells it."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.engines.base import Reporter
from agent.engines.sandbox import engine
from agent.engines.sandbox.engine import SandboxEngine
from agent.engines.sandbox.settings import SandboxSettings, read_settings
from tests.wings.messages.spools import message


class KeepingEngine(SandboxEngine):
    def __init__(self, folder: Path, settings: SandboxSettings, reporter: Reporter) -> None:
        super().__init__(folder, settings, reporter)
        self._keeper = reporter

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if name == "arrive":
            numbers = range(arguments["first"], arguments["first"] + arguments.get("count", 1))
            text = arguments.get("text", "")
            await self._keeper.keep([message(number, text) for number in numbers])
            return {"keeps": self._keeper.keeps}
        if name == "bad":
            await self._keeper.keep([{"kind": "message"}])
        return await super().command(name, arguments)


def open_engine(folder: Path, settings: Mapping[str, Any], reporter: Reporter) -> KeepingEngine:
    return KeepingEngine(folder, read_settings(settings), reporter)


if __name__ == "__main__":
    engine.open_engine = open_engine
    from agent.worker.__main__ import main

    sys.exit(main(sys.argv[1:]))
