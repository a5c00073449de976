"""A whaticket server's requests: its login, its token, what its routes answer, and what follows
from it for one session; and whose an error in the log is.

A token lasts 15 minutes, and the server answers 401 or 403 after it: a refusal is followed by one
new login and one more try.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from agent.backends.http import Answer, Http, ServerDown, cannot
from agent.backends.whaticket.contract import BackendSettings, Route
from agent.backends.whaticket.logs import Found, Turn
from agent.clock import boot_now
from agent.config.declaration import BackendDeclaration
from agent.core.words import PASSKEY_REQUIRED, Claim, ConnectionStatus
from agent.engines.base import Qr, inside, text
from agent.engines.whatsapp import web_reason

REFUSED_HOLDS = 30.0
"""Seconds in which a refused login is not tried again."""
REFUSED = "user or password is refused"
UNKNOWN = "the server knows no such session"
NOT_RUNNING = "ERR_WAPP_NOT_INITIALIZED"
_NO_SESSION = "ERR_NO_WAPP_FOUND"
_REFUSALS = (401, 403)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the server's table of sessions."""

    id: str
    name: str = ""
    status: str = ""
    qrcode: str = field(default="", repr=False)
    """The text of the QR code to scan now: a secret."""
    number: str = ""
    """The phone number that it is paired with, where the server keeps it."""
    stored: bool = False
    """True if the row itself holds a pairing, in its column `session`."""

    @property
    def connected(self) -> bool:
        return self.status.upper() in ("CONNECTED", "IMPORTING")

    @property
    def down(self) -> bool:
        """True if nothing of it runs on the server, as the server says."""
        return self.status.upper() in ("DISCONNECTED", "PENDING")

    @property
    def asks(self) -> bool:
        return self.status.lower() == "qrcode"


def parse_row(raw: object, id: str = "") -> Row | None:
    """A row, or one under a name; None if it is none. `id`: the session that was asked for, for
    servers that leave it out."""
    if isinstance(raw, Mapping) and "id" not in raw:
        inner = (raw.get(name) for name in ("whatsapp", "session", "data"))
        raw = next((it for it in inner if isinstance(it, Mapping)), raw)
        raw = {"id": id or None, **raw} if isinstance(raw.get("status"), str) else raw
    given = inside(raw, "id")
    if not isinstance(given, int | str) or str(given) in ("True", "False", "", ".", ".."):
        return None  # no request can name these
    words = {name: text(inside(raw, name), 4000) for name in ("name", "status", "qrcode", "number")}
    return Row(str(given)[:200], **words, stored=bool(inside(raw, "session")))


class WhaticketCalls:
    """Made inside a running loop. ServerDown: no usable answer; another EngineError: a refusal."""

    def __init__(self, declared: BackendDeclaration) -> None:
        self.own: BackendSettings = declared.own
        self._token = "" if self.own.user else declared.key
        self._http = Http(declared, {})
        self.close = self._http.close
        self._logging_in = asyncio.Lock()
        self._refused_at = float("-inf")

    async def rows(self) -> tuple[list[Row], float]:
        """All sessions, and the seconds that the answer took."""
        route = self.own.needed("list", "list sessions")
        answer = await self._ask(route, urgent=True)
        _must_be_good(route, answer)
        raw = answer.body
        if isinstance(raw, Mapping):  # the list may stand under a name
            raw = next((v for k in ("whatsapps", "sessions", "data") if (v := raw.get(k))), None)
        every = map(parse_row, raw if isinstance(raw, list) else ())
        if not (rows := [row for row in every if row is not None]) and raw != []:
            raise ServerDown(f"ask {route}", "garbage", "the answer is no list of sessions")
        return rows, answer.seconds

    async def state(self, id: str) -> Row | None:
        """None: the server does not know that session."""
        route = self.own.needed("state", f"look at {id}")
        answer = await self._ask(route, id)
        if answer.status == 404 and await self._is_missing(id, answer):
            return None
        _must_be_good(route, answer)
        if (row := parse_row(answer.body, id)) is None:
            raise ServerDown(f"ask {route}", "garbage", "the answer is no session")
        return row

    async def look(self, id: str) -> Row:
        """EngineError `remote_missing`: the server does not know that session."""
        if (row := await self.state(id)) is None:
            raise cannot(f"find {id!r:.60}", UNKNOWN, "remote_missing")
        return row

    async def do(self, what: str, name: str, id: str = "", body: Any = None) -> None:
        """By the route of that name. `what` is for people: "start session 7"."""
        route = self.own.needed(name, what)
        answer = await self._ask(route, id, body)
        if answer.status == 404:
            if id and await self._is_missing(id, answer):
                raise cannot(what, UNKNOWN, "remote_missing")
            raise cannot(what, f"the server has no route {route}", "not_supported")
        if not answer.good:
            raise cannot(what, f"it answers {answer.refusal}", "remote_refused")

    async def _is_missing(self, id: str, answer: Answer) -> bool:
        """A 404 of a session that the list has says that the route is not there."""
        if inside(answer.body, "error") == _NO_SESSION:
            return True
        rows, _ = await self.rows()
        return all(row.id != id for row in rows)

    async def _ask(
        self, route: Route, id: str = "", body: Any = None, *, urgent: bool = False
    ) -> Answer:
        token = self._token or await self._log_in("", urgent)
        ask = partial(self._http.ask, route.verb, route.at(id), body, urgent=urgent)
        answer = await ask(token=token)
        if answer.status in _REFUSALS and self.own.user:
            answer = await ask(token=await self._log_in(token, urgent))
        if answer.status in _REFUSALS:
            cause = f"the server refuses the token ({answer.status})"
            raise ServerDown(f"ask {route}", "refused_key", cause)
        return answer

    async def _log_in(self, refused: str, urgent: bool) -> str:
        """A token that is not the refused one; callers at the same time share one login."""
        async with self._logging_in:
            if self._token and self._token != refused:
                return self._token
            if boot_now() - self._refused_at < REFUSED_HOLDS:
                raise ServerDown("log in", "refused_key", REFUSED)
            route, what = self.own.needed("login", "log in"), "log in"
            who = {"email": self.own.user, "password": self.own.password}
            answer = await self._http.ask(route.verb, route.path, who, urgent=urgent)
            if answer.status in (*_REFUSALS, 400):
                self._refused_at = boot_now()
                raise ServerDown(what, "refused_key", REFUSED)
            _must_be_good(route, answer)
            token = text(inside(answer.body, "token"), 8192)
            if not token or any(not "!" <= c <= "~" for c in token):
                raise ServerDown(what, "garbage", "the answer has no token")
            self._token = token
            return token


