"""One whaticket-like server: its login, its token, and what its routes answer. A token lasts 15
minutes and the server answers 401 or 403 after it, so a refusal is answered by one new login and
one more try.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from agent.engines.raw import inside
from agent.engines.remote.answers import Answer, Http, ServerDown
from agent.engines.remote.recent import Recent
from agent.engines.whaticket.contract import Route
from agent.engines.whaticket.rows import Row, parse_rows, parse_state
from agent.engines.whaticket.settings import WhaticketSettings
from agent.errors import EngineError

LIST_HOLDS = 2.0
REFUSED_HOLDS = 30.0
"""Seconds in which a refused login is not tried again: a thousand sessions ask at once."""
_REFUSALS = (401, 403)
NO_SESSION = "ERR_NO_WAPP_FOUND"
NOT_RUNNING = "ERR_WAPP_NOT_INITIALIZED"
"""The session is not in the server's memory."""


class WhaticketServer:
    """Asks; `EngineError` says what the server would not do, `ServerDown` that it is not well."""

    def __init__(self, settings: WhaticketSettings, http: Http) -> None:
        self._settings = settings
        self.contract = settings.contract
        self._http = http
        self._token = "" if settings.own.user else settings.server.key
        self._refused: tuple[float, ServerDown] | None = None
        self._login = asyncio.Lock()
        self.rows: Recent[list[Row]] = Recent(self._list, LIST_HOLDS)
        self.answered_in = 0.0
        """Seconds that the last list took."""
        self.left_out: list[str] = []
        """What the last list has and no request can name."""

    async def close(self) -> None:
        await self.rows.close()
        await self._http.close()

    async def state(self, id: str) -> Row | None:
        """None: it does not know that session."""
        route = self.contract.state
        answer = await self.ask(route, id)
        if answer.status == 404 and not await self._knows(id, answer):
            return None
        self._must_be_good(route, answer)
        row = parse_state(answer.body, id)
        if row is None:
            raise ServerDown(f"ask {route}", "garbage", "the answer is no session")
        return row

    async def _list(self) -> list[Row]:
        route = self.contract.list
        answer = await self.ask(route, urgent=True)
        self._must_be_good(route, answer)
        rows = parse_rows(answer.body)
        if rows is None:
            raise ServerDown(f"ask {route}", "garbage", "the answer is no list of sessions")
        self.answered_in = answer.seconds
        good, self.left_out = rows
        return good

    async def do(self, what: str, route: Route | None, id: str = "", body: Any = None) -> Answer:
        """`what` for people: "start session 7". The list is no longer good afterwards."""
        if route is None:
            raise _no_route(what)
        try:
            answer = await self.ask(route, id, body)
        finally:
            self.rows.forget()
        if answer.status == 404:
            if not id or await self._knows(id, answer):
                raise EngineError(
                    f"cannot {what}: the server has no route {route}", code="not_supported"
                )
            raise EngineError(f"cannot {what}: {_refusal(answer)}", code="remote_missing")
        if not answer.good:
            raise EngineError(f"cannot {what}: {_refusal(answer)}", code="remote_refused")
        return answer

    async def send(self, token: str, body: Mapping[str, Any]) -> Answer:
        """Another token than the rest: the session's own, or one made for sending."""
        route = self.contract.send
        if route is None:
            raise _no_route("send")
        if not token:
            raise EngineError(
                "cannot send: the session has no token, and no key is set", code="no_token"
            )
        headers = {"Authorization": f"Bearer {token}"}
        return await self._http.ask(route.verb, route.path, body, headers=headers, alone=True)

    async def ask(
        self, route: Route, id: str = "", body: Any = None, *, urgent: bool = False
    ) -> Answer:
        """An answer that is no refusal of our token."""
        token = self._token or await self._log_in("", urgent)
        answer = await self._ask(route, id, body, token, urgent)
        if answer.status in _REFUSALS:
            token = await self._log_in(token, urgent)
            answer = await self._ask(route, id, body, token, urgent)
        if answer.status in _REFUSALS:
            raise ServerDown(
                f"ask {route}", "refused_key", f"the server refuses the token ({answer.status})"
            )
        return answer

    async def _ask(self, route: Route, id: str, body: Any, token: str, urgent: bool) -> Answer:
        headers = {"Authorization": f"Bearer {token}"}
        return await self._http.ask(route.verb, route.at(id), body, headers=headers, urgent=urgent)

    async def _log_in(self, refused: str, urgent: bool) -> str:
        """A token that is not the refused one. However many ask, one login is made."""
        what = f"log in by {self.contract.login}"
        if not self._settings.own.user:
            raise ServerDown(what, "refused_key", "the key is refused")
        async with self._login:
            if self._token and self._token != refused:
                return self._token
            if self._refused is not None and time.monotonic() - self._refused[0] < REFUSED_HOLDS:
                down = self._refused[1]
                raise ServerDown(what, down.reason, down.cause)
            try:
                self._token = await self._new_token(what, urgent)
            except ServerDown as down:
                self._token = ""
                if down.reason == "refused_key":
                    self._refused = (time.monotonic(), down)
                raise
            self._refused = None
            return self._token

    async def _new_token(self, what: str, urgent: bool) -> str:
        route, own = self.contract.login, self._settings.own
        who = {"email": own.user, "password": own.password}
        answer = await self._http.ask(route.verb, route.path, who, urgent=urgent)
        if answer.status in (*_REFUSALS, 400):
            raise ServerDown(what, "refused_key", "user or password is refused")
        if answer.status == 404:
            raise ServerDown(what, "not_found", "the server has no such route")
        self._must_be_good(route, answer)
        token = inside(answer.body, "token")
        if not isinstance(token, str) or not token or any(not "!" <= c <= "~" for c in token):
            raise ServerDown(what, "garbage", "the answer holds no token")
        return token

    async def _knows(self, id: str, refused: Answer) -> bool:
        """What a 404 means: its list knows the session, so it was the route that is not there."""
        if inside(refused.body, "error") == NO_SESSION:
            return False
        return any(row.id == id for row in await self.rows.get())

    def _must_be_good(self, route: Route, answer: Answer) -> None:
        if answer.status >= 500:
            raise ServerDown(f"ask {route}", "failing", f"it answers {answer.status}")
        if answer.status == 404:
            raise ServerDown(f"ask {route}", "not_found", "the server has no such route")
        if not answer.good:
            raise ServerDown(f"ask {route}", "garbage", f"it answers {_refusal(answer)}")


def _no_route(what: str) -> EngineError:
    return EngineError(f"cannot {what}: this server has no route for it", code="not_supported")


def _refusal(answer: Answer) -> str:
    """The status and the server's own error code, if it looks like one: bodies may hold more."""
    error = inside(answer.body, "error")
    if isinstance(error, str) and len(error) <= 60 and error.replace("_", "").isalnum():
        return f"{answer.status} {error}"
    return str(answer.status)
