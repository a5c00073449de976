"""The server's routes in both of its dialects: one request each, its answer read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.engines.evolution.answers import (
    Shown,
    is_missing,
    is_refused,
    read_shown,
    read_state,
    refusal,
    refusal_words,
    server_fault,
)
from agent.engines.evolution.claims import Live
from agent.engines.evolution.rows import Row, Rows, read_rows
from agent.engines.raw import inside, text
from agent.engines.remote.answers import Answer, ServerDown, segment
from agent.engines.remote.http import RemoteHttp
from agent.errors import EngineError

SLOW = 75.0
"""Seconds: 1.8 asks WhatsApp through each open session before it lists or creates any; where
WhatsApp is silent that takes until the session's connection ends, 35 to 65 s."""
_LIST = "/instance/fetchInstances"
_NO_SESSION = "wa-agent-check"
"""No session has this name: the server refuses it without asking WhatsApp."""

_NO_ACCOUNT = ("of undefined (reading 'name')", "Cannot read property 'name' of undefined")


@dataclass(slots=True)
class EvolutionApi:
    http: RemoteHttp
    doubt: Callable[[], None]
    """Called where an answer may mean that the server is down."""
    answered: Callable[[], None]
    """Called at each other answer."""
    old: bool = False
    """The server speaks 1.8; learnt from its version or from its list."""
    told: bool = False
    """The server's version or list told which of both it speaks."""
    version: str = ""

    @property
    def may_be_old(self) -> bool:
        """What 1.8 needs care for is taken care of until the server has told its version."""
        return self.old or not self.told

    async def state(self, name: str, *, urgent: bool = False) -> Live:
        path = f"/instance/connectionState/{segment(name)}"
        answer = await self.ask("GET", path, urgent=urgent)
        if is_missing(answer):
            return Live.MISSING
        live = read_state(answer.body) if answer.good else None
        if live is not None:
            return live
        self.doubt()
        if answer.status >= 500:
            raise ServerDown(f"GET {path}", "failing", f"it answers {answer.status}")
        raise ServerDown(f"GET {path}", "garbage", "its answer holds no state")

    async def connect(self, name: str, phone: str = "") -> Shown:
        """In `close` the session begins to connect; in `connecting` the answer is its last code.
        Only Observer.connect calls it."""
        query = {"number": phone} if phone else None
        answer = await self.ask("GET", f"/instance/connect/{segment(name)}", query=query)
        if is_missing(answer):
            raise _missing("connect", name)
        if is_refused(answer):
            raise refusal(f"connect {name}", answer)
        return read_shown(answer.body)

    async def has_account(self, name: str) -> bool | None:
        """Whether the keys of a session that is not open belong to an account; None = it does not
        tell. Baileys reads the account's name before it looks at the connection. The server logs
        its answer as an error."""
        path = f"/instance/setPresence/{segment(name)}"
        answer = await self.ask("POST", path, {"presence": "unavailable"})
        if answer.good:
            return True  # its socket took the words: it logs in, or is about to
        words = refusal_words(answer.body)
        if any(sign in words for sign in _NO_ACCOUNT):
            return False
        return True if "Connection Closed" in words else None

    async def restart(self, name: str) -> bool:
        """False where the server refuses: in `close`."""
        method = "PUT" if self.old else "POST"
        answer = await self.ask(method, f"/instance/restart/{segment(name)}")
        if is_missing(answer):
            raise _missing("restart", name)
        if answer.status >= 500:
            raise refusal(f"restart {name}", answer)
        return not is_refused(answer)

    async def logout(self, name: str) -> None:
        """The answer comes before the logout. A closed or missing session needs none."""
        answer = await self.ask("DELETE", f"/instance/logout/{segment(name)}")
        closed = answer.status == 400  # 2.3.x; 2.4 says yes to it
        if not answer.good and not closed and not is_missing(answer):
            raise refusal(f"log {name} out", answer)

    async def delete(self, name: str) -> None:
        """The answer comes before the deletion."""
        answer = await self.ask("DELETE", f"/instance/delete/{segment(name)}")
        if not answer.good and not is_missing(answer):
            raise refusal(f"delete {name}", answer)

    async def create(self, name: str, more: Mapping[str, Any]) -> None:
        """`more`: token, number and proxy of a session that is made again."""
        # Without `qrcode` it answers at once; with it, it waits five seconds.
        body = {"instanceName": name, "integration": "WHATSAPP-BAILEYS", "qrcode": False, **more}
        answer = await self.ask("POST", "/instance/create", body, timeout=SLOW)
        if not answer.good:
            in_use = answer.status == 403
            raise refusal(f"create {name}", answer, "remote_exists" if in_use else "remote_refused")

    async def rows(self, timeout: float | None = None) -> Rows:
        """The whole list."""
        answer = await self.ask("GET", _LIST, timeout=timeout)
        rows = read_rows(answer.body) if answer.good else None
        if rows is None:
            cause = f"it answers {answer.status}" if not answer.good else "its answer is no list"
            raise EngineError(f"cannot list the sessions: {cause}", code="list_failed")
        self._learn(rows)
        return rows

    async def row(self, name: str) -> Any:
        """One session's row in the server's own form; None where the server shows none."""
        for raw in await self._rows_of(name) or ():
            if (rows := read_rows([raw])) is not None and name in rows.by_name:
                return raw
        return None

    async def _rows_of(self, name: str) -> list[Any] | None:
        """What the server shows when asked for that session: a few take no notice of the name."""
        answer = await self.ask("GET", _LIST, query={"instanceName": name})
        body = answer.body if answer.good else None
        return body if body is None or isinstance(body, list) else [body]

    async def row_now(self, name: str) -> tuple[Row | None] | None:
        """One session's row, read now; None where the server gives none. 1.8 has no rows."""
        if self.old:
            return (None,)
        shown = await self._rows_of(name)
        rows = read_rows(shown) if shown is not None else None
        if rows is None:
            return None
        self._learn(rows)
        return (rows.by_name.get(name),)

    async def find(self, what: str, name: str) -> Any:
        """The `settings`, the `webhook` or the `proxy` of a session; None where it has none."""
        answer = await self.ask("GET", f"/{what}/find/{segment(name)}")
        if is_missing(answer):
            raise _missing(f"find the {what} of", name)
        return answer.body if answer.good else None

    async def set(self, what: str, name: str, body: Mapping[str, Any]) -> None:
        answer = await self.ask("POST", f"/{what}/set/{segment(name)}", body)
        if not answer.good:
            raise refusal(f"set the {what} of {name}", answer)

    async def own_profile(self, name: str, account: str, timeout: float) -> Answer:
        """A query to WhatsApp through the session, about its own number."""
        path = f"/chat/fetchBusinessProfile/{segment(name)}"
        return await self.ask("POST", path, {"number": account}, timeout=timeout, may_lack=True)

    async def check(self, name: str, patience: float) -> tuple[float, Rows | None]:
        """The seconds that an answer took, with the key and through the database, and the list. It
        asks for the webhook of `name`, a session that was there, or without one for the list: 1.8
        answers other questions about a missing session with 500 and logs errors.
        """
        if name:
            answer = await self._webhook_of(name)
            if answer is not None and answer.good:
                return answer.seconds, None
        try:
            listed = await self._checked("use its list", _LIST, patience / 2)
        except ServerDown as down:
            if down.reason != "timeout":
                raise
            # 1.8 asks WhatsApp through each open session first: WhatsApp may be what is silent.
            alive = await self._webhook_of(_NO_SESSION, patience / 2)
            if alive is None:
                raise
            return alive.seconds, None
        rows = read_rows(listed.body)
        if rows is None:
            raise ServerDown("use its list", "not_found", "its answer is not Evolution API's")
        self._learn(rows)
        return listed.seconds, rows

    async def _webhook_of(self, name: str, timeout: float | None = None) -> Answer | None:
        """None where a proxy before the server passes no such route: the list tells as much."""
        try:
            path = f"/webhook/find/{segment(name)}"
            return await self._checked("use its sessions", path, timeout)
        except ServerDown as down:
            if down.reason != "not_found":
                raise
            return None

    async def _checked(self, what: str, path: str, timeout: float | None = None) -> Answer:
        try:
            answer = await self.http.ask("GET", path, timeout=timeout, urgent=True)
        except ServerDown as error:  # told of all sessions: without the name of the one asked for
            raise ServerDown(what, error.reason, error.cause, reached=error.reached) from error
        if (down := server_fault(what, answer)) is not None:
            raise down
        if answer.status >= 500:
            raise ServerDown(what, "failing", f"it answers {answer.status}")
        if not answer.good and not is_missing(answer):
            raise ServerDown(what, "not_found", "its answer is not Evolution API's")
        return answer

    async def learn_version(self, timeout: float) -> None:
        """Evolution 2.x asks the internet before it answers: slow, and it hides failures."""
        try:
            answer = await self.http.ask("GET", "/", timeout=timeout, urgent=True)
        except ServerDown:
            return
        if version := text(inside(answer.body, "version"), 40):
            self.version = version
            self.old, self.told = version.startswith("1."), True

    def _learn(self, rows: Rows) -> None:
        self.old = self.old or rows.old
        self.told = self.told or bool(rows.by_name)

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        timeout: float | None = None,
        urgent: bool = False,
        may_lack: bool = False,
    ) -> Answer:
        """The answer; ServerDown where it tells that the server itself is not well. `may_lack`: a
        server that has no such route is well all the same."""
        try:
            answer = await self.http.ask(
                method, path, body, query=query, timeout=timeout, urgent=urgent
            )
            down = server_fault(f"{method} {path}", answer)
            if down is not None and not (may_lack and down.reason == "not_found"):
                raise down
        except ServerDown:
            self.doubt()
            raise
        self.answered()
        return answer


def _missing(what: str, name: str) -> EngineError:
    return EngineError(
        f"cannot {what} {name}: the server has no such session", code="remote_missing"
    )
