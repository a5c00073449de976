"""A whaticket server's requests: its login, its token, what its routes answer, and what follows
from it for one session; whose an error in the log is; and the steps between "down" and "up again"
of a repair.

A token lasts 15 minutes, and the server answers 401 or 403 after it: a refusal is followed by one
new login and one more try.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from agent import clock, errors, log
from agent.backends.http import Answer, Http, ServerDown, cannot
from agent.backends.whaticket import contract, logs
from agent.backends.whaticket.keys import Record, SessionKeys
from agent.config.config import BackendDeclaration
from agent.core.words import PASSKEY_REQUIRED, Claim, ConnectionStatus, counted
from agent.engines import base, tasks, whatsapp

Status = ConnectionStatus

REFUSED_HOLDS = 60.0
"""Seconds in which a login that was refused, or whose token was, is not tried again."""
REFUSED = "user or password is refused, or the token of that login"
UNKNOWN = "the server knows no such session"
NOT_RUNNING = "ERR_WAPP_NOT_INITIALIZED"
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
    """Phone number that the session is paired with, if the server keeps it."""
    stored: bool = False
    """True if the row itself holds a pairing, in its column `session`."""

    @property
    def connected(self) -> bool:
        return self.status.upper() in ("CONNECTED", "IMPORTING")

    @property
    def down(self) -> bool:
        """True if nothing of the session runs on the server, as the server says."""
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
    given = base.inside(raw, "id")
    if not isinstance(given, int | str) or str(given) in ("True", "False", "", ".", ".."):
        return None  # no request can name these
    names = ("name", "status", "qrcode", "number")
    words = {name: base.text(base.inside(raw, name), 4000) for name in names}
    return Row(str(given)[:200], **words, stored=bool(base.inside(raw, "session")))


class WhaticketCalls:
    """Requests to a server, made inside a running loop. ServerDown: no usable answer; another
    EngineError: a refusal."""

    def __init__(self, declared: BackendDeclaration) -> None:
        self.own: contract.BackendSettings = declared.own
        self._token = "" if self.own.user else declared.key
        self._http = Http(declared, {})
        self.close = self._http.close
        self._logging_in = asyncio.Lock()
        self._refused_at = float("-inf")

    async def rows(self) -> tuple[list[Row], float]:
        """Return all sessions, and the seconds that the answer took."""
        route = self.own.needed("list", "list sessions")
        answer = await self._ask(route, urgent=True)
        _must_be_good(route, answer)
        raw = answer.body
        if isinstance(raw, Mapping):  # the list may stand under a name
            inner = (raw.get(name) for name in ("whatsapps", "sessions", "data"))
            raw = next((it for it in inner if isinstance(it, list)), None)
        every = map(parse_row, raw if isinstance(raw, list) else ())
        rows = [row for row in every if row is not None]
        if not rows and raw != []:
            raise ServerDown(f"ask {route}", "garbage", "the answer is no list of sessions")
        return rows, answer.seconds

    async def state(self, id: str) -> Row | None:
        """Return a session's row; None: the server does not know that session."""
        route = self.own.needed("state", f"look at {id}")
        answer = await self._ask(route, id)
        if answer.status == 404 and await self._is_missing(id, answer):
            return None
        _must_be_good(route, answer)
        if (row := parse_row(answer.body, id)) is None:
            raise ServerDown(f"ask {route}", "garbage", "the answer is no session")
        if row.id != id:
            raise cannot(f"look at {id}", f"it answers for session {row.id!r:.60}", "wrong_session")
        return row

    async def look(self, id: str) -> Row:
        """Return a session's row; EngineError `remote_missing`: the server does not know it."""
        if (row := await self.state(id)) is None:
            raise cannot(f"find {id!r:.60}", UNKNOWN, "remote_missing")
        return row

    async def do(self, what: str, name: str, id: str = "", body: object = None) -> None:
        """Ask by the route of that name. `what` is for people: "start session 7"."""
        route = self.own.needed(name, what)
        answer = await self._ask(route, id, body)
        if answer.status == 404:
            if id and await self._is_missing(id, answer):
                raise cannot(what, UNKNOWN, "remote_missing")
            raise cannot(what, f"the server has no route {route}", "not_supported")
        if not answer.good:
            raise cannot(what, f"it answers {answer.refusal}", "remote_refused")

    async def _is_missing(self, id: str, answer: Answer) -> bool:
        """True if the session is missing. If the list has it, a 404 means that the route is not
        there."""
        if base.inside(answer.body, "error") == "ERR_NO_WAPP_FOUND":
            return True
        rows, _ = await self.rows()
        return all(row.id != id for row in rows)

    async def _ask(
        self, route: contract.Route, id: str = "", body: object = None, *, urgent: bool = False
    ) -> Answer:
        token = self._token or await self._log_in("", urgent)
        ask = partial(self._http.ask, route.verb, route.at(id), body, urgent=urgent)
        answer = await ask(token=token)
        if answer.status in _REFUSALS and self.own.user:
            answer = await ask(token=await self._log_in(token, urgent))
        if answer.status in _REFUSALS:
            self._refused_at = clock.boot_now()
            cause = f"the server refuses the token ({answer.status})"
            raise ServerDown(f"ask {route}", "refused_key", cause)
        return answer

    async def _log_in(self, refused: str, urgent: bool) -> str:
        """Return a token that is not the refused one; callers at the same time share one login."""
        async with self._logging_in:
            if self._token and self._token != refused:
                return self._token
            if clock.boot_now() - self._refused_at < REFUSED_HOLDS:
                raise ServerDown("log in", "refused_key", REFUSED)
            route, what = self.own.needed("login", "log in"), "log in"
            who = {"email": self.own.user, "password": self.own.password}
            answer = await self._http.ask(route.verb, route.path, who, urgent=urgent)
            if answer.status in (*_REFUSALS, 400):
                self._refused_at = clock.boot_now()
                raise ServerDown(what, "refused_key", REFUSED)
            _must_be_good(route, answer)
            token = base.text(base.inside(answer.body, "token"), 8192)
            if not token or any(not "!" <= c <= "~" for c in token):
                raise ServerDown(what, "garbage", "the answer has no token")
            self._token = token
            return token


