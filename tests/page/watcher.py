"""A person at the dashboard: a real browser with one page, and what it did on the network."""

import asyncio
import base64
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from agent.engines.web.browser import process
from agent.engines.web.browser.connection import DebuggerConnection
from agent.engines.web.browser.process import Browser, command_line, find_browser
from agent.errors import ConfigError
from tests.lacking import lacks

_WATCH = """
window.__violations = [];
document.addEventListener("securitypolicyviolation",
    (event) => window.__violations.push(event.violatedDirective + " " + event.blockedURI));
"""

# Where the middle of an element is, when it was at the same place for two frames and nothing
# lies over it. From then on the page notes whether the next click met it.
_STANDS_STILL = """(async () => {
    const e = %s;
    if (!e) return null;
    e.scrollIntoView({block: 'center'});
    const frame = () => new Promise(requestAnimationFrame);
    const middle = () => {
        const r = e.getBoundingClientRect();
        return [r.x + r.width / 2, r.y + r.height / 2];
    };
    const before = middle();
    await frame();
    await frame();
    const at = middle();
    if (before[0] !== at[0] || before[1] !== at[1]) return null;
    const over = document.elementFromPoint(at[0], at[1]);
    if (!over || !(e.contains(over) || over.contains(e))) return null;
    window.__met = false;
    // One that meets an element around it was pressed here and let go elsewhere.
    document.addEventListener('click', (event) => {
        window.__met = e.contains(event.target) || over === event.target;
    }, {capture: true, once: true});
    return at;
})()"""


PATIENCE = 60.0
"""Seconds of a call or a wait: they guard against hanging."""


class Watcher:
    def __init__(self, browser: Browser, page: DebuggerConnection) -> None:
        self._browser = browser
        self._page = page
        self.asked: list[str] = []
        """Every address that the page asked for."""
        self.complaints: list[str] = []
        """Errors in its console, and uncaught exceptions."""
        self.loads = 0

    @classmethod
    async def open(cls, profile: Path) -> "Watcher":
        try:
            program = find_browser("headless-shell", os.environ.get("WA_BROWSER", ""))
        except ConfigError as error:
            lacks(str(error))
        line = command_line(program, profile, "")
        with patch.object(process, "START", PATIENCE):
            browser = await Browser.run(line, "")
        blank = {"url": "about:blank"}
        page = await browser.debugger.call("Target.createTarget", blank, within=PATIENCE)
        made = cls(browser, await browser.debugger.attach(page["targetId"], within=PATIENCE))
        await made._listen()
        return made

    async def _listen(self) -> None:
        page = self._page
        page.on("Network.requestWillBeSent", lambda e: self.asked.append(e["request"]["url"]))
        page.on("Network.webSocketCreated", lambda e: self.asked.append(e["url"]))
        page.on("Page.loadEventFired", lambda _: self._loaded())
        page.on("Runtime.exceptionThrown", lambda e: self.complaints.append(json.dumps(e)[:2000]))
        page.on("Log.entryAdded", self._logged)
        for domain in ("Page", "Network", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Page.addScriptToEvaluateOnNewDocument", {"source": _WATCH})

    def _loaded(self) -> None:
        self.loads += 1

    def _logged(self, event: Mapping[str, Any]) -> None:
        entry = event["entry"]
        # What the network refuses (no key yet, no agent) is part of the play.
        if entry["level"] == "error" and entry["source"] not in ("network", "other"):
            self.complaints.append(entry["text"])

    async def call(self, method: str, params: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        return await self._page.call(method, params, within=PATIENCE)

    async def size(self, width: int, height: int, *, phone: bool = False) -> None:
        shape = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        await self.call("Emulation.setDeviceMetricsOverride", shape)

    async def go(self, url: str) -> None:
        await self.call("Page.navigate", {"url": url})

    async def run(self, script: str) -> Any:
        """What the expression comes to, as JSON."""
        told = await self.call(
            "Runtime.evaluate",
            {"expression": script, "returnByValue": True, "awaitPromise": True},
        )
        assert "exceptionDetails" not in told, (script, told["exceptionDetails"])
        return told["result"].get("value")

    async def until(self, script: str) -> Any:
        """Wait until the expression comes to something true."""
        deadline = time.monotonic() + PATIENCE
        while True:
            # What is not there yet is waited for as well.
            found = await self.run(f"(() => {{ try {{ return !!({script}); }} catch {{ }} }})()")
            if found:
                return found
            if time.monotonic() > deadline:
                shown = await self.run("document.body.innerText")
                raise AssertionError(f"{script}\n{shown}\n{self.complaints}")
            await asyncio.sleep(0.03)

    async def click(self, selector: str) -> None:
        """With the mouse, in the middle of what is visible there, once it stands still."""
        deadline = time.monotonic() + PATIENCE
        while not await self._clicked(selector):
            assert time.monotonic() < deadline, f"{selector} moved away from under every click"

    async def _clicked(self, selector: str) -> bool:
        """One click, and whether it met the element: a page that grows moves it meanwhile."""
        found = f"document.querySelector({json.dumps(selector)})"
        await self.until(f"{found} && {found}.checkVisibility()")
        at = await self.run(_STANDS_STILL % found)
        if at is None:
            return False
        for kind in ("mousePressed", "mouseReleased"):
            event = {"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1}
            await self.call("Input.dispatchMouseEvent", event)
        return bool(await self.run("window.__met !== false"))

    async def type(self, text: str) -> None:
        await self.call("Input.insertText", {"text": text})

    async def choose(self, field: str, value: str) -> None:
        await self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(field)});"
            f" e.value = {json.dumps(value)}; e.dispatchEvent(new Event('change')); }})()"
        )

    async def press(self, key: str, code: int) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            event = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
            await self.call("Input.dispatchKeyEvent", event)
            if kind == "rawKeyDown" and key == "Enter":
                await self.call("Input.dispatchKeyEvent", {"type": "char", "text": "\r"})

    async def picture(self, path: Path) -> None:
        told = await self.call("Page.captureScreenshot", {"format": "png"})
        path.write_bytes(base64.b64decode(told["data"]))

    async def violations(self) -> list[str]:
        found: list[str] = await self.run("window.__violations")
        return found

    async def close(self) -> None:
        await self._browser.close(within=5)
