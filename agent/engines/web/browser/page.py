"""The one page of a browser: the bundle in it, calls with deadlines, what it tells."""

import asyncio
import base64
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.engines import base, tasks
from agent.engines.web.browser.connection import DebuggerConnection
from agent.engines.web.browser.process import user_agent, user_agent_metadata
from agent.errors import EngineError

log = logging.getLogger(__name__)


def page_script(
    url: str, config: str, bundle: str, *, person: bool = False, kept_from: float | None = None
) -> str:
    """Return the script that runs first in each document: only in WhatsApp's own page, never in
    frames. `person`: a person sits at the window, and their browser answers the page's call for a
    passkey. `kept_from`: time from which on messages are made records; None: never."""
    observer = Path(__file__).with_name("observer.js").read_text()
    records, listen = "", ""
    if kept_from is not None:
        records = Path(__file__).with_name("records.js").read_text()
        media = Path(__file__).with_name("media.js").read_text()
        records = f"const keptFrom = {json.dumps(kept_from)};\n{records}\n{media}"
        listen = "__waRecords.watch();\n"
    where = json.dumps(base.origin_of(url))
    return (
        f"(() => {{ if (window !== window.top || location.origin !== {where}) return;\n"
        f"window.WPPConfig = {config};\n"
        f"const hasPerson = {json.dumps(person)};\n{observer}\n{records}\n"
        f"try {{\n{bundle}\n}} catch (error) {{ __waAgent.failed(error) }}\n"
        f"__waAgent.watch();\n{listen}}})()"
    )


# A style sheet made here is not subject to the page's rules on inline styles.
HIDE_CODES = """new Promise((done) => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(
    'canvas, [data-ref], [data-ref] *, [data-link-code], [data-link-code] *,' +
    '[aria-details*="link-device"], [aria-details*="link-device"] *' +
    '{ visibility: hidden !important }');
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  globalThis.__waAgentSheet = sheet;
  requestAnimationFrame(() => requestAnimationFrame(() => done(true)));
})"""

SHOW_CODES = """document.adoptedStyleSheets =
  document.adoptedStyleSheets.filter((each) => each !== globalThis.__waAgentSheet);
  delete globalThis.__waAgentSheet; true"""

_KINDS = frozenset({"Document", "Script", "Stylesheet"})
"""Kinds of requests that a page is made of; repeated questions to its server are no progress."""
_NO_BODIES = {"maxTotalBufferSize": 1, "maxResourceBufferSize": 1}


class Loading:
    """Watches while it is switched on; `bytes` belong to the document that is shown."""

    def __init__(self, debugger: DebuggerConnection) -> None:
        self._debugger = debugger
        self._parts: set[str] = set()
        self._bypass = False
        self.bytes = 0
        self.status = 0
        """HTTP's status of the last document; 0: none came."""
        debugger.on("Network.requestWillBeSent", self._asked)
        debugger.on("Network.responseReceived", self._answered)
        debugger.on("Network.dataReceived", self._came)

    async def watch(self) -> None:
        await self._call("Network.enable", _NO_BODIES)

    async def bypass_service_worker(self) -> None:
        """Bypass the service worker for as long as this page lives."""
        self._bypass = True
        await self.watch()
        await self._call("Network.setBypassServiceWorker", {"bypass": True})

    async def forget_caches(self, origin: str) -> None:
        """Forget the browser's caches of the page. IndexedDB and local storage have the pairing:
        they are not named here."""
        await self._call("Network.setBypassServiceWorker", {"bypass": True})
        await self._call("Network.setCacheDisabled", {"cacheDisabled": True})
        await self._call("Network.clearBrowserCache", {})
        kinds = "service_workers,cache_storage,shader_cache"
        await self._call("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": kinds})

    async def rest(self) -> None:
        """End the events of the network: the page is there."""
        self._parts.clear()
        if not self._bypass:
            with suppress(EngineError):
                await self._call("Network.disable", {})

    async def _call(self, method: str, params: Mapping[str, Any]) -> None:
        await self._debugger.call(method, params, within=10.0)

    def _asked(self, event: Mapping[str, Any]) -> None:
        if event.get("type") in _KINDS:
            self._parts.add(str(event.get("requestId")))

    def _answered(self, event: Mapping[str, Any]) -> None:
        status = (event.get("response") or {}).get("status")
        if event.get("type") == "Document" and isinstance(status, int):
            self.status = status

    def _came(self, event: Mapping[str, Any]) -> None:
        size = event.get("dataLength")
        if event.get("requestId") in self._parts and isinstance(size, int):
            self.bytes += size


