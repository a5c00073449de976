"""Evolution API's routes in both of its dialects: one request each, its answer read."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agent.backends.http import LARGEST, Answer, Http, ServerDown, cannot, segment
from agent.engines.base import inside, moment, object_of, text, whole
from agent.engines.tasks import in_thread
from agent.errors import EngineError

_LIST = "/instance/fetchInstances"
_PROXY = ("protocol", "host", "port", "username", "password")
_NOBODY = "wa-agent-check"
"""A name that no session has: the server refuses it from its memory."""
_NO_ACCOUNT = ("of undefined (reading 'name')", "Cannot read property 'name' of undefined")
_DEAD = (
    *("Connection Closed", "Connection Terminated", "Connection was lost", "Connection Failure"),
    *("Timed Out", "Cannot read properties of"),
)
_REFUSED_BY_WHATSAPP = (
    *("item-not-found", "bad-request", "not-authorized", "not-acceptable", "forbidden"),
    *("rate-overlimit", "internal-server-error", "service-unavailable"),
)


class Live(StrEnum):
    """A session's state in the server's process."""

    OPEN = "open"
    CONNECTING = "connecting"
    CLOSE = "close"
    UNLOADED = "not loaded"
    """The database holds the session and the process does not (yet)."""
    MISSING = "missing"


SLOW = 75.0
"""Seconds that a list and a creation of 1.8 may take: where WhatsApp is silent, 35 to 65."""


@dataclass(frozen=True, slots=True)
class Row:
    """One session in the server's list: of the database in 2.x, of the process in 1.8."""

    name: str
    status: str
    account: str = ""
    """Number of the last pairing; 2.x keeps it through a logout, 1.8 has it while open."""
    code: int | None = None
    """WhatsApp's number at the last final close; no later success clears it."""
    text: str = ""
    """WhatsApp's own words at that close."""
    closed_wall: float = 0.0
    """Unix time of the last close, by the server's clock."""
    integration: str = ""
    proxy: str | None = None
    """The mark of the session's own proxy; "" = none; None = the server does not tell."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The answer of `connect`: a state, or the code to scan now, or neither yet."""

    state: str = ""
    code: str = field(default="", repr=False)
    pairing_code: str = field(default="", repr=False)
    count: int = 0


