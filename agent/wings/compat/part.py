"""Whether Evolution's clients are answered: a reload changes it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

from agent.config import Config
from agent.daemon.wing_parts import Around
from agent.metrics.text import Family
from agent.wings.compat.settings import compat_of

FILES_AT_ONCE = 4


def open_part(around: Around) -> "CompatPart":
    return CompatPart(around)


class CompatPart:
    def __init__(self, around: Around) -> None:
        self.messages = around.messages
        self.settings = compat_of(around.config)
        self.files = asyncio.Semaphore(FILES_AT_ONCE)

    def tasks(self) -> Mapping[str, Callable[[], Awaitable[object]]]:
        return {}

    def reload(self, config: Config) -> None:
        self.settings = compat_of(config)

    def samples(self) -> Iterable[tuple[Family, str]]:
        return ()

    def figures(self) -> None: ...
