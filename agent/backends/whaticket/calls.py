"""A whaticket server's requests: its login, its token, and what its routes answer.

A token lasts 15 minutes, and the server answers 401 or 403 after it: a refusal is followed by one
new login and one more try.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.backends.http import Answer, Http, ServerDown
from agent.backends.whaticket.contract import BackendSettings, Route, cannot
from agent.clock import boot_now
from agent.config import BackendDeclaration
from agent.engines.raw import inside, text

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


def parse_rows(raw: object) -> list[Row] | None:
    """The list, or the list under a name; None if it is no list of sessions."""
    if isinstance(raw, Mapping):
        raw = next((v for k in ("whatsapps", "sessions", "data") if (v := raw.get(k))), None)
    if not isinstance(raw, list):
        return None
    rows = [row for each in raw if (row := parse_row(each)) is not None]
    return rows if rows or not raw else None


class WhaticketCalls:
    """Made inside a running loop. ServerDown: no usable answer; another EngineError: a refusal."""

    def __init__(self, declared: BackendDeclaration) -> None:
        self.declared = declared
        self.own: BackendSettings = declared.own
        self._token = "" if self.own.user else declared.key
        self._http = Http(declared, _bearer(self._token))
        self._before: Http | None = None
        """The connections of the token before this one: their requests end by their deadlines."""
        self._logging_in = asyncio.Lock()
        self._refused_at = float("-inf")

    async def close(self) -> None:
        for http in (self._before, self._http):
            if http is not None:
                await http.close()

    async def rows(self) -> tuple[list[Row], float]:
        """All sessions, and the seconds that the answer took."""
        route = self.own.needed("list", "list sessions")
        answer = await self._ask(route, urgent=True)
        _must_be_good(route, answer)
        if (rows := parse_rows(answer.body)) is None:
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
            raise cannot(what, _refusal(answer), "remote_refused")

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
        answer = await self._http.ask(route.verb, route.at(id), body, urgent=urgent)
        if answer.status in _REFUSALS and self.own.user:
            await self._log_in(token, urgent)
            answer = await self._http.ask(route.verb, route.at(id), body, urgent=urgent)
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
            token = await self._new_token(urgent)
            if self._before is not None:
                await self._before.close()
            self._before, self._http = self._http, Http(self.declared, _bearer(token))
            self._token = token
            return token

    async def _new_token(self, urgent: bool) -> str:
        route, what = self.own.needed("login", "log in"), "log in"
        who = {"email": self.own.user, "password": self.own.password}
        answer = await self._http.ask(route.verb, route.path, who, urgent=urgent)
        if answer.status in (*_REFUSALS, 400):
            self._refused_at = boot_now()
            raise ServerDown(what, "refused_key", REFUSED)
        _must_be_good(route, answer)
        token = inside(answer.body, "token")
        if not isinstance(token, str) or not token or any(not "!" <= c <= "~" for c in token):
            raise ServerDown(what, "garbage", "the answer has no token")
        return token


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _must_be_good(route: Route, answer: Answer) -> None:
    if not answer.good:
        reason = "not_found" if answer.status == 404 else "garbage"
        reason = "failing" if answer.status >= 500 else reason
        raise ServerDown(f"ask {route}", reason, f"it answers {_refusal(answer)}")


def _refusal(answer: Answer) -> str:
    """The status, and the server's own error code if it looks like one: bodies may hold more."""
    error = inside(answer.body, "error")
    if isinstance(error, str) and len(error) <= 60 and error.replace("_", "").isalnum():
        return f"{answer.status} {error}"
    return str(answer.status)