def _must_be_good(route: contract.Route, answer: Answer) -> None:
    if not answer.good:
        reason = "not_found" if answer.status == 404 else "failing"
        raise ServerDown(f"ask {route}", reason, f"it answers {answer.refusal}")


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
    """Return the claim of the server's word, without what else is known of the session."""
    word = row.status.upper()
    claim = _WORDS.get(word) or Claim(Status.DISCONNECTED, whatsapp.web_reason(word))
    return replace(claim, account=row.number, raw=row.status)


@dataclass(slots=True)
class WhaticketSession:
    """A session on the server, by its row, its keys and its log. Times are boot times."""

    name: str
    """The agent's name of the session on the server: its id there, or its name."""
    adopted: bool
    paired: bool
    account: str
    prove: bool = True
    """False if the server's word stands also after the log told of an end."""
    useless: tuple[str, ...] = ()
    """Steps of a repair that this server has no request for."""
    id: str = ""
    """The server's id of the session; "" = not known yet."""
    row: Row | None = None
    row_at: float = float("-inf")
    """Begin of the request for `row`; `row` None after it: the server has no such session."""
    keys: str = "unknown"
    """State of the session's creds: absent, unpaired, paired, damaged, unreadable or unknown."""
    hung_up: bool = False
    """True if the agent disconnected the session: it needs no other reason to be down."""
    way_out: str | None = ""
    unproved = ""
    _asked: bool = False
    """True if the session showed codes since it was last connected."""
    _log_reason: str = ""
    """Why the session ended, by log or keys; "" = not known, or it connected again."""
    _closed_at: float | None = None
    """Time at which the log told of an end of the connection without a beginning after it."""
    _code_at: float = 0.0
    _codes: int = 0

    @property
    def is_due(self) -> bool:
        return self.row is None or not self.row.connected

    def note_row(self, row: Row | None, at: float) -> None:
        """Note the server's row. `at`: begin of the request for it."""
        if at < self.row_at:
            return
        before, self.row, self.row_at = self.row, row, at
        if row is None:
            return
        self.id, self.account = row.id, row.number or self.account
        if row.qrcode and (before is None or row.qrcode != before.qrcode):
            self._code_at = clock.boot_now()
            self._codes += 1
        if row.connected and before is not None and row.status != before.status:
            # Whatever the log told of before, this connection is a new one.
            self._closed_at, self._log_reason = None, ""
        if row.connected:
            self.paired, self.hung_up, self._asked = True, False, False
        elif not row.down:
            self.hung_up = False
            if row.asks:  # it started again: the earlier end no longer counts
                self._log_reason, self.paired, self._asked = "", False, True

    def note_keys(self, keys: str) -> None:
        """Note the state of the creds while the session is not connected."""
        self.keys = keys
        if keys in ("paired", "unpaired", "absent"):
            if self.paired and keys != "paired":  # these servers delete them after a logout
                self._log_reason = self._log_reason or "logout"
            self.paired = keys == "paired"
        elif keys == "unknown" and self.row is not None:
            self.paired = self.row.stored or self.paired

    def note_turn(self, turn: logs.Turn) -> None:
        """Note that a connection began or ended, as the log tells."""
        if turn.open:
            self._closed_at, self._log_reason = None, ""
            return
        # Two lines tell of one end, and one of them may leave the reason open.
        self._log_reason = turn.reason or self._log_reason
        if turn.reason != STUCK:
            self._closed_at = clock.boot_now()
            self.paired = self.paired and turn.reason != "logout"

    def logged_out(self) -> None:
        self.paired, self.hung_up, self._log_reason = False, False, "logout"

    def claim(self) -> Claim | None:
        """Return the claim; None: the server has said nothing of the session yet."""
        if self.row is None:
            if self.row_at < 0:
                return None
            missing = Claim(Status.DISCONNECTED, "remote_missing", raw="not in the server's list")
            return replace(missing, useless=self.useless)
        claim = replace(claim_of_row(self.row), account=self.account, useless=self.useless)
        if self.row.connected:
            ended = self._closed_at if self.prove else None
            age = clock.boot_now() - (self.row_at if ended is None else min(ended, self.row_at))
            proof = max(age, 0.0) if claim.status is Status.CONNECTED else None
            return replace(claim, paired=True, proof_age=proof)
        claim = replace(claim, paired=self.paired)
        if self._log_reason in ("logout", STUCK) and not self.row.asks:
            # Some of these servers begin again at once, and show OPENING of one that is gone; with
            # an old browser that still runs no start gets far.
            return replace(claim, status=Status.DISCONNECTED, reason=self._log_reason)
        if claim.status not in (Status.DISCONNECTED, Status.RECONNECTING):
            return claim
        if self.keys == "damaged" and not self.hung_up:
            return replace(claim, status=Status.AUTH_FAILURE, reason="session_damaged")
        if self.hung_up or self._log_reason:
            reason = "" if self.hung_up else self._log_reason
            return replace(claim, status=Status.DISCONNECTED, reason=reason)
        if self._asked and not self.paired:
            return replace(claim, status=Status.QR_REQUIRED, reason="qr_idle")
        return claim

    def code(self) -> base.Qr | None:
        if self.row is None or not self.row.asks or not self.row.qrcode:
            return None
        left = CODE_LASTS - (clock.boot_now() - self._code_at)
        return base.Qr(self.row.qrcode, max(left, 1.0), self._codes)