ATTACH = 20.0
LISTEN = 60.0
"""Seconds after which the open question for words is asked again."""

Tell = Callable[[str, Mapping[str, Any]], None]


class Page:
    """Calls raise EngineError; `tell` gets the page's words, and `page_crashed`, `navigated`."""

    def __init__(self, debugger: DebuggerConnection, tell: Tell) -> None:
        self._debugger = debugger
        self._tell = tell
        self.loading = Loading(debugger)
        self._ear: asyncio.Task[None] | None = None
        self._new_document = asyncio.Event()
        self._closed = False
        self.crashed = False
        self.frame = ""

    @classmethod
    async def open(
        cls, browser: DebuggerConnection, script: str, version: str, tell: Tell
    ) -> "Page":
        """Attach to the browser's first page; `script` runs in each document before its own."""
        async with asyncio.timeout(ATTACH):
            page = cls(await browser.attach(await _first_page(browser), within=ATTACH), tell)
            page._debugger.on("Inspector.targetCrashed", page._crashed)
            page._debugger.on("Page.frameNavigated", page._navigated)
            page._debugger.on("Page.javascriptDialogOpening", page._dialog)
            agent = {
                "userAgent": user_agent(version),
                "userAgentMetadata": user_agent_metadata(version),
            }
            for method, params in (
                ("Inspector.enable", {}),
                ("Page.enable", {}),
                ("Page.addScriptToEvaluateOnNewDocument", {"source": script}),
                ("Emulation.setUserAgentOverride", agent),
            ):
                await page.call(method, params, within=ATTACH)
        page._ear = asyncio.create_task(page._listen_to_words(), name="page words")
        return page

    def close(self) -> None:
        """Report nothing after this."""
        self._closed = True
        if self._ear is not None:
            self._ear.cancel()

    async def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, within: float
    ) -> Mapping[str, Any]:
        if self.crashed:
            raise EngineError(f"cannot {method}: the page crashed", code="page_crashed")
        return await self._debugger.call(method, params, within=within)

    async def navigate(self, url: str, *, within: float) -> None:
        """Go there; EngineError with the network's word: `page_unreachable`, or `page_unusable`
        where something else came or no answer began."""
        self.loading.status = 0
        try:
            raw = await self.call("Page.navigate", {"url": url}, within=within)
        except EngineError as error:
            if error.code == "browser_silent":
                why = f"cannot load {base.origin_of(url)}: no answer in {within:g} s"
                raise EngineError(why, code="page_unusable") from error
            raise
        if trouble := str(raw.get("errorText") or ""):
            status = f" (HTTP {self.loading.status})" if self.loading.status else ""
            why = f"cannot load {base.origin_of(url)}: {trouble[:100]}{status}"
            raise EngineError(why, code=network_code(trouble))

    async def evaluate(self, expression: str, *, within: float) -> Any:
        """Return the value of an expression (awaited if it is a promise), as plain JSON."""
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        raw = await self.call("Runtime.evaluate", asked, within=within)
        if trouble := raw.get("exceptionDetails"):
            raise EngineError(f"cannot evaluate in the page: {_said(trouble)}", code="page_error")
        return raw.get("result", {}).get("value")

    async def ask(self, function: str, *arguments: Any, within: float) -> Any:
        """Call one of observer.js's functions."""
        raw = ", ".join(map(json.dumps, arguments))
        # A page without our script is another case than a page whose script fails.
        expression = f"globalThis.__waAgent ? __waAgent.{function}({raw}) : null"
        return await self.evaluate(expression, within=within)

    async def picture(self, kind: str, *, within: float = 10.0) -> bytes:
        """A picture of the page. What could be scanned or typed from it is hidden; a page that
        cannot hide it raises."""
        hidden = await self.evaluate(HIDE_CODES, within=within)
        if hidden is not True:
            raise EngineError("cannot take a picture: the page did not hide its codes")
        try:
            params = {"format": kind, "captureBeyondViewport": False}
            if kind == "jpeg":
                params |= {"quality": 60}
            raw = await self.call("Page.captureScreenshot", params, within=within)
        finally:
            await self.evaluate(SHOW_CODES, within=within)
        return base64.b64decode(raw["data"])

    async def source(self, url: str, *, within: float) -> str:
        """Return the document as it was served."""
        try:
            what = {"frameId": self.frame, "url": url}
            raw = await self.call("Page.getResourceContent", what, within=within)
        except EngineError as error:
            if error.code != "browser":
                raise
            # Served with no-store: the browser did not keep it, so it is asked for once more.
            asked = f"fetch({json.dumps(url)}).then((reply) => reply.text())"
            return str(await self.evaluate(asked, within=within) or "")
        text = str(raw.get("content", ""))
        return base64.b64decode(text).decode() if raw.get("base64Encoded") else text

    async def serve(self, document: str, *, within: float) -> None:
        """Answer with `document` wherever the main page is asked for; all else is live."""
        body = base64.b64encode(document.encode()).decode()

        def paused(event: Mapping[str, Any]) -> None:
            is_main = event.get("frameId") == self.frame or not self.frame
            task = asyncio.ensure_future(self._answer(event, body if is_main else None))
            task.add_done_callback(_look)

        self._debugger.on("Fetch.requestPaused", paused)
        # A service worker would answer first, with the page it remembers.
        await self.loading.bypass_service_worker()
        patterns = [{"urlPattern": "*", "resourceType": "Document"}]
        await self.call("Fetch.enable", {"patterns": patterns}, within=within)

    async def _answer(self, event: Mapping[str, Any], body: str | None) -> None:
        method, params = "Fetch.continueRequest", {"requestId": event.get("requestId")}
        if body is not None:
            headers = [{"name": "content-type", "value": "text/html; charset=utf-8"}]
            method = "Fetch.fulfillRequest"
            params |= {"responseCode": 200, "responseHeaders": headers, "body": body}
        await self.call(method, params, within=10)

    async def _listen_to_words(self) -> None:
        """Keep one question open that the page answers with its next words. A binding would need
        the debugger's Runtime domain, which keeps each line that the page logs and shows the page
        that it is watched.
        """
        while True:
            self._new_document.clear()
            try:
                words = await self.ask("next", within=LISTEN)
            except EngineError as error:
                if error.code == "browser_gone":
                    return
                words = [] if error.code == "browser_silent" else None
            if isinstance(words, list):
                for word in words:
                    self._take(word)
                continue
            # Nothing of ours is in this document: the next one may have it.
            await tasks.until_set(self._new_document, 1.0)

    def _take(self, word: Any) -> None:
        """Take in a word of the page: it is checked, and never trusted further."""
        if not isinstance(word, dict) or not isinstance(word.get("e"), str) or self._closed:
            return
        try:
            self._tell(word["e"][:64], word)
        except Exception:
            log.exception("cannot use a message of the page")

    def _crashed(self, _event: Mapping[str, Any]) -> None:
        self.crashed = True
        if not self._closed:
            self._tell("page_crashed", {})

    def _navigated(self, event: Mapping[str, Any]) -> None:
        frame = event.get("frame") or {}
        if not frame.get("parentId"):
            self.frame = str(frame.get("id", ""))
            url = str(frame.get("unreachableUrl") or frame.get("url", ""))
            lost = bool(frame.get("unreachableUrl"))
            self._new_document.set()
            self.loading.bytes = 0
            if self._closed:
                return
            self._tell("navigated", {"url": url, "unreachable": lost})

    def _dialog(self, _event: Mapping[str, Any]) -> None:
        # An open dialog stops the page until it is answered.
        accept = self.call("Page.handleJavaScriptDialog", {"accept": True}, within=10)
        task = asyncio.ensure_future(accept)
        task.add_done_callback(_look)


def network_code(error: str) -> str:
    """Return the error code of navigate() for the browser's word for a failed load."""
    return "page_unusable" if error.startswith(_UNUSABLE) else "page_unreachable"


_UNUSABLE = (
    *("net::ERR_CERT_", "net::ERR_SSL_", "net::ERR_HTTP_RESPONSE_CODE_FAILURE"),
    *("net::ERR_TOO_MANY_REDIRECTS", "net::ERR_TIMED_OUT"),
)
"""Errors after which something answered, or took the connection."""


async def _first_page(browser: DebuggerConnection) -> str:
    for target in (await browser.call("Target.getTargets", within=ATTACH)).get("targetInfos", []):
        if target.get("type") == "page":
            return str(target["targetId"])
    made = await browser.call("Target.createTarget", {"url": "about:blank"}, within=ATTACH)
    return str(made["targetId"])


def _said(trouble: Mapping[str, Any]) -> str:
    exception = trouble.get("exception") or {}
    text = exception.get("description") or exception.get("value") or trouble.get("text", "")
    return str(text).splitlines()[0][:300] if text else "unknown"


def _look(task: "asyncio.Future[Any]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.debug("%s", error)