@dataclass(slots=True)
class EvolutionCalls:
    http: Http
    old: bool = False
    """True for 1.8, which differs from 2.x in routes, rows and settings."""
    told: bool = False
    """True if the server's version or its list told which it is."""
    version: str = ""

    async def state(self, name: str, *, urgent: bool = False) -> Live:
        path = f"/instance/connectionState/{segment(name)}"
        answer = await self._ask("GET", path, urgent=urgent)
        if _is_missing(answer):
            return Live.MISSING
        session = inside(answer.body, "instance") if answer.good else None
        if isinstance(session, Mapping):
            if (other := session.get("instanceName")) not in (None, name):
                raise cannot(f"look at {name}", f"it answers for {other!r:.60}", "wrong_session")
            state = session.get("state")
            if state in (Live.OPEN, Live.CONNECTING, Live.CLOSE):
                return Live(state)
            if state is None:
                return Live.UNLOADED
        if not answer.good:
            raise ServerDown(f"GET {path}", "failing", f"it answers {answer.status}")
        raise ServerDown(f"GET {path}", "not_found", "its answer holds no state")

    async def connect(self, name: str, phone: str = "") -> Shown:
        """In `close` a login begins; in `connecting` the answer is the last code. Only
        `Session._log_in` calls it."""
        query = {"number": phone} if phone else None
        answer = await self._ask("GET", f"/instance/connect/{segment(name)}", query=query)
        if _is_refused(answer):
            raise _refusal("connect", name, answer)
        return _shown(answer.body)

    async def has_account(self, name: str) -> bool | None:
        """True if the keys of a session that is not open have an account; None if the server does
        not tell. Baileys reads the account's name before it looks at the connection."""
        path = f"/instance/setPresence/{segment(name)}"
        # A proxy that lacks the route says nothing of the server.
        answer = await self.http.ask("POST", path, {"presence": "unavailable"})
        words = _words_of(answer.body)
        if not answer.good and any(sign in words for sign in _NO_ACCOUNT):
            return False
        return True if answer.good or "Connection Closed" in words else None

    async def restart(self, name: str) -> bool:
        """Restart the session; False: the server refuses, as in `close`."""
        verb = "PUT" if self.old else "POST"
        answer = await self._ask(verb, f"/instance/restart/{segment(name)}")
        if _is_missing(answer) or answer.status >= 500:
            raise _refusal("restart", name, answer)
        return not _is_refused(answer)

    async def logout(self, name: str) -> None:
        """Log out. The answer comes before the logout; a closed or missing session needs none."""
        answer = await self._ask("DELETE", f"/instance/logout/{segment(name)}")
        if not answer.good and answer.status != 400 and not _is_missing(answer):
            raise _refusal("log out", name, answer)

    async def delete(self, name: str) -> None:
        """Delete the session; the answer comes before the deletion."""
        answer = await self._ask("DELETE", f"/instance/delete/{segment(name)}")
        if not answer.good and not _is_missing(answer):
            raise _refusal("delete", name, answer)

    async def create(self, name: str, row: Any) -> None:
        """Create a session. `row`: of one that is made again, with its token, number and proxy."""
        # Without `qrcode` it answers at once; with it, it waits five seconds.
        body = {"instanceName": name, "integration": "WHATSAPP-BAILEYS", "qrcode": False}
        body |= _creation(row, self.old)
        answer = await self._ask("POST", "/instance/create", body, timeout=self.old and SLOW)
        if not answer.good:
            raise _refusal("create", name, answer)

    async def rows(self) -> tuple[dict[str, Row], float]:
        """The whole list, and the seconds that it took. EngineError `list_failed` if the server
        answers other questions meanwhile: 1.8 waits for WhatsApp, which may be what is silent."""
        what = "use its list"
        if self.old:
            # The list of 1.x may take longer than its limit: a quick question shows first that the
            # server answers.
            await self.state(_NOBODY, urgent=True)
        try:
            answer = await self._ask("GET", _LIST, timeout=self.old and SLOW, urgent=True)
        except ServerDown as down:
            if down.reason == "timeout":
                await self.state(_NOBODY, urgent=True)
                cause = f"{down.cause}, while it answers the rest"
                raise cannot("list its sessions", cause, "list_failed") from down
            raise
        if not answer.good:
            raise ServerDown(what, "failing", f"it answers {answer.status}")
        # In a thread: a thousand rows take 50 ms.
        rows = await in_thread(self._read_rows, answer.body)
        if rows is None:
            raise ServerDown(what, "not_found", "its answer is not Evolution API's")
        return rows, answer.seconds

    async def raw_row(self, name: str) -> Any:
        """Return a session's row in the server's own form; None if the server shows none."""
        answer = await self._ask("GET", _LIST, query={"instanceName": name})
        body = answer.body if answer.good else None
        for raw in body if isinstance(body, list) else [body]:
            if name in (self._read_rows([raw]) or {}):  # some servers take no notice of the name
                return raw
        return None

    async def row(self, name: str) -> Row | None:
        return (self._read_rows([await self.raw_row(name)]) or {}).get(name)

    async def find(self, what: str, name: str) -> Any:
        """Return the `settings` or the `webhook` of a session; None if it has none."""
        answer = await self._ask("GET", f"/{what}/find/{segment(name)}")
        if _is_missing(answer):
            raise _refusal(f"find the {what} of", name, answer)
        return answer.body if answer.good else None

    async def set(self, what: str, name: str, body: Mapping[str, Any]) -> None:
        answer = await self._ask("POST", f"/{what}/set/{segment(name)}", body)
        if not answer.good:
            raise _refusal(f"set the {what} of", name, answer)

    def settable(self, session: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return, by the route's name, the bodies that set a session's settings and webhook."""
        bodies, old = {}, self.old
        if isinstance(raw := session.get("settings"), Mapping):
            bodies["settings"] = _settings(inside(raw, "settings") or raw, old)
        if webhook := _webhook(session.get("webhook"), old):
            bodies["webhook"] = webhook
        return bodies

    async def query(self, name: str, account: str, limit: float) -> bool | None:
        """Ask WhatsApp through the session for its own business profile: that changes nothing, no
        contact sees it, and Baileys really asks. None: no query got through. ServerDown if it is
        the server that fails."""
        path = f"/chat/fetchBusinessProfile/{segment(name)}"
        try:
            answer = await self._ask("POST", path, {"number": account}, timeout=limit)
        except ServerDown as down:
            if down.reason not in ("timeout", "not_found", "failing", "garbage"):
                raise
            if down.reason != "timeout" or not down.reached:
                return None  # this route alone
            await self.state(name, urgent=True)  # the session hangs if the server still answers
            return False
        words = _words_of(answer.body)
        dead = any(sign in words for sign in _DEAD)
        refused = any(sign in words for sign in _REFUSED_BY_WHATSAPP)
        if dead or refused or inside(answer.body, "isBusiness") is not None:
            return not dead
        return None  # an answer of the server's own, or of a proxy before it

    async def learn_version(self) -> None:
        """Learn the version. 2.x asks the internet first: that is slow, and hides failures."""
        try:
            answer = await self.http.ask("GET", "/", timeout=5.0, urgent=True)
        except ServerDown:
            return
        if version := text(inside(answer.body, "version"), 40):
            self.version, self.told = version, True
            self.old = version.startswith("1.")

    def _read_rows(self, body: Any) -> dict[str, Row] | None:
        """Read the rows, without unreadable ones. None if the body is no list."""
        if isinstance(body, Mapping) and "instance" in body:
            body = [body]  # 1.8 with a key that knows one session only
        if not isinstance(body, list):
            return None
        old = any(isinstance(raw, Mapping) and "instance" in raw for raw in body)
        rows = [row for row in map(_old_row if old else _row, body) if row is not None]
        if body and not rows:
            return None
        if rows:
            self.old, self.told = old, True
        named = (row for row in rows if row.name.isprintable() and row.name not in (".", ".."))
        return {row.name: row for row in named}

    async def _ask(self, method: str, path: str, body: Any = None, **how: Any) -> Answer:
        """Return the answer; ServerDown if it tells that the server itself is not well."""
        answer = await self.http.ask(method, path, body, **how)
        what, words = f"{method} {path}", _words_of(answer.body)
        if answer.status == 401 or (answer.status == 403 and "Missing global api key" in words):
            raise ServerDown(what, "refused_key", "it refuses the key")
        if answer.status == 503 and inside(answer.body, "code") == "LICENSE_REQUIRED":
            raise ServerDown(what, "licence_missing", "its licence is not activated")
        if answer.status > 500 or answer.status == 429:
            raise ServerDown(what, "failing", f"it answers {answer.status}")
        no_route = answer.body is None or "Cannot " in words
        if answer.status == 404 and no_route and not _is_missing(answer):
            raise ServerDown(what, "not_found", "it has no such route")
        return answer


def _refusal(what: str, name: str, answer: Answer) -> EngineError:
    if _is_missing(answer):
        return cannot(f"{what} {name}", "the server has no such session", "remote_missing")
    return cannot(f"{what} {name}", f"it answers {answer.refusal}", "remote_refused")


def _is_refused(answer: Answer) -> bool:
    """True for a refusal: status 200 and `error: true` of `connect`, `restart`; in 1.8 no body."""
    return not answer.good or answer.body is None or inside(answer.body, "error") is True


def _is_missing(answer: Answer) -> bool:
    words = _words_of(answer.body)
    return answer.status == 404 and ("does not exist" in words or "not found" in words)


def _words_of(body: Any) -> str:
    """Return all words of `response.message` or `message`, however deep the arrays go."""
    response = inside(body, "response")
    return str(inside(response if isinstance(response, Mapping) else body, "message"))[:2000]


def _shown(body: Any) -> Shown:
    session = inside(body, "instance")
    state = session.get("state", session.get("status")) if isinstance(session, Mapping) else ""
    code = inside(body, "qrcode") if isinstance(session, Mapping) else body
    to_scan, to_type = text(inside(code, "code"), 4096), text(inside(code, "pairingCode"))
    return Shown(text(state), to_scan, to_type, whole(inside(code, "count")) or 0)


def _row(raw: Any) -> Row | None:
    if not (name := text(inside(raw, "name"))):
        return None
    # Baileys' last disconnect, which the server keeps as JSON in a string.
    end = object_of(text(raw.get("disconnectionObject"), LARGEST))
    return Row(
        name=name,
        status=text(raw.get("connectionStatus")),
        account=_account(raw.get("ownerJid")),
        code=whole(raw.get("disconnectionReasonCode")),
        text=text(inside(end, "error", "output", "payload", "message")),
        closed_wall=moment(raw.get("disconnectionAt")),
        integration=text(raw.get("integration")),
        proxy=_mark_proxy(raw.get("Proxy")),
    )


def _old_row(raw: Any) -> Row | None:
    session = inside(raw, "instance")
    if not (name := text(inside(session, "instanceName"))):
        return None
    return Row(name, text(session.get("status")), _account(session.get("owner")))


def _account(jid: object) -> str:
    """Return the number in a JID, without its device; "" for an id that is no number."""
    if not isinstance(jid, str) or jid.endswith("@lid"):
        return ""
    return jid.split("@")[0].split(":")[0][:40]


def _mark_proxy(raw: Any) -> str:
    """Return a mark that equal proxies share, and tells no password; "" = none is switched on."""
    if inside(raw, "enabled") is not True:
        return ""
    return hashlib.sha256(json.dumps([raw.get(key) for key in _PROXY]).encode()).hexdigest()[:16]


# Settings that a session keeps when it is created again, as its server names them.
_SETTINGS = (
    *("rejectCall", "msgCall", "groupsIgnore", "alwaysOnline", "readMessages", "readStatus"),
    "syncFullHistory",
)


def _creation(row: Any, old: bool) -> dict[str, str]:
    """Return token, number and proxy, which only `create` can set."""
    if old:
        fields = {"token": inside(row, "instance", "apikey")}
    else:
        fields = {"token": inside(row, "token"), "number": inside(row, "number")}
        if inside(row, "Proxy", "enabled") is True:
            fields |= {f"proxy{key.capitalize()}": row["Proxy"].get(key) for key in _PROXY}
    return {key: value for key, value in fields.items() if isinstance(value, str) and value}


def _settings(raw: Any, old: bool) -> dict[str, Any]:
    """Return all settings by the server's own names, for the route that sets all at once."""
    names = [re.sub("([A-Z])", r"_\1", it).lower() for it in _SETTINGS] if old else _SETTINGS
    body = {name: inside(raw, name) for name in names}
    for name in [name for name, value in body.items() if value is None]:
        body[name] = "" if name.startswith("msg") else False
    token = inside(raw, "wavoipToken")
    if old or token:
        # 1.8.6 refuses a change without it, and takes an empty one.
        body["wavoipToken"] = token if isinstance(token, str) else ""
    return body


def _webhook(raw: Any, old: bool) -> dict[str, Any]:
    url, events = inside(raw, "url"), inside(raw, "events")
    if inside(raw, "enabled") is not True or not isinstance(url, str) or not url:
        return {}
    both = {"enabled": True, "url": url, "events": events if isinstance(events, list) else []}
    if old:
        return both | {key: raw.get(key) is True for key in ("webhook_by_events", "webhook_base64")}
    headers = given if isinstance(given := raw.get("headers"), Mapping) else {}
    flags = {"byEvents": raw.get("webhookByEvents") is True}
    flags["base64"] = raw.get("webhookBase64") is True
    return {"webhook": {**both, "headers": headers, **flags}}


def folder_name(name: str) -> str:
    quoted = segment(name)
    if len(quoted) <= 120:
        return quoted
    return f"{quoted[:100]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
