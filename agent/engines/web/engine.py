"""The web engine: what the worker asks, what the page says, and the claims between them."""

import asyncio
import base64
import gc
import logging
import os
import time
from collections import deque
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.core.model import Claim, ConnectionStatus, Happening
from agent.engines.base import ProbeAnswer, Qr, Reporter
from agent.engines.web.arguments import find_browser
from agent.engines.web.bundle import page_config, read_bundle
from agent.engines.web.kept import Note, keep_diagnostics, keep_page, read_note, write_note
from agent.engines.web.messages import ACKS, error_code, outcome, read_message
from agent.engines.web.page import page_script
from agent.engines.web.profile import make_durable
from agent.engines.web.session import Listener, Session
from agent.engines.web.settings import (
    LIVE,
    WebSettings,
    cache_folder,
    probe_limit,
    read_settings,
)
from agent.engines.web.states import (
    PageFacts,
    Story,
    claim_of,
    left_for,
    next_story,
    parse_facts,
    parse_wall,
)
from agent.errors import EngineError, InvalidRequest

log = logging.getLogger(__name__)

Status = ConnectionStatus

FIRST_CODE, NEXT_CODE = 60.0, 20.0
"""Seconds that WhatsApp lets a login's first code live, and each later one."""
PAIRING_CODE = 195.0
STARTS_WINDOW = 600.0
PROOF = 90.0
_ANSWER = 8.0

_FAILED_START = {
    "page_unreachable": "connection_lost",
    "page_missing": "misconfigured",
    "storage_failed": "storage_failed",
    "profile_in_use": "storage_failed",
    "setpriv_missing": "misconfigured",
}


def open_engine(folder: Path, settings: Mapping[str, Any], reporter: Reporter) -> "WebEngine":
    """ConfigError when the browser or the bundle is missing: a restart would not bring them."""
    known = read_settings(settings)
    program = find_browser(known.browser, os.environ.get("WA_BROWSER", ""))
    bundle = read_bundle(cache_folder())
    script = page_script(known.url, page_config(known.device_name), bundle)
    engine = WebEngine(folder, known, reporter)
    engine.session = Session(
        folder, known, program, script, Listener(engine.take_word, engine.browser_gone)
    )
    return engine


