"""Reads one session's state, code, row and place in the list from the server into its view."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.backends.slowness import Slowness
from agent.core.reasons import reason_of
from agent.engines.evolution.answers import Shown
from agent.engines.evolution.api import EvolutionApi
from agent.engines.evolution.claims import Live
from agent.engines.evolution.codes import Code
from agent.engines.evolution.proof import Prover
from agent.engines.evolution.remembered_file import SessionNotes
from agent.engines.evolution.renewal import Renewal
from agent.engines.evolution.rows import Row, Rows, mark_proxy
from agent.engines.evolution.settings import Pace
from agent.engines.evolution.view import SessionView
from agent.engines.evolution.webhook.hooks import SeenMessages
from agent.engines.evolution.webhook.subscription import Hooked, Subscription
from agent.engines.remote.answers import ServerDown
from agent.engines.remote.recent import Recent
from agent.errors import EngineError

_LOOKS = 8
_SLACK_SHARE = 0.75
_LIST_SHARE, _GONE_SHARE = 0.25, 0.5
"""The share of a probe's time that it waits for the list; where that decides."""


@dataclass(frozen=True, slots=True)
class Server:
    """What the sessions of one server share."""

    api: EvolutionApi
    rows: Recent[Rows]
    prover: Prover | None
    hooks: Subscription
    seen: SeenMessages
    doubt: Callable[[], None]
    """Call it where the server itself may be down."""
    usual_limit: float
    """For a whole probe of a server that answers at once."""
    slowness: Slowness
    pace: Pace
    notes: SessionNotes
    folder: Path
    """For backups of deleted sessions."""

    @property
    def probe_limit(self) -> float:
        """Less than the agent waits, which allows for the same slowness."""
        return self.usual_limit + self.slowness.slack * _SLACK_SHARE