def _must_be_good(route: Route, answer: Answer) -> None:
    if not answer.good:
        reason = "not_found" if answer.status == 404 else "garbage"
        reason = "failing" if answer.status >= 500 else reason
        raise ServerDown(f"ask {route}", reason, f"it answers {answer.refusal}")


Status = ConnectionStatus
CODE_LASTS = 20.0
STUCK = "server_stuck"
_WORDS: Mapping[str, Claim] = {
    # No phase: the server tells none, so the general time limit of a start holds.
    "OPENING": Claim(Status.INITIALIZING),
    "PAIRING": Claim(Status.INITIALIZING),
    "QRCODE": Claim(Status.QR_REQUIRED),
    "UNPAIRED": Claim(Status.QR_REQUIRED),
    "UNPAIRED_IDLE": Claim(Status.QR_REQUIRED, "qr_idle"),
    "PASSKEY_REQUIRED": Claim(Status.QR_REQUIRED, PASSKEY_REQUIRED),
    "CONNECTED": Claim(Status.CONNECTED),
    "IMPORTING": Claim(Status.LOADING, phase="sync"),
    "DISCONNECTED": Claim(Status.DISCONNECTED, "connection_lost"),
    # Dropped; most of these servers start it again by themselves every two seconds.
    "PENDING": Claim(Status.RECONNECTING, "connection_lost"),
}


def claim_of_row(row: Row) -> Claim:
    """The meaning of the server's word, without what else is known of the session."""
    word = row.status.upper()
    claim = _WORDS.get(word) or Claim(Status.DISCONNECTED, web_reason(word))
    return replace(claim, account=row.number, raw=row.status)