class WebEngine:
    """One session. At most one task of its own: a start, or a way back from trouble."""

    session: Session

    def __init__(self, folder: Path, settings: WebSettings, reporter: Reporter) -> None:
        self._folder = folder
        self._settings = settings
        self._reporter = reporter
        self._claim = Claim(Status.INITIALIZING, phase="process")
        self._facts: PageFacts | None = None
        self._story = Story()
        self._note = read_note(folder)
        self._address = ""
        self._work: asyncio.Task[None] | None = None
        self._aside: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._silent = False
        self._starts: deque[float] = deque()
        self._begun = 0.0
        self._frames = 0
        self._proof_at: float | None = None
        self._page_kept = False
        self._diagnosed = False

    # what the worker calls

    async def connect(self) -> None:
        if self._stopping:
            raise EngineError("cannot connect: the session is stopping", code="stopping")
        if self._work is not None and not self._work.done():
            return
        self._starts.clear()
        if not self.session.alive:
            self._begin(self._start())
        elif self._claim.reason == "qr_idle" and not self._silent:
            await self._refresh_code()
        elif self._needs_revival():
            self._begin(self._revive())

    async def disconnect(self) -> None:
        await self._end_work()
        await self.session.close()
        self._tell(Claim(Status.DISCONNECTED))

    async def probe(self, *, deep: bool = False) -> ProbeAnswer:
        if not self.session.alive or (self._work is not None and not self._work.done()):
            return ProbeAnswer(self._now(), {"browser": self.session.alive})
        limit = probe_limit()
        try:
            self._look(await self.session.page.ask("read", within=limit))
            detail = await self._deep_detail(limit) if deep else {}
        except EngineError:
            self._silent = True
            raise
        self._silent = False
        if self._facts is not None:
            detail |= {"stream": self._claim.raw, "frames": self._facts.frames}
        return ProbeAnswer(self._now(), detail)

    async def qr(self) -> Qr | None:
        if self._claim.status is not Status.QR_REQUIRED:
            return None
        if self._claim.reason == "qr_idle":
            await self._refresh_code()
        self._look(await self.session.page.ask("read", within=_ANSWER))
        facts = self._facts
        if facts is None or facts.qr is None or self._claim.status is not Status.QR_REQUIRED:
            return None
        lives = FIRST_CODE if facts.qr_number == 1 else NEXT_CODE
        return Qr(facts.qr, max(1.0, lives - (facts.qr_age or 0.0)), facts.qr_number)

    async def send(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        asked = read_message(message)
        if self._claim.status is not Status.CONNECTED or self._stopping:
            raise EngineError("cannot send: not connected", code="not_connected")
        page = self.session.page
        named = await page.ask("message_id", asked.to, _ANSWER, within=_ANSWER + 1)
        if not isinstance(named, Mapping) or not isinstance(key := named.get("ok"), Mapping):
            raise _refused("send", named)
        id, whole = str(key.get("id", "")), str(key.get("whole", ""))
        options = {**asked.options, "messageId": whole}
        limit = _ANSWER if asked.kind == "text" else 4 * _ANSWER
        try:
            told = await page.ask(
                "send_message",
                asked.to,
                asked.kind,
                asked.content,
                options,
                limit,
                within=limit + 1,
            )
        except EngineError as error:
            # Handed over, and nobody knows how far it came.
            return {"id": id, "outcome": "unknown", "cause": str(error)[:200]}
        return outcome(id, told)

    async def logout(self) -> None:
        told = await self.session.page.ask("logout", _ANSWER, within=_ANSWER + 1)
        if not isinstance(told, Mapping) or told.get("ok") is not True:
            raise _refused("log out", told)
        self._story = replace(self._story, ended="LOGOUT", was_connected=False)
        self._note_pairing(Note(page=self._note.page))
        self._tell_facts()

    async def regenerate_keys(self, peers: list[str]) -> None:
        raise EngineError(
            "cannot regenerate keys: WhatsApp Web keeps and renews them itself",
            code="not_supported",
        )

    async def free_memory(self) -> None:
        gc.collect()
        await self.session.page.collect_garbage(within=_ANSWER)

    async def prepare_stop(self) -> None:
        self._stopping = True
        await self._end_work()

    async def save(self) -> None:
        """While it runs on, what the browser wrote; at a stop, the whole profile."""
        if self._stopping:
            self._reporter.progress()
            if not await self.session.close():
                log.warning("the browser did not end in order; its profile is as it was written")
        self._reporter.progress()
        await asyncio.to_thread(make_durable, self._folder, self._reporter.progress)

    async def close(self) -> None:
        self._stopping = True
        await self._end_work()
        await self.session.kill()
        for task in list(self._aside):
            task.cancel()

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if name == "pairing_code":
            return await self._pairing_code(arguments)
        if name == "screenshot":
            kind = "png" if arguments.get("format") == "png" else "jpeg"
            picture = await self.session.page.picture(kind=kind)
            return {"type": f"image/{kind}", "content": base64.b64encode(picture).decode()}
        if name == "reload":
            self._begin(self._revive())
            return {}
        raise InvalidRequest(
            f"cannot {name!r:.40}: the web engine knows pairing_code, screenshot and reload",
            field="name",
        )

    # what the browser and the page say by themselves

    def take_word(self, word: str, told: Mapping[str, Any]) -> None:
        if word == "message":
            self._happened("message", direction=_short(told, "direction"), **_named(told))
        elif word == "ack":
            self._acked(told)
        elif word == "page_crashed":
            log.warning("the page crashed")
            self._begin_if_idle(self._revive, "page_crashed")
        elif word == "navigated":
            self._navigated(_short(told, "url", 2000), told.get("unreachable") is True)
        else:
            facts = parse_facts(told.get("s"))
            self._story = next_story(
                self._story,
                word,
                _short(told, "d"),
                parse_wall(told.get("until")),
                facts,
            )
            self._look(told.get("s"))

    def browser_gone(self, status: int, words: str) -> None:
        log.warning("the browser ended (status %d) %s", status, words)
        self._begin_if_idle(self._start, "browser_gone")

    def _navigated(self, address: str, unreachable: bool) -> None:
        self._story = left_for(self._story, address)
        self._facts, self._frames, self._page_kept = None, 0, False
        self._address = address
        if unreachable and (self._work is None or self._work.done()):
            self._tell(Claim(Status.DISCONNECTED, "connection_lost", raw="page unreachable"))
        elif not unreachable:
            self._tell_facts()

    def _begin_if_idle(self, work: Any, word: str) -> None:
        """Come back by ourselves, as often as the settings allow; then it is the agent's turn."""
        if self._stopping or (self._work is not None and not self._work.done()):
            return
        self._story = replace(self._story, passing=word)
        now = _now()
        while self._starts and self._starts[0] < now - STARTS_WINDOW:
            self._starts.popleft()
        if len(self._starts) >= self._settings.browser_starts:
            self._tell(Claim(Status.DISCONNECTED, "page_crashed", raw=word))
            return
        self._starts.append(now)
        self._begin(work())

    # ways to a page that works

    async def _start(self) -> None:
        self._begun = _now()
        self._story = replace(self._story, ended="", announced="", until_wall=None)
        self._facts = None
        self._tell(replace(claim_of(None, self._story), phase="attached"))
        try:
            await self.session.open()
            self._tell_facts()
            await self.session.load()
        except (EngineError, TimeoutError) as error:
            log.warning("%s", error)
            await self._leave_diagnostics(str(error))
            await self.session.kill()
            code = error.code if isinstance(error, EngineError) else ""
            reason = _FAILED_START.get(code, "page_crashed")
            self._tell(Claim(Status.DISCONNECTED, reason, raw=str(error)[:200]))

    async def _revive(self) -> None:
        """Reload; where that does not help, another browser."""
        self._begun = _now()
        self._story = replace(self._story, ended="", announced="", until_wall=None)
        if self._claim.status is Status.CONNECTED:
            why = "zombie" if self._silent else claim_of(None, self._story).reason
            self._tell(replace(self._claim, status=Status.RECONNECTING, reason=why, phase="loaded"))
        if not await self.session.reload():
            await self.session.kill()
            await self._start()
        self._silent = False

    def _needs_revival(self) -> bool:
        if self._silent:
            return True
        if self._claim.status is Status.QR_REQUIRED:
            return False
        if self._claim.status is Status.CONNECTED:
            return self._proof_at is not None and _now() - self._proof_at > PROOF
        on_its_way = self._claim.status in (Status.INITIALIZING, Status.LOADING)
        return not on_its_way or _now() - self._begun > 60

    async def _refresh_code(self) -> None:
        told = await self.session.page.ask("refresh", _ANSWER, within=_ANSWER + 1)
        if not isinstance(told, Mapping) or "ok" not in told:
            raise _refused("get a new code", told)

    async def _pairing_code(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        phone = arguments.get("phone")
        digits = "".join(each for each in str(phone) if each in "0123456789")
        if not isinstance(phone, str) or not 7 <= len(digits) <= 15:
            raise InvalidRequest("cannot get a pairing code: phone is no number", field="phone")
        if self._claim.status is not Status.QR_REQUIRED:
            raise EngineError(
                "cannot get a pairing code: the session does not wait for a scan",
                code="not_waiting",
            )
        notify = arguments.get("notify") is not False
        told = await self.session.page.ask(
            "pairing_code", digits, notify, _ANSWER, within=_ANSWER + 1
        )
        if not isinstance(told, Mapping) or not isinstance(told.get("ok"), str):
            raise _refused("get a pairing code", told)
        return {"code": told["ok"], "expires_in": PAIRING_CODE}

    # what is known, and telling it

    def _look(self, told: Any) -> None:
        """Take one snapshot of the page in."""
        facts = parse_facts(told)
        if facts is None:
            return
        self._facts = facts
        if facts.frames != self._frames:
            self._frames = facts.frames
            self._proof_at = _now() - (facts.frame_age or 0.0)
        elif not facts.sockets and claim_of(facts, self._story).status is Status.CONNECTED:
            # Its socket is out of our sight (in a worker of its own): the page's word must do.
            self._proof_at = _now()
        self._tell_facts()

    def _tell_facts(self) -> None:
        if self._work is not None and not self._work.done() and self._facts is None:
            claim = claim_of(None, self._story)
        elif self._facts is None and not self.session.alive:
            return
        else:
            claim = claim_of(self._facts, self._story)
        self._tell(claim)
        if claim.status is Status.CONNECTED:
            self._connected(claim)
        elif claim.reason == "logout":
            self._note_pairing(Note(page=self._note.page))
        elif claim.reason == "injection_failed" and not self._diagnosed:
            self._diagnosed = True
            self._beside(self._leave_diagnostics("injection_failed"))

    def _connected(self, claim: Claim) -> None:
        self._story = replace(self._story, passing="", was_connected=True)
        self._diagnosed = False
        self._note_pairing(replace(self._note, paired=True, account=claim.account))
        if not self._page_kept and self._settings.page == LIVE:
            self._page_kept = True
            self._beside(self._keep_page())

    def _note_pairing(self, note: Note) -> None:
        if note == self._note:
            return
        self._note = note
        try:
            write_note(self._folder, note)
        except OSError as error:
            log.error("cannot write the session's note: %s", error)

    async def _keep_page(self) -> None:
        """The page that just connected is the last known good one."""
        version = self._facts.version if self._facts is not None else ""
        try:
            document = await self.session.page.source(self._address, within=_ANSWER)
            await asyncio.to_thread(keep_page, self._folder, version, document)
        except (EngineError, OSError, ValueError) as error:
            log.info("cannot keep this page for later: %s", error)
            return
        self._note_pairing(replace(self._note, page=version))

    async def _leave_diagnostics(self, why: str) -> None:
        facts = self._facts
        seen: dict[str, Any] = {
            "why": why[:1000],
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "claim": f"{self._claim.status} {self._claim.reason} {self._claim.phase}",
        }
        if facts is not None:
            seen |= {"failure": facts.failure, "stream": self._claim.raw, "version": facts.version}
        picture = None
        try:
            seen["page"] = await self.session.page.ask("deep", within=5)
            picture = await self.session.page.picture(within=5)
        except EngineError as error:
            seen["page_error"] = str(error)
        try:
            path = await asyncio.to_thread(keep_diagnostics, self._folder, seen, picture)
        except OSError as error:
            log.error("cannot keep diagnostics: %s", error)
        else:
            log.warning("what was seen of the failed start is in %s", path)

    async def _deep_detail(self, limit: float) -> dict[str, Any]:
        told = await self.session.page.ask("deep", within=limit)
        detail = dict(told) if isinstance(told, Mapping) else {}
        detail |= await self.session.page.heap(within=limit)
        if (facts := self._facts) is not None:
            detail |= {
                "mode": facts.mode,
                "info": facts.info,
                "socket": facts.socket,
                "frame_age": facts.frame_age,
                "code_shown": facts.qr is not None,
                "update_offered": facts.update,
            }
        detail["browser_pid"] = self.session.browser_pid
        return detail

    def _acked(self, told: Mapping[str, Any]) -> None:
        ack, ids = told.get("ack"), told.get("ids")
        if isinstance(ack, int) and isinstance(ids, list):
            for id in ids[:100]:
                self._happened("ack", id=str(id)[:64], ack=ACKS.get(ack, "unknown"))

    def _happened(self, kind: str, **detail: Any) -> None:
        self._reporter.happened(Happening(kind, detail))

    def _tell(self, claim: Claim) -> None:
        before, self._claim = self._claim, claim
        if replace(before, raw="") != replace(claim, raw=""):
            self._reporter.claim(self._now())

    def _now(self) -> Claim:
        age = None if self._proof_at is None else max(0.0, _now() - self._proof_at)
        return replace(self._claim, proof_age=age)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._work = asyncio.create_task(work, name="web session")
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


def _refused(what: str, told: Any) -> EngineError:
    if not isinstance(told, Mapping):
        return EngineError(f"cannot {what}: the page is not ready", code="not_ready")
    return EngineError(
        f"cannot {what}: {str(told.get('message', 'refused'))[:200]}", code=error_code(told)
    )


def _short(told: Mapping[str, Any], key: str, limit: int = 64) -> str:
    value = told.get(key)
    return value[:limit] if isinstance(value, str) else ""


def _named(told: Mapping[str, Any]) -> dict[str, str]:
    return {"type": _short(told, "type", 32), "id": _short(told, "id")}


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
