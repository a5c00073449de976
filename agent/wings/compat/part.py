"""Whether Evolution's clients are answered: a reload changes it."""

from collections.abc import Awaitable, Callable, Iterable, Mapping

from agent.config import Config
from agent.daemon.wing_parts import Around
from agent.deliver.media import MediaReaders
from agent.errors import Refused
from agent.metrics.text import Family
from agent.wings.compat.settings import compat_of

FILES_AT_ONCE = 4


def open_part(around: Around) -> "CompatPart":
    return CompatPart(around)


class CompatPart:
    def __init__(self, around: Around) -> None:
        self.messages = around.messages
        self.settings = compat_of(around.config)
        # Their server knows one status for all that a worker refuses.
        self.files = MediaReaders(around.messages, lambda _code: Refused, FILES_AT_ONCE)

    def tasks(self) -> Mapping[str, Callable[[], Awaitable[object]]]:
        return {}

    def reload(self, config: Config) -> None:
        self.settings = compat_of(config)

    def samples(self) -> Iterable[tuple[Family, str]]:
        return ()

    def figures(self) -> None: ...
