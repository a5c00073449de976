"""The web engine: what the worker asks of a session, and its ways back from trouble."""

import asyncio
import base64
import gc
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.core.words import Claim, ConnectionStatus, Happening
from agent.engines.base import ProbeAnswer, Qr, Reporter
from agent.engines.web.arguments import Program, find_browser, find_setpriv
from agent.engines.web.bundle import page_config, read_bundle
from agent.engines.web.messages import ACKS, read_message, read_part, refusal
from agent.engines.web.page import page_script
from agent.engines.web.profile import lost_store, make_durable
from agent.engines.web.record import Record
from agent.engines.web.sending import ANSWER, send, take_part
from agent.engines.web.session import Listener, Session
from agent.engines.web.settings import (
    LIVE,
    WebSettings,
    cache_folder,
    probe_limit,
    read_settings,
)
from agent.engines.web.view import View
from agent.errors import ConfigError, EngineError, InvalidRequest, WaError

log = logging.getLogger(__name__)

Status = ConnectionStatus
Work = Callable[[], Coroutine[Any, Any, None]]

FIRST_CODE, NEXT_CODE = 60.0, 20.0
"""Seconds that WhatsApp lets a login's first code live, and each later one."""
PAIRING_CODE = 195.0
SETTLED = 5.0
"""Seconds of a connection after which the page has done the most of its start."""
PICTURE_LIMIT = 640 * 1024
"""Bytes of a picture that one message of the link surely holds; photos make a PNG longer."""
STARTS_WINDOW = 600.0

_FAILED_START = {
    "page_unreachable": "connection_lost",
    "page_missing": "misconfigured",
    "setpriv_missing": "misconfigured",
    "sandbox_not_possible": "misconfigured",
    "bundle_missing": "misconfigured",
    "bundle_changed": "misconfigured",
    "storage_failed": "storage_failed",
    "profile_in_use": "storage_failed",
}


def open_engine(folder: Path, settings: Mapping[str, Any], reporter: Reporter) -> "WebEngine":
    """ConfigError when the browser or the bundle is missing: a restart would not bring them."""
    known = read_settings(settings)
    program = find_browser(known.browser, os.environ.get("WA_BROWSER", ""))
    find_setpriv()
    cache = cache_folder()
    read_bundle(cache)

    def script() -> str:
        try:
            return page_script(known.url, page_config(known.device_name), read_bundle(cache))
        except ConfigError as error:
            raise EngineError(str(error), code=error.code) from error

    return WebEngine(folder, known, program, script, reporter)


