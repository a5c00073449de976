"""What the machine asks of the whole agent: stop, hurry, read the settings again."""

import asyncio
import logging
import signal
from dataclasses import dataclass, field

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Signals:
    """What the machine asks of the whole agent."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    reload: asyncio.Event = field(default_factory=asyncio.Event)

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)

    def ignore(self) -> None:
        """Nothing is left to stop: an impatient signal must not spoil the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    def _stop(self, number: signal.Signals) -> None:
        if self.stop.is_set():
            log.warning("%s again: saving without further waiting", number.name)
            self.hurry.set()
        else:
            log.info("%s: stopping in order", number.name)
            self.stop.set()