MOMENT = 30.0
"""Seconds around a reconnect in which an error without a name counts for that session."""


@dataclass(slots=True)
class Owners:
    """Which session an error counts for: the one that its line names, else the one that its file
    is named by, else the server's only one, else the only one that reconnected at that moment."""

    ids: dict[str, str] = field(default_factory=dict)
    """Name of a session that no other has, or its id → the server's id."""
    _turns: list[tuple[float, str]] = field(default_factory=list)

    def know(self, sessions: Mapping[str, str]) -> None:
        """Note the server's sessions: their names by their ids there."""
        names = Counter(sessions.values())
        self.ids = {name: id for id, name in sessions.items() if names[name] == 1}
        self.ids |= {id: id for id in sessions}

    def attribute(self, found: list[logs.Found]) -> Iterator[tuple[str, logs.Found]]:
        """With the server's id of its session, or "". First what began and ended: an error without
        a name may stand before the reconnect that tells whose it is."""
        for one in sorted(found, key=lambda it: not isinstance(it.it, logs.Turn)):
            yield self.whose(one), one

    def whose(self, found: logs.Found) -> str:
        """Return the server's id of the session; "" = not known."""
        last = re.split(r"(?:session|whatsapp|wpp|baileys)[-_.]", found.hint)[-1]
        named = [self.ids[n] for n in (found.session, found.hint, last) if n in self.ids]
        every = {*self.ids.values()}
        near = {session for at, session in self._turns if abs(at - found.at) < MOMENT}
        near = every if len(every) == 1 else near
        whose = next(iter(named), near.pop() if len(near) == 1 else "")
        if isinstance(found.it, logs.Turn) and (named or found.session):
            self._turns = [*self._turns[-499:], (found.at, named[0] if named else found.session)]
        return whose