@dataclass(frozen=True, slots=True)
class Observer:
    """Of the session `remote`."""

    server: Server
    remote: str
    view: SessionView
    acting: asyncio.Lock
    """Held by each action, and by each request for a code: it begins a login where an action has
    closed the session meanwhile."""

    async def state(self) -> None:
        self.view.note_live(await self.server.api.state(self.remote))

    async def settled_state(self) -> None:
        """Between two tries to connect a server says `close` for a moment; and where two
        connections replace each other, many looks show what one does not."""
        server, view = self.server, self.view
        before, pause = view.live, min(server.pace.look_every, server.probe_limit / 16)
        live = await server.api.state(self.remote)
        if live is Live.CLOSE and before in (Live.OPEN, Live.CONNECTING):
            await asyncio.sleep(pause)
            live = await server.api.state(self.remote)
        view.note_live(live)
        for number in range(_LOOKS if view.logins.unsteady(live) else 0):
            await asyncio.sleep(pause * (0.5 + number % 3 / 2))  # in no step with the logins
            await self.state()

    async def absence(self) -> None:
        """Whether a missing session is gone: a list that is newer than the first look does not show
        it, and one more look does not find it. One wrong answer ends no pairing."""
        server, view = self.server, self.view
        if view.live is not Live.MISSING or view.gone:
            return
        try:
            async with asyncio.timeout(server.probe_limit * _GONE_SHARE):
                await server.rows.get(holds=view.seconds())
        except (EngineError, TimeoutError):
            return  # the next probe asks again
        last = server.rows.last()
        if last is None or last[1] > view.seconds() or self.remote in last[0].by_name:
            return
        await self.state()
        view.note_gone()

    async def connect(self, digits: str = "") -> None:
        """Ask the server to connect the session, or for the code that it shows: the same request.
        No other function sends it, for what it does depends on the moment at which it arrives."""
        view = self.view
        if cause := view.refuse_login():
            raise EngineError(
                f"cannot ask to connect {self.remote}: {cause}", code="remote_refused"
            )
        begins = view.live is not Live.CONNECTING
        if begins:
            view.begin()
        shown = await self.server.api.connect(self.remote, digits)
        view.logins.answered()
        if begins:
            view.note_live(Live.CONNECTING, seen=False)
        await self.take_shown(shown)

    async def restart(self) -> bool:
        """Ask the server to connect the session again; False where it refuses: in `close`."""
        if not self.server.api.told:
            await self.row()
        if cause := self.view.refuse_login(restart=True):
            raise EngineError(f"cannot restart {self.remote}: {cause}", code="remote_refused")
        done = await self.server.api.restart(self.remote)
        if done:
            self.view.begin()
        return done

    async def missing_code(self) -> None:
        """Ask for the code, where none is seen yet."""
        if self.view.code() is not None or self.view.refuse_login() or self.acting.locked():
            return
        async with self.acting:
            await self.state()  # an action may have ended since the last look
            if self.view.live is not Live.CONNECTING:
                return
            try:
                await self.connect()
            except ServerDown:
                raise
            except EngineError:
                return  # it changed since the state was read; the next probe sees

    async def missing_pairing(self, *, now: bool = False) -> None:
        """Whether a session has a pairing, where the view may not know it; `now`: ask again."""
        api, view = self.server.api, self.view
        if not api.old and not view.unpaired and view.live is Live.CONNECTING:
            await self.pairing()
        if view.doubts_pairing(now=now):
            live, has = view.live, await api.has_account(self.remote)
            if has is not None and view.live is live:
                view.note_account(has=has)

    async def take_shown(self, shown: Shown) -> None:
        """A code proves a missing pairing only where it is new and the server's row agrees: a
        session that lost its connection shows the code of its last login."""
        api, view = self.server.api, self.view
        if shown.state in (Live.OPEN, Live.CONNECTING, Live.CLOSE):
            view.note_live(Live(shown.state))
        if view.is_current(shown):
            view.note_shown(shown)
        elif shown.code and not api.old:
            answer = await api.row_now(self.remote)
            row = answer[0] if answer is not None else None
            if row is not None and row.status == Live.CONNECTING and view.live is Live.CONNECTING:
                view.note_row(row)
                view.note_shown(shown)
            elif row is not None and row.status == Live.OPEN:
                view.note_row(row)
        elif view.is_news(shown):
            view.note_shown(shown)

    async def pairing(self) -> None:
        """An older list may tell that a pairing stands; only a newer one that none does."""
        row, age = await self._listed() or (None, 0.0)
        if row is not None and (row.status == Live.OPEN or age <= self.view.seconds()):
            self.view.note_row(row)
        else:
            await self.row()

    async def owner(self, since: float) -> None:
        """Whose it is by now: under its name another account's session may have come back."""
        last = self.server.rows.last()
        listed = last[0].by_name.get(self.remote) if last is not None else None
        if last is not None and listed is not None and last[1] <= time.monotonic() - since:
            self.view.note_row(listed)
        else:
            await self.row()

    async def row(self) -> None:
        """Reads the session's own row: why it closed, and whether a pairing still stands."""
        if (answer := await self.server.api.row_now(self.remote)) is not None:
            self.view.note_row(answer[0])

    async def detail(self) -> dict[str, Any]:
        """The questions of a deep probe."""
        hooks, view = self.server.hooks, self.view
        hooks.want(self.remote)
        listed = await self._listed()
        row = listed[0] if listed is not None else None
        detail: dict[str, Any] = {
            "exists": view.live not in (Live.MISSING, Live.UNLOADED),
            "live": str(view.live),
            "listed": row is not None if listed is not None else None,
            "list_status": row.status if row is not None else "",
            "state_seconds": round(view.seconds(), 1),
            "compared": False,
            "proxy": await self._proxy(row),
        }
        if listed is not None:
            if (disagrees := view.compare(row, listed[1])) is not None:
                detail["compared"] = True
                if disagrees:
                    detail["disagrees"] = disagrees
            if view.live is Live.OPEN or listed[1] <= view.seconds():
                view.note_row(row)
        if (hooked := hooks.word(self.remote)) is not Hooked.OFF:
            detail["webhook"] = str(hooked)
        return detail

    async def _proxy(self, row: Row | None) -> str | None:
        """The mark of its own proxy; None where the server does not tell."""
        if not self.server.api.old:
            return None if row is None else row.proxy
        if self.view.live is Live.MISSING:
            return None
        try:
            answer = await self.server.api.find("proxy", self.remote)
        except EngineError:
            return None
        return None if answer is None else mark_proxy(answer)

    async def wait_for_code(self) -> None:
        """The first code comes a moment after the login began."""
        await self._wait_for_code(self.server.pace.code_wait, lambda code: bool(code.text))

    async def pairing_code(self, digits: str, renewal: Renewal) -> Mapping[str, Any]:
        """A code to type on the phone of that number."""
        api, view, pace = self.server.api, self.view, self.server.pace
        await self.state()
        await self.row()
        await self.missing_pairing(now=True)
        if view.live is Live.OPEN or not view.unpaired:
            raise EngineError("cannot get a pairing code: it waits for no scan", code="not_waiting")
        if view.live is Live.CONNECTING:
            # The number counts only when a login begins; there is no pairing to lose here.
            await api.logout(self.remote)
            if await renewal.is_logged_out():
                view.logins.ended()
            view.note_live(Live.CLOSE)
        asked = time.monotonic()
        await self.connect(digits)
        code = await self._wait_for_code(pace.pairing_wait, lambda code: bool(code.pairing_code))
        if code is None:
            cause = self._why_no_pairing_code(asked)
            raise EngineError(f"cannot get a pairing code: {cause}", code="not_ready")
        left = pace.code_holds - (time.monotonic() - code.at)
        return {"code": code.pairing_code, "expires_in": round(max(1.0, left), 1)}

    def _why_no_pairing_code(self, asked: float) -> str:
        view, waited = self.view, time.monotonic() - asked
        if view.live is not Live.CONNECTING:
            ended = view.claim().reason
            why = f" ({reason_of(ended).title})" if ended else ""
            return f"its server connects it no longer and says {view.live}{why}"
        if (code := view.code()) is not None and code.at >= asked:
            return "its server shows a QR code, and made no code for this number"
        return f"its server connects it, and made no code within {waited:.0f} s"

    async def _wait_for_code(self, within: float, wanted: Callable[[Code], bool]) -> Code | None:
        deadline = time.monotonic() + within
        while True:
            code = self.view.code()
            if code is not None and wanted(code):
                return code
            if self.view.live is not Live.CONNECTING or time.monotonic() > deadline:
                return None
            await asyncio.sleep(self.server.pace.look_every)
            await self.connect()

    async def _listed(self) -> tuple[Row | None, float] | None:
        """The session's row in the list and the list's age; None where no list comes in time."""
        server, pace = self.server, self.server.pace
        try:
            async with asyncio.timeout(server.probe_limit * _LIST_SHARE):
                holds = pace.old_list_holds if server.api.old else pace.list_holds
                await server.rows.get(holds=holds)
        except (EngineError, TimeoutError):
            pass  # an older list may do
        last = server.rows.last()
        return None if last is None else (last[0].by_name.get(self.remote), last[1])
