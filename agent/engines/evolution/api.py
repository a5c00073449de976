"""The server's calls in both of its dialects. Each asks once and says what the answer means."""

from collections.abc import Callable, Mapping
from typing import Any

from agent.engines.evolution.answers import (
    Shown,
    failed,
    missing,
    read_shown,
    read_state,
    refused,
    trouble,
)
from agent.engines.evolution.claims import Live
from agent.engines.evolution.rows import Row, Rows, read_rows
from agent.engines.remote.http import Answer, RemoteHttp, ServerDown, segment
from agent.errors import EngineError

SLOW = 75.0
"""Seconds: 1.8 asks WhatsApp through each open session before it lists or creates any, and one
whose WhatsApp is silent answers when its connection notices that, after 35 to 65 s."""
_LIST = "/instance/fetchInstances"
_NOBODY = "wa-agent-check"
"""A session that is not there; its guard answers without asking WhatsApp for anything."""


class EvolutionApi:
    """`old` = it speaks 1.8; learnt from its version or from its list."""

    def __init__(
        self, http: RemoteHttp, doubt: Callable[[], None], answered: Callable[[], None]
    ) -> None:
        """`doubt`: an answer shed doubt on the whole server; `answered`: one came through."""
        self.old = False
        self.version = ""
        self._http = http
        self._doubt = doubt
        self._answered = answered

    async def state(self, name: str, *, urgent: bool = False) -> Live:
        path = f"/instance/connectionState/{segment(name)}"
        answer = await self.ask("GET", path, urgent=urgent)
        if missing(answer):
            return Live.MISSING
        live = read_state(answer.body) if answer.good else None
        if live is not None:
            return live
        self._doubt()
        if answer.status >= 500:
            raise ServerDown(f"GET {path}", "failing", f"it answers {answer.status}")
        raise ServerDown(f"GET {path}", "garbage", "its answer is no state")

    async def connect(self, name: str, phone: str = "") -> Shown:
        """In `close` it begins to connect; in `connecting` it shows the code there is now."""
        query = {"number": phone} if phone else None
        answer = await self.ask("GET", f"/instance/connect/{segment(name)}", query=query)
        if missing(answer):
            raise EngineError(f"cannot connect {name}: it is not there", code="remote_missing")
        if refused(answer):
            raise failed(f"connect {name}", answer)
        return read_shown(answer.body)

    async def restart(self, name: str) -> bool:
        """False where the server refuses it: in `close`."""
        method = "PUT" if self.old else "POST"
        answer = await self.ask(method, f"/instance/restart/{segment(name)}")
        if missing(answer):
            raise EngineError(f"cannot restart {name}: it is not there", code="remote_missing")
        if answer.status >= 500:
            raise failed(f"restart {name}", answer)
        return not refused(answer)

    async def logout(self, name: str) -> None:
        """Answered before it is done. A session that is closed or not there needs none."""
        answer = await self.ask("DELETE", f"/instance/logout/{segment(name)}")
        closed = answer.status == 400  # 2.3.x; 2.4 says yes to it
        if not answer.good and not closed and not missing(answer):
            raise failed(f"log {name} out", answer)

    async def delete(self, name: str) -> None:
        """Answered before it is done."""
        answer = await self.ask("DELETE", f"/instance/delete/{segment(name)}")
        if not answer.good and not missing(answer):
            raise failed(f"delete {name}", answer)

    async def create(self, name: str, more: Mapping[str, Any]) -> None:
        """`more`: what a session that was there before is given again."""
        # Without `qrcode` it answers at once; with it, it waits five seconds.
        body = {"instanceName": name, "integration": "WHATSAPP-BAILEYS", "qrcode": False, **more}
        answer = await self.ask("POST", "/instance/create", body, timeout=SLOW)
        if not answer.good:
            in_use = answer.status == 403
            raise failed(f"create {name}", answer, "remote_exists" if in_use else "remote_refused")

    async def rows(self, timeout: float | None = None) -> Rows:
        """The whole list."""
        answer = await self.ask("GET", _LIST, timeout=timeout)
        rows = read_rows(answer.body) if answer.good else None
        if rows is None:
            cause = f"it answers {answer.status}" if not answer.good else "its answer is no list"
            raise EngineError(f"cannot list the sessions: {cause}", code="list_failed")
        self.old = self.old or rows.old
        return rows

    async def row(self, name: str) -> Any:
        """One session's own row as the server shows it, to be kept; None where it shows none."""
        answer = await self.ask("GET", _LIST, query={"instanceName": name})
        body = answer.body if answer.good else None
        return body[0] if isinstance(body, list) and body else body

    async def row_now(self, name: str) -> tuple[Row | None] | None:
        """One session's row as it is now; None when it is not told. 1.8 has nothing to tell."""
        if self.old:
            return (None,)
        body = await self.row(name)
        rows = read_rows([body]) if body is not None else None
        return None if rows is None else (rows.by_name.get(name),)

    async def found(self, what: str, name: str) -> Any:
        """`settings` or `webhook` of a session; None where it has none."""
        answer = await self.ask("GET", f"/{what}/find/{segment(name)}")
        if missing(answer):
            cause = "it is not there"
            raise EngineError(f"cannot find the {what} of {name}: {cause}", code="remote_missing")
        return answer.body if answer.good else None

    async def set(self, what: str, name: str, body: Mapping[str, Any]) -> None:
        answer = await self.ask("POST", f"/{what}/set/{segment(name)}", body)
        if not answer.good:
            raise failed(f"set the {what} of {name}", answer)

    async def send_text(self, name: str, number: str, text: str) -> Answer:
        body: dict[str, Any] = {"number": number, "linkPreview": False, "text": text}
        if self.old:
            options = {"linkPreview": False}
            body = {"number": number, "options": options, "textMessage": {"text": text}}
        return await self.ask("POST", f"/message/sendText/{segment(name)}", body)

    async def own_profile(self, name: str, account: str, timeout: float) -> Answer:
        """A query to WhatsApp through the session, about its own number."""
        path = f"/chat/fetchBusinessProfile/{segment(name)}"
        return await self.ask("POST", path, {"number": account}, timeout=timeout)

    async def check(self, name: str, patience: float) -> tuple[float, Rows | None]:
        """Ask, with the key and through the database, for the webhook of `name`, a session that
        was there; for the whole list where none is known.

        No server calls that an error: for a session that is not there 1.8 answers some questions
        with 500, and writes each of them into its log. The seconds it took, and the list if any.
        """
        if name:
            found = await self._checked("use its sessions", f"/webhook/find/{segment(name)}")
            if found.good:
                return found.seconds, None
        try:
            listed = await self._checked("use its list", _LIST, patience / 2)
        except ServerDown as down:
            if down.reason != "timeout":
                raise
            # 1.8 asks WhatsApp through each open session for it: that silence is not the server's.
            alive = await self._checked(
                "use its sessions", f"/webhook/find/{_NOBODY}", patience / 2
            )
            return alive.seconds, None
        rows = read_rows(listed.body)
        if rows is None:
            raise ServerDown("use its list", "not_found", "it answers as no Evolution API does")
        self.old = self.old or rows.old
        return listed.seconds, rows

    async def _checked(self, what: str, path: str, timeout: float | None = None) -> Answer:
        answer = await self._http.ask("GET", path, timeout=timeout, urgent=True)
        if (down := trouble(what, answer)) is not None:
            raise down
        if answer.status >= 500:
            raise ServerDown(what, "failing", f"it answers {answer.status}")
        if not answer.good and not missing(answer):
            raise ServerDown(what, "not_found", "it answers as no Evolution API does")
        return answer

    async def learn_version(self, timeout: float) -> None:
        """2.x looks into the net before it answers this one: slow, and never worth a failure."""
        try:
            answer = await self._http.ask("GET", "/", timeout=timeout, urgent=True)
        except ServerDown:
            return
        told = answer.body.get("version") if isinstance(answer.body, Mapping) else None
        if isinstance(told, str) and told:
            self.version = told[:40]
            self.old = told.startswith("1.")

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        timeout: float | None = None,
        urgent: bool = False,
    ) -> Answer:
        """An answer about what was asked; ServerDown when it is about the server."""
        try:
            answer = await self._http.ask(
                method, path, body, query=query, timeout=timeout, urgent=urgent
            )
            if (down := trouble(f"{method} {path}", answer)) is not None:
                raise down
        except ServerDown:
            self._doubt()
            raise
        self._answered()
        return answer