@dataclass(slots=True)
class WhaticketSession:
    """Times are boot times."""

    name: str
    """As the agent calls it on the server: its id there, or its name."""
    adopted: bool
    paired: bool
    account: str
    prove: bool = True
    """False: the server's word stands also after the log told of an end."""
    useless: tuple[str, ...] = ()
    """Steps of a repair that this server has no request for."""
    id: str = ""
    """The server's id of it; "" = not known yet."""
    row: Row | None = None
    row_at: float = float("-inf")
    """When the request for `row` began; `row` None after it: the server has no such session."""
    keys: str = "unknown"
    """The state of its creds: absent, unpaired, paired, damaged, unreadable or unknown."""
    hung_up: bool = False
    """True if the agent disconnected it: that it is down needs no other reason."""
    way_out: str | None = ""
    unproved = ""
    _asked: bool = False
    """True if it showed codes since it was last connected."""
    _log_reason: str = ""
    """Why it ended, by its log or by its keys; "" = not known, or it connected again."""
    _closed_at: float | None = None
    """When the log told of an end of the connection and of no beginning after it."""
    _code_at: float = 0.0
    _codes: int = 0

    @property
    def is_due(self) -> bool:
        """True if it is not connected."""
        return self.row is None or not self.row.connected

    def note_row(self, row: Row | None, at: float) -> None:
        """`at`: when the request for it began."""
        if at < self.row_at:
            return
        before, self.row, self.row_at = self.row, row, at
        if row is None:
            return
        self.id, self.account = row.id, row.number or self.account
        if row.qrcode and (before is None or row.qrcode != before.qrcode):
            self._code_at = boot_now()
            self._codes += 1
        if row.connected and before is not None and row.status != before.status:
            # Whatever the log told of before, this connection is a new one.
            self._closed_at, self._log_reason = None, ""
        if row.connected:
            self.paired, self.hung_up, self._asked = True, False, False
        elif not row.down:
            self.hung_up = False
            self._asked = self._asked or row.asks
            if row.asks:  # it started again: the earlier end no longer counts
                self._log_reason, self.paired = "", False

    def note_keys(self, keys: str) -> None:
        """The state of its creds while it is not connected."""
        self.keys = keys
        if keys in ("paired", "unpaired", "absent"):
            if self.paired and keys != "paired":  # these servers delete them after a logout
                self._log_reason = self._log_reason or "logout"
            self.paired = keys == "paired"
        elif keys == "unknown" and self.row is not None:
            self.paired = self.row.stored or self.paired

    def note_turn(self, turn: Turn) -> None:
        """The log tells that a connection began or ended."""
        if turn.open:
            self._closed_at, self._log_reason = None, ""
            return
        # Two lines tell of one end, and one of them may leave the reason open.
        self._log_reason = turn.reason or self._log_reason
        if turn.reason != STUCK:
            self._closed_at = boot_now()
            self.paired = self.paired and turn.reason != "logout"

    def logged_out(self) -> None:
        self.paired, self.hung_up, self._log_reason = False, False, "logout"

    def claim(self) -> Claim | None:
        """None: the server has said nothing of it yet."""
        claim = self._claim()
        return claim and replace(claim, useless=self.useless)

    def _claim(self) -> Claim | None:
        if self.row is None:
            if self.row_at < 0:
                return None
            return Claim(Status.DISCONNECTED, "remote_missing", raw="not in the server's list")
        claim = replace(claim_of_row(self.row), account=self.account)
        if self.row.connected:
            ended = self._closed_at if self.prove else None
            age = boot_now() - (self.row_at if ended is None else min(ended, self.row_at))
            proof = max(age, 0.0) if claim.status is Status.CONNECTED else None
            return replace(claim, paired=True, proof_age=proof)
        claim = replace(claim, paired=self.paired)
        if self._log_reason in ("logout", STUCK) and not self.row.asks:
            # Some of these servers begin again at once, and show OPENING of one that is gone; with
            # an old browser that still runs no start gets far.
            return replace(claim, status=Status.DISCONNECTED, reason=self._log_reason)
        if claim.status in (Status.DISCONNECTED, Status.RECONNECTING):
            return self._why_down(claim)
        return claim

    def _why_down(self, claim: Claim) -> Claim:
        if self.hung_up:
            return replace(claim, status=Status.DISCONNECTED, reason="")
        if self.keys == "damaged":
            return replace(claim, status=Status.AUTH_FAILURE, reason="session_damaged")
        if self._log_reason:
            return replace(claim, status=Status.DISCONNECTED, reason=self._log_reason)
        if self._asked and not self.paired:
            return replace(claim, status=Status.QR_REQUIRED, reason="qr_idle")
        return claim

    def code(self) -> Qr | None:
        if self.row is None or not self.row.asks or not self.row.qrcode:
            return None
        left = CODE_LASTS - (boot_now() - self._code_at)
        return Qr(self.row.qrcode, max(left, 1.0), self._codes)


MOMENT = 30.0
"""Seconds around a reconnect in which an error without a name counts for that session."""


@dataclass(slots=True)
class Owners:
    """Which session an error counts for: the one that its line names, else the one that its file
    is named by, else the server's only one, else the only one that reconnected at that moment."""

    ids: dict[str, str] = field(default_factory=dict)
    """The server's ids, by themselves and by each name that no two have."""
    _turns: list[tuple[float, str]] = field(default_factory=list)

    def know(self, sessions: Mapping[str, str]) -> None:
        """The names of the server's sessions, by their ids there."""
        names = Counter(sessions.values())
        self.ids = {name: id for id, name in sessions.items() if names[name] == 1}
        self.ids |= {id: id for id in sessions}

    def attribute(self, found: list[Found]) -> Iterator[tuple[str, Found]]:
        """With the server's id of its session, or "". First what began and ended: an error without
        a name may stand before the reconnect that tells whose it is."""
        for one in sorted(found, key=lambda it: not isinstance(it.it, Turn)):
            yield self.whose(one), one

    def whose(self, found: Found) -> str:
        """The server's id of a session; "" = not known."""
        last = re.split(r"(?:session|whatsapp|wpp|baileys)[-_.]", found.hint)[-1]
        named = [self.ids[n] for n in (found.session, found.hint, last) if n in self.ids]
        every = {*self.ids.values()}
        near = {session for at, session in self._turns if abs(at - found.at) < MOMENT}
        near = every if len(every) == 1 else near
        whose = next(iter(named), near.pop() if len(near) == 1 else "")
        if isinstance(found.it, Turn) and (named or found.session):
            turn = (found.at, named[0] if named else found.session)
            self._turns = [*self._turns, turn][-500:]
        return whose