class WebEngine:
    """One session. At most one task of its own: a start, or a way back from trouble."""

    def __init__(
        self,
        folder: Path,
        settings: WebSettings,
        program: Program,
        script: Callable[[], str],
        reporter: Reporter,
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._reporter = reporter
        listener = Listener(self._take_word, self._browser_gone)
        self._session = Session(folder, settings, program, script, listener)
        self._view = View()
        self._record = Record(folder)
        self._told: Claim | None = None
        self._work: asyncio.Task[None] | None = None
        self._aside: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._tidying = False
        self._starts: deque[float] = deque()

    # what the worker calls

    async def connect(self) -> None:
        if self._stopping:
            raise EngineError("cannot connect: the session is stopping", code="stopping")
        if self._working:
            return
        self._starts.clear()
        if not self._session.alive:
            self._begin(self._start)
        elif self._view.claim.reason == "qr_idle" and not self._view.silent:
            await self._refresh_code()
        elif self._view.needs_revival(_now()):
            self._begin(self._revive)

    async def disconnect(self) -> None:
        await self._end_work()
        await self._session.close()
        self._view.failed("", "")
        self._publish()

    async def probe(self, *, deep: bool = False) -> ProbeAnswer:
        view, limit = self._view, probe_limit()
        if self._working or not self._session.alive:
            return ProbeAnswer(view.claim_at(_now()), {"browser": self._session.alive})
        try:
            await self._look(limit)
            detail = await self._deep_detail(limit) if deep else {}
        except EngineError:
            view.silent = True
            raise
        view.silent = False
        if view.facts is not None:
            detail |= {"stream": view.claim.raw, "frames": view.facts.frames}
        return ProbeAnswer(view.claim_at(_now()), detail)

    async def qr(self) -> Qr | None:
        if self._view.claim.status is not Status.QR_REQUIRED:
            return None
        if self._view.claim.reason == "qr_idle":
            await self._refresh_code()
        await self._look(ANSWER)
        facts = self._view.facts
        waits = self._view.claim.status is Status.QR_REQUIRED
        if not waits or facts is None or facts.qr is None:
            return None
        lives = FIRST_CODE if facts.qr_number == 1 else NEXT_CODE
        return Qr(facts.qr, max(1.0, lives - (facts.qr_age or 0.0)), facts.qr_number)

    async def send(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        asked = read_message(message)
        self._must_be_connected("send")
        return await send(self._session.page, asked)

    async def logout(self) -> None:
        told = await self._session.page.ask("logout", ANSWER, within=ANSWER + 1)
        if not isinstance(told, Mapping) or told.get("ok") is not True:
            raise refusal("log out", told)
        self._view.ended("LOGOUT")
        self._publish()

    async def regenerate_keys(self, peers: list[str]) -> None:
        raise EngineError(
            "cannot regenerate keys: WhatsApp Web keeps and renews them itself",
            code="not_supported",
        )

    async def free_memory(self) -> None:
        gc.collect()
        if self._session.alive:
            await self._session.page.collect_garbage(within=ANSWER)

    async def _tidy(self) -> None:
        """What a start leaves behind is a tenth of the page's memory."""
        await asyncio.sleep(SETTLED)
        self._tidying = False
        if not self._working and not self._stopping:
            with suppress(EngineError):
                await self.free_memory()

    async def prepare_stop(self) -> None:
        self._stopping = True
        await self._end_work()

    async def save(self) -> None:
        """While it runs on, what the browser wrote; at a stop, the whole profile."""
        if self._stopping:
            self._reporter.progress()
            if not await self._session.close():
                log.warning("the browser did not end in order; its profile is as it was written")
        await self._record.write()
        self._reporter.progress()
        await asyncio.to_thread(make_durable, self._folder, self._reporter.progress)

    async def close(self) -> None:
        self._stopping = True
        await self._end_work()
        await self._session.kill()
        for task in list(self._aside):
            task.cancel()

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if name == "pairing_code":
            return await self._pairing_code(arguments)
        if name == "screenshot":
            return await self._picture("png" if arguments.get("format") == "png" else "jpeg")
        if name == "file_part":
            part = read_part(arguments)
            self._must_be_connected("take a file")
            return await take_part(self._session.page, part)
        if name == "reload":
            if not self._session.alive or self._working:
                raise EngineError("cannot reload: no page is there", code="not_running")
            self._begin(self._revive)
            return {}
        raise InvalidRequest(
            f"cannot {name!r:.40}: the web engine knows pairing_code, screenshot, file_part and"
            " reload",
            field="name",
        )

    # what the browser and the page say by themselves

    def _take_word(self, word: str, told: Mapping[str, Any]) -> None:
        if word == "message":
            short = {key: str(told.get(key, ""))[:64] for key in ("direction", "type", "id")}
            self._reporter.happened(Happening("message", short))
        elif word == "ack":
            self._acked(told)
        elif word == "page_crashed":
            log.warning("the page crashed")
            self._come_back(self._revive, word)
        elif word == "navigated":
            self._navigated(str(told.get("url", ""))[:2000], told.get("unreachable") is True)
        else:
            self._view.word(word, told, _now())
            self._publish()

    def _acked(self, told: Mapping[str, Any]) -> None:
        ack, ids = told.get("ack"), told.get("ids")
        if isinstance(ack, int) and isinstance(ids, list):
            for id in ids[:100]:
                detail = {"id": str(id)[:64], "ack": ACKS.get(ack, "unknown")}
                self._reporter.happened(Happening("ack", detail))

    def _navigated(self, address: str, unreachable: bool) -> None:
        self._view.new_document(address)
        # While it starts, the start itself tells what came of it.
        if unreachable and not self._working:
            self._view.failed("connection_lost", "the page cannot be reached")
        if not unreachable or not self._working:
            self._publish()

    def _browser_gone(self, status: int, words: str) -> None:
        log.warning("the browser ended (status %d) %s", status, words)
        self._come_back(self._start, "browser_gone")

    def _come_back(self, work: Work, word: str) -> None:
        """By ourselves, as often as the settings allow; then it is the agent's turn."""
        if self._stopping or self._working:
            return
        self._view.interrupted(word)
        now = _now()
        while self._starts and self._starts[0] < now - STARTS_WINDOW:
            self._starts.popleft()
        if len(self._starts) >= self._settings.browser_starts:
            self._view.failed("page_crashed", word)
            self._publish()
            return
        self._starts.append(now)
        self._begin(work)

    # ways to a page that works

    async def _start(self) -> None:
        if self._record.paired and (lost := await asyncio.to_thread(lost_store, self._folder)):
            log.error("not starting a browser: the session is paired, and %s", lost)
            self._view.lost(lost)
            self._publish()
            return
        self._view.begin(_now(), "attached")
        self._publish()
        try:
            await self._session.open()
            self._view.begin(_now(), "loaded")
            self._publish()
            await self._session.load()
        except (WaError, TimeoutError) as error:
            log.warning("%s", error)
            await self._leave_diagnostics(str(error))
            await self._session.kill()
            code = error.code if isinstance(error, WaError) else ""
            self._view.failed(_FAILED_START.get(code, "page_crashed"), str(error))
            self._publish()

    async def _revive(self) -> None:
        """Reload; where that does not help, another browser."""
        self._view.revive(_now())
        self._publish()
        if not await self._session.reload():
            await self._session.kill()
            await self._start()
        self._view.silent = False

    async def _refresh_code(self) -> None:
        told = await self._session.page.ask("refresh", ANSWER, within=ANSWER + 1)
        if not isinstance(told, Mapping) or "ok" not in told:
            raise refusal("get a new code", told)

    async def _pairing_code(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        phone = arguments.get("phone")
        digits = "".join(each for each in str(phone) if each in "0123456789")
        if not isinstance(phone, str) or not 7 <= len(digits) <= 15:
            raise InvalidRequest("cannot get a pairing code: phone is no number", field="phone")
        if self._view.claim.status is not Status.QR_REQUIRED:
            raise EngineError("cannot get a pairing code: no scan is due", code="not_waiting")
        given = (digits, arguments.get("notify") is not False, ANSWER)
        told = await self._session.page.ask("pairing_code", *given, within=ANSWER + 1)
        if not isinstance(told, Mapping) or not isinstance(told.get("ok"), str):
            raise refusal("get a pairing code", told)
        return {"code": told["ok"], "expires_in": PAIRING_CODE}

    async def _picture(self, kind: str) -> Mapping[str, Any]:
        picture = await self._session.page.picture(kind=kind)
        if kind == "png" and len(picture) > PICTURE_LIMIT:
            return await self._picture("jpeg")
        return {"type": f"image/{kind}", "content": base64.b64encode(picture).decode()}

    def _must_be_connected(self, doing: str) -> None:
        if self._view.claim.status is not Status.CONNECTED or self._stopping:
            raise EngineError(f"cannot {doing}: not connected", code="not_connected")

    async def _look(self, within: float) -> None:
        self._view.look(await self._session.page.ask("read", within=within), _now())
        self._publish()

    async def _deep_detail(self, limit: float) -> dict[str, Any]:
        page = self._session.page
        told = await page.ask("deep", within=limit)
        detail = dict(told) if isinstance(told, Mapping) else {}
        detail |= await page.heap(within=limit)
        if (facts := self._view.facts) is not None:
            detail |= {
                "mode": facts.mode,
                "info": facts.info,
                "socket": facts.socket,
                "frame_age": facts.frame_age,
                "code_shown": facts.qr is not None,
                "update_offered": facts.update,
            }
        return detail | {"browser_pid": self._session.browser_pid}

    async def _leave_diagnostics(self, why: str) -> None:
        page = self._session.page if self._session.alive else None
        await self._record.keep_diagnostics(why, page, self._view)

    # telling it

    def _publish(self) -> None:
        """Tell what is new, and write down what must outlive this worker."""
        claim, facts = self._view.claim, self._view.facts
        if self._told is None or replace(claim, raw="") != replace(self._told, raw=""):
            self._told = claim
            if claim.status is Status.CONNECTED and not self._tidying:
                self._tidying = True
                self._beside(self._tidy())
            self._reporter.claim(self._view.claim_at(_now()))
        if claim.status is Status.CONNECTED:
            self._record.connected(claim.account)
            version = facts.version if facts is not None else ""
            if self._settings.page == LIVE and self._record.wants_page(version):
                page, address = self._session.page, self._view.address
                self._beside(self._record.keep_page(page, address, version))
        elif claim.reason == "logout":
            self._record.unpaired()
        elif claim.reason == "injection_failed" and self._record.wants_diagnostics():
            self._beside(self._leave_diagnostics(claim.reason))
        if self._record.changed:
            self._beside(self._record.write())

    @property
    def _working(self) -> bool:
        return self._work is not None and not self._work.done()

    def _begin(self, work: Work) -> None:
        self._work = asyncio.create_task(work(), name="web session")
        self._work.add_done_callback(self._ended)

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="web aside")
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._reporter.crashed(error)

    async def _end_work(self) -> None:
        if self._work is not None and not self._work.done():
            self._work.cancel()
            await asyncio.wait({self._work})


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
