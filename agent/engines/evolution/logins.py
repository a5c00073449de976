"""Whether the server may be asked to log a session in: by GET connect in `close`, or by a restart.

A session is in `close` also between two tries of its server. A login that begins then goes on
beside the server's own, and the two connections of a pairing replace each other without an end.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.engines.evolution.claims import Live
from agent.engines.evolution.settings import Pace

_OPENINGS, _WITHIN = 3, 10.0
"""So many logins in so many seconds are those of two connections."""
_CONFLICTS, _IN_A_ROW = 2, 60.0
_OLD_RESTART = (
    "Evolution API 1.8 ignores a restart of a connecting session; for an open one it opens a second"
    " connection, and the two replace each other endlessly"
)
_STEADY = 16
"""Looks in a row that found it open: two connections are there no more."""


@dataclass(slots=True)
class Logins:
    """The logins of one session, by our looks at it and by the webhook."""

    pace: Pace
    clock: Callable[[], float]
    old: Callable[[], bool]
    """Whether the server speaks 1.8 or may: its restart begins a second connection."""
    fight: bool = False
    """Two connections of it replace each other."""
    _closed_since: float | None = None
    _looked_at: float = 0.0
    tries: bool = False
    """The server tried to connect it, or we asked for that, and no end of it was told since."""
    under_way: bool = False
    """A login of it may begin: we asked for one and had no answer, or a phone scanned its code; and
    no look found it in another state than `close` since."""
    _opened: deque[float] = field(default_factory=lambda: deque(maxlen=_OPENINGS))
    _replaced: deque[float] = field(default_factory=lambda: deque(maxlen=_CONFLICTS))
    _steady: int = 0

    def unsteady(self, live: Live) -> bool:
        """Whether it was lost soon after it opened: then one look tells little."""
        lost = live in (Live.CONNECTING, Live.CLOSE) and bool(self._opened)
        return self.fight or (lost and self.clock() - self._opened[-1] < _IN_A_ROW)

    @property
    def stays_closed(self) -> bool:
        """Whether the server makes no more tries: each look found it closed, for longer than the
        server takes between two tries."""
        return self._looked_closed() >= self.pace.stays_closed

    def may_come_back(self, unpaired: bool, ended: bool) -> bool:
        """Of a closed one: whether the server may connect it by itself. It leaves one that it never
        connected, and one after whose end (`ended`) it makes no more tries."""
        tries = not ended and (self.tries or not unpaired)
        return not self.stays_closed and (self.under_way or tries)

    def refusal(
        self, live: Live, unpaired: bool, may_come_back: bool, *, restart: bool = False
    ) -> str:
        """Why no login may be asked for now, by GET connect or by a restart; "" = it may."""
        if live is Live.UNLOADED:
            return (
                "the server has not loaded it yet, and connects it by itself once it has; if it"
                " stays so, restart the server"
            )
        if restart and live in (Live.OPEN, Live.CONNECTING):
            return _OLD_RESTART if self.old() else ""
        if self.fight:
            return "two connections of it replace each other in the server: restart the server"
        if may_come_back:
            return (
                "the server may still connect it by itself, and the two logins would replace each"
                f" other without an end; it was seen closed for {self._looked_closed():.0f} s, and"
                f" {self.pace.stays_closed:.0f} s are needed"
            )
        if live is not Live.CLOSE and not unpaired:
            return f"the session is {live}, and its server connects it by itself"
        return ""

    def asked(self) -> None:
        """GET connect or a restart is sent now: the next opening is ours."""
        self.tries = self.under_way = True
        self._closed_since = None
        self._opened.clear()

    def answered(self) -> None:
        """The server answers once the login has begun."""
        self.under_way = False

    def note(self, live: Live, before: Live) -> None:
        """Take in a state, by a look or by the webhook."""
        now = self.clock()
        if live is Live.CLOSE:
            late = now - self._looked_at > self.pace.looks_apart and not self.stays_closed
            if self._closed_since is None or late:
                self._closed_since = now
        else:
            self._closed_since, self.under_way = None, False
            self.tries = self.tries or live in (Live.CONNECTING, Live.OPEN)
        self._looked_at = now
        self._steady = self._steady + 1 if live is before is Live.OPEN else 0
        if live is Live.OPEN and before in (Live.CONNECTING, Live.CLOSE):
            self._opened.append(now)
            self._judge(self._opened, _WITHIN)
        if self._steady >= _STEADY or live in (Live.MISSING, Live.UNLOADED):
            self.ended()

    def note_conflict(self) -> None:
        """WhatsApp closed a connection for another one of the same session."""
        self._replaced.append(self.clock())
        self._judge(self._replaced, _IN_A_ROW)

    def ended(self) -> None:
        """The session's pairing or its connections are gone."""
        self.fight = self.tries = self.under_way = False
        self._opened.clear()
        self._replaced.clear()

    def _judge(self, times: deque[float], within: float) -> None:
        if len(times) == times.maxlen and times[-1] - times[0] < within:
            self.fight = True

    def _looked_closed(self) -> float:
        """From the first to the last of the looks that found it closed."""
        return 0.0 if self._closed_since is None else self._looked_at - self._closed_since