# Keys may be touched only while the server has nothing of the session in memory: it would write its
# old record back. So it must say that the session is down, twice, before and after. A session that
# was taken down is brought up again whatever failed in between.

DOWN_WITHIN, UP_WITHIN = 30.0, 90.0
"""Seconds until a disconnected session must be down, and a started one connected."""
LOOK_EVERY = 0.25
SETTLE = 0.5
"""Seconds in which a server that still writes would write again."""
TRIES, PAUSE = 3, 1.0
"""Tries of each request that takes the session down or up; the pause between two of them
doubles."""
NOTHING = "nothing_to_remove"
"""The error's code if no record could be taken out: nothing was interrupted."""
_AGAIN = ("remote_refused", "backend_down")


@dataclass(frozen=True, slots=True)
class DownAndUp:
    """One session's way down and up; `id` is the server's."""

    calls: WhaticketCalls
    keys: SessionKeys
    id: str
    report: Callable[[str], None]
    """Takes each step that was done, in words for people."""
    went_down: Callable[[], None]
    """Called before the session is touched."""

    # changes of keys

    async def regenerate(self, peers: Sequence[str], *, damaged: bool = True) -> None:
        """Down, the records of these peers and the damaged ones away, up again: Baileys makes new
        ones with the next message. EngineError `nothing_to_remove`, and no interruption, where it
        would be a mere reconnect."""
        self._must_be_possible("regenerate keys")
        plan = partial(self.keys.plan, self.id, peers, damaged=damaged)
        if not await tasks.in_thread(plan):
            about = "no record of these peers is stored" if peers else "no peer is named"
            cause = f"{about}, and no stored record is damaged"
            raise cannot(f"regenerate keys of {self.id}", cause, NOTHING)

        async def work() -> None:
            if records := await tasks.in_thread(plan):
                why = "new keys with single peers"
                await tasks.in_thread(self.keys.take_out, self.id, records, why)
                await self._must_stay_gone(records)
            keys = sum(record.redis for record in records)
            counts = f"{counted(len(records) - keys, 'file')}, {counted(keys, 'key')} in Redis"
            self.report(f"back up and remove: {counts}")

        await self._while_down(work)

    async def start_over(self) -> None:
        """Take the session down and all keys away, and start it. If that is refused, the pairing is
        put back."""
        await tasks.in_thread(self.keys.all, self.id)  # EngineError where one cannot be backed up
        self.went_down()
        await self.go_down()
        why, removal = "the session starts over", None
        try:
            records = await tasks.in_thread(self.keys.all, self.id)
            removal = await tasks.in_thread(self.keys.take_out, self.id, records, why, whole=True)
            await self._must_stay_gone(records)
        finally:
            try:
                await self._again(self.begin)
            except errors.EngineError as error:
                # Unanswered it may have started: an old pairing under it would mix two.
                refused = not isinstance(error, ServerDown) and await self._down_twice()
                if refused and removal is not None:
                    await tasks.in_thread(self.keys.put_back, self.id, removal)
                raise

    async def put_back(self, name: object) -> None:
        """Undo a removal, by a person's word. What lies there by now is put aside itself."""
        self._must_be_possible("put keys back")
        removal = await tasks.in_thread(self.keys.shelf.find, self.id, name)
        await tasks.in_thread(self.keys.in_the_way, self.id, removal)  # as above

        async def work() -> None:
            if records := await tasks.in_thread(self.keys.in_the_way, self.id, removal):
                why, whole = f"made way for {removal.name}", removal.whole
                await tasks.in_thread(self.keys.take_out, self.id, records, why, whole=whole)
                await self._must_stay_gone(records)
            await tasks.in_thread(self.keys.put_back, self.id, removal)

        await self._while_down(work)

    def _must_be_possible(self, what: str) -> None:
        if not self.keys.stores:
            raise cannot(what, "neither auth_folder nor redis_url is set", "not_supported")
        if self.calls.own.hang_up is None:
            cause = "keys change while a session is down, and this server's disconnect"
            raise cannot(what, f"{cause} ends the pairing", "not_supported")

    async def _must_stay_gone(self, records: Sequence[Record]) -> None:
        """Check after a removal that the records are still gone, and the session is still down."""
        await asyncio.sleep(SETTLE)
        there = await tasks.in_thread(self.keys.names, self.id)
        if back := len({record.key for record in records} & there):
            cause = f"{back} were written again, so something still runs this session"
            raise cannot(f"remove keys of {self.id}", cause, "written_back")
        if not (await self.calls.look(self.id)).down:
            cause = "the server connected it meanwhile"
            raise cannot(f"be sure of the keys of {self.id}", cause, "server_reconnected")

    # down and up

    async def _while_down(self, work: Callable[[], Awaitable[None]]) -> None:
        """Take the session down, do the work, take it up, also if either fails. Raises the first
        error."""
        await self.must_have_whole_creds(stored=True)
        self.went_down()
        try:
            await self.go_down()
            self.report("disconnect: the server says that it is down")
            await work()
        except errors.EngineError:
            try:
                await self.come_up()
            except errors.EngineError as error:
                log.warning("%s", error)
            raise
        await self.come_up()

    async def go_down(self) -> None:
        """Return when the server says twice that nothing of the session runs, or EngineError."""
        what = f"disconnect {self.id}"
        if self.calls.own.hang_up is None:
            if await self._down_twice():
                return
            raise cannot(what, "it would end the pairing on this server", "not_supported")
        try:
            await self._again(partial(self.calls.do, what, "disconnect", self.id))
        except errors.EngineError as error:
            # Some servers refuse to disconnect a session that is not connected.
            if error.code != "remote_refused" or not await self._down_twice():
                raise
            return
        deadline = clock.boot_now() + DOWN_WITHIN
        while not await self._down_twice():
            if clock.boot_now() > deadline:
                cause = f"it is still not down after {DOWN_WITHIN:g} s"
                raise cannot(what, cause, "still_connected")
            await asyncio.sleep(LOOK_EVERY)

    async def come_up(self) -> None:
        """Return when the session is connected; a QR code means that the pairing is gone."""
        await self._again(self.begin)
        self.report("start-session: the server takes it up")
        row = await self.wait("connect", lambda row: row.connected or row.asks)
        if row.asks:
            raise cannot(f"connect {self.id}", "it asks for a new pairing", "pairing_lost")
        self.report("wait: it is connected")

    async def begin(self) -> None:
        """Ask for the start, unless the server has begun by itself: two sockets fight."""
        row = await self.calls.look(self.id)
        if claim_of_row(row).status in (Status.DISCONNECTED, Status.RECONNECTING):
            await self.must_have_whole_creds()
            await self.calls.do(f"start {self.id}", "start", self.id)

    async def must_have_whole_creds(self, *, stored: bool = False) -> None:
        """Baileys replaces damaged creds by empty ones: a start would end the pairing. While it
        runs it has good ones in memory and writes them again, so it is left alone. `stored`: those
        of a connected session must be there as well, or the configured place is wrong."""
        state = await tasks.in_thread(self.keys.look, self.id)
        if state == "damaged":
            cause = "its creds are damaged, and a start would replace them with empty ones"
            raise cannot(f"start {self.id} again", cause, "session_damaged")
        lacks = stored and state in ("absent", "unpaired", "unreadable")
        if lacks and (await self.calls.look(self.id)).connected:
            cause = "it is connected, but its creds are not where the settings say; a start would"
            cause += " begin a new pairing"
            raise cannot(f"touch the keys of {self.id}", cause, "session_missing")

    async def wait(self, what: str, wanted: Callable[[Row], bool]) -> Row:
        deadline = clock.boot_now() + UP_WITHIN
        while not wanted(row := await self.calls.look(self.id)):
            if clock.boot_now() > deadline:
                cause = f"it is {row.status or 'without a status'} after {UP_WITHIN:g} s"
                raise cannot(f"{what} {self.id}", cause, "not_connected")
            await asyncio.sleep(LOOK_EVERY)
        return row

    async def _again(self, request: Callable[[], Awaitable[object]]) -> None:
        """Make the request, again after a pause if the server may have changed its mind."""
        for number in range(1, TRIES + 1):
            try:
                await request()
            except errors.EngineError as error:
                refused = isinstance(error, ServerDown) and error.reason == "refused_key"
                if number == TRIES or refused or error.code not in _AGAIN:
                    raise
            else:
                return
            await asyncio.sleep(PAUSE * 2.0 ** (number - 1))

    async def _down_twice(self) -> bool:
        if not (await self.calls.look(self.id)).down:
            return False
        # Most of these servers connect again by themselves right after a drop.
        await asyncio.sleep(SETTLE)
        return (await self.calls.look(self.id)).down
