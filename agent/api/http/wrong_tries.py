"""Counts the wrong secrets of each address, so that guessing one has no use."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.errors import TryLater

WITHIN = 60.0
MOST = 10
"""Wrong ones of an address within so many seconds."""
_ADDRESSES = 1024


@dataclass(slots=True)
class WrongTries:
    what: str
    now: Callable[[], float] = time.monotonic
    _seen: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict)

    def check(self, address: str) -> None:
        """TryLater for an address that was wrong too often, whatever it sends now."""
        seen = self._seen.get(address, ())
        if sum(at > self.now() - WITHIN for at in seen) >= MOST:
            raise TryLater(
                f"cannot look at {self.what} from {address}: {MOST} wrong ones came within"
                f" {WITHIN:g} s",
                code="too_many_tries",
            )

    def note(self, address: str) -> None:
        self._seen.setdefault(address, deque(maxlen=MOST)).append(self.now())
        self._seen.move_to_end(address)
        if len(self._seen) > _ADDRESSES:
            self._seen.popitem(last=False)
