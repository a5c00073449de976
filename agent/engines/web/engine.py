"""The web engine: what the worker asks of a session, and its ways back from trouble."""

import asyncio
import gc
import logging
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.clock import boot_now
from agent.core.words import Claim, ConnectionStatus, Happening
from agent.engines.base import ProbeAnswer, Qr, Reporter, cache_folder, probe_limit
from agent.engines.tasks import Tasks
from agent.engines.web import page_calls
from agent.engines.web.browser.page import Page, page_script
from agent.engines.web.browser.process import find_browser, find_setpriv
from agent.engines.web.fetch import page_config, read_bundle
from agent.engines.web.intake import Intake, read_mark
from agent.engines.web.page_calls import ANSWER, read_acks, read_message, send, take_part
from agent.engines.web.profile import make_durable
from agent.engines.web.rules import LIVE, WebSettings, read_settings
from agent.engines.web.session import Needs, Session, flush_pairing
from agent.engines.web.starts import Record, Starts
from agent.engines.web.view import SessionView
from agent.engines.whatsapp import phone_of
from agent.errors import ConfigError, EngineError, InvalidRequest

log = logging.getLogger(__name__)

Status = ConnectionStatus
FIRST_CODE, NEXT_CODE = 60.0, 20.0
"""Seconds that WhatsApp lets a login's first code live, and each later one."""
SETTLED = 5.0
"""Seconds of a connection after which the page has done the most of its start."""


def open_engine(folder: Path, settings: Mapping[str, Any], reporter: Reporter) -> "WebEngine":
    """What the machine lacks for it, a start tells: it may be there for the next one."""
    chosen = read_settings(settings)
    cache = cache_folder()

    def needs() -> Needs:
        try:
            program = find_browser(chosen.browser, os.environ.get("WA_BROWSER", ""))
            find_setpriv()
            kept_from = read_mark(folder).since if reporter.keeps else None
            config, bundle = page_config(chosen.device_name), read_bundle(cache)
            script = page_script(chosen.url, config, bundle, kept_from=kept_from)
        except ConfigError as error:
            raise EngineError(str(error), code=error.code) from error
        return Needs(program, script)

    return WebEngine(folder, chosen, needs, reporter)


class WebEngine:
    """One session. At most one task of its own: a start, or a way back from trouble."""

    def __init__(
        self,
        folder: Path,
        settings: WebSettings,
        needs: Callable[[], Needs],
        reporter: Reporter,
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._reporter = reporter
        self._tasks = Tasks(reporter.crashed)
        self._session = Session(folder, settings, needs, self._take_word, self._browser_gone)
        self._record = Record(folder)
        self._view = SessionView(pairing_safe=self._record.paired)
        self._intake = Intake(folder, reporter, self._session, self._view, self._tasks)
        parts = (self._session, self._view, self._record, self._publish, self._tasks)
        self._starts = Starts(folder, settings, *parts)
        self._reported: Claim | None = None
        self._saving = False

    async def connect(self) -> None:
        if self._starts.stopping:
            raise EngineError("cannot connect: the session is stopping", code="stopping")
        if self._starts.working:
            return
        idle_code = self._view.claim.reason == "qr_idle" and not self._view.silent
        if idle_code and self._session.alive:
            await page_calls.refresh_code(self._session.page)
        else:
            self._starts.connect()

    async def disconnect(self) -> None:
        await self._starts.end()
        await self._session.close()
        self._view.failed("", "")
        self._publish()

    async def probe(self, *, deep: bool = False) -> ProbeAnswer:
        view, limit = self._view, probe_limit()
        if self._starts.working or not self._session.alive:
            told = self._reported if self._starts.takes_up() else None
            return ProbeAnswer(told or view.claim_at(boot_now()))
        try:
            await self._look(limit)
            detail: dict[str, Any] = {}
            if deep:
                detail["missing"] = await page_calls.missing_parts(self._session.page, limit)
                self._starts.complete(detail["missing"])
        except EngineError:
            view.silent = True
            raise
        view.silent = False
        return ProbeAnswer(view.claim_at(boot_now()), detail)

    async def qr(self) -> Qr | None:
        if self._view.claim.status is not Status.QR_REQUIRED:
            return None
        if self._view.claim.reason == "qr_idle":
            await page_calls.refresh_code(self._session.page)
        elif self._view.lacks_code and not self._starts.working:
            self._starts.connect()
            return None
        await self._look(ANSWER)
        facts = self._view.facts
        waits = self._view.claim.status is Status.QR_REQUIRED
        if not waits or facts is None or not facts.qr:
            return None
        lives = FIRST_CODE if facts.qr_number == 1 else NEXT_CODE
        return Qr(facts.qr, max(1.0, lives - (facts.qr_age or 0.0)), facts.qr_number)

    async def send(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        asked = read_message(message)
        return await send(self._connected("send"), asked)

    async def mark_read(self, asked: Mapping[str, Any]) -> None:
        await page_calls.mark_read(self._connected("mark messages as read"), asked)

    async def presence(self, asked: Mapping[str, Any]) -> None:
        await page_calls.presence(self._connected("show a presence"), asked)

    def load_media(self, record: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        return page_calls.load_media(self._connected("load the file"), record)

    async def logout(self) -> None:
        await page_calls.log_out(self._session.page)
        self._view.ended("LOGOUT")
        self._publish()

    async def regenerate_keys(self, peers: list[str]) -> None:
        raise EngineError(
            "cannot regenerate keys: WhatsApp Web renews them itself", code="not_supported"
        )

    async def free_memory(self) -> None:
        gc.collect()
        if self._session.alive:
            await self._session.page.call("HeapProfiler.collectGarbage", within=ANSWER)

    async def _tidy(self) -> None:
        """What a start leaves behind is a tenth of the page's memory."""
        await asyncio.sleep(SETTLED)
        if not self._starts.working and not self._starts.stopping:
            with suppress(EngineError):
                await self.free_memory()

    async def prepare_stop(self) -> None:
        self._starts.stopping = True
        await self._starts.end()

    async def save(self) -> None:
        """While it runs on, what the browser wrote; at a stop, the whole profile."""
        if self._starts.stopping:
            self._reporter.progress()
            await self._intake.finish()
            if not await self._session.close():
                log.warning("the browser did not end cleanly; its page was closed before")
        await self._record.write()
        self._reporter.progress()
        await asyncio.to_thread(make_durable, self._folder, self._reporter.progress)

    async def close(self) -> None:
        await self.prepare_stop()
        await self._session.kill()
        await self._tasks.cancel()

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if name == "pairing_code":
            digits = phone_of(arguments)
            if self._view.claim.status is not Status.QR_REQUIRED:
                raise EngineError(
                    "cannot get a pairing code: it waits for no scan", code="not_waiting"
                )
            return await page_calls.pairing_code(self._session.page, digits)
        if name == "screenshot":
            return await page_calls.picture(self._session.page)
        if name == "file_part":
            return await take_part(self._connected("take a file"), arguments)
        raise InvalidRequest(
            f"cannot {name!r:.40}: the web engine knows pairing_code, screenshot and file_part",
            field="name",
        )

    def _take_word(self, word: str, raw: Mapping[str, Any]) -> None:
        if word == "message":
            short = {key: str(raw.get(key, ""))[:64] for key in ("direction", "type", "id")}
            self._reporter.happened(Happening("message", short))
        elif word == "read_later":
            self._reporter.happened(Happening(word, {"id": str(raw.get("id", ""))[:64]}))
        elif word == "ack":
            for detail in read_acks(raw):
                self._reporter.happened(Happening("ack", detail))
        elif word == "records":
            self._intake.heard()
        elif word == "page_crashed":
            log.warning("the page crashed")
            self._starts.come_back(word)
        elif word == "navigated":
            unreachable = raw.get("unreachable") is True
            self._starts.navigated(str(raw.get("url", ""))[:2000], unreachable=unreachable)
            self._publish()
        else:
            self._view.word(word, raw, boot_now())
            self._publish()

    def _browser_gone(self, status: int, words: str) -> None:
        log.warning("the browser ended (status %d) %s", status, words)
        self._starts.come_back("browser_gone")

    async def _save_pairing(self) -> None:
        """Bring a new pairing to the disk; the view publishes it afterwards."""
        try:
            if await flush_pairing(self._session.page, self._folder):
                if self._view.pairing_to_save:
                    self._view.pairing_is_safe()
                    self._publish()
            elif self._view.pairing_to_save and self._starts.may_begin:
                log.info("closing the browser once, so that it writes the new pairing to the disk")
                self._starts.begin(self._starts.start)
        except EngineError as error:
            # The browser went away. The next one shows what came of it.
            log.warning("cannot bring a new pairing to the disk: %s", error)
        finally:
            self._saving = False

    def _connected(self, doing: str) -> Page:
        if self._view.claim.status is not Status.CONNECTED or self._starts.stopping:
            raise EngineError(f"cannot {doing}: not connected", code="not_connected")
        return self._session.page

    async def _look(self, within: float) -> None:
        self._view.look(await self._session.page.ask("read", within=within), boot_now())
        self._publish()

    def _publish(self) -> None:
        """Tell what is new, and write down what must outlive this worker."""
        if self._view.pairing_to_save and not self._saving and not self._starts.stopping:
            self._saving = True
            self._tasks.start(self._save_pairing(), "save the pairing")
        if self._starts.takes_up():
            return
        claim, facts = self._view.claim, self._view.facts
        if self._reported is None or replace(claim, raw="") != replace(self._reported, raw=""):
            self._reported = claim
            if claim.status is Status.CONNECTED:
                self._tasks.start(self._tidy(), "collect garbage")
            self._reporter.claim(self._view.claim_at(boot_now()))
        if claim.status is Status.CONNECTED:
            self._intake.connected(claim.account)
            self._record.connected(claim.account)
            version = facts.version if facts is not None else ""
            if self._settings.page == LIVE and self._record.wants_page(version):
                page, address = self._session.page, self._view.address
                self._tasks.start(self._record.keep_page(page, address, version), "keep the page")
        elif claim.reason == "logout":
            self._record.unpaired()
        if self._record.changed:
            self._tasks.start(self._record.write(), "write the note")
