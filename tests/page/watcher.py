"""A person at the dashboard: a real browser with one page, and what it did on the network. Driven
by pyppeteer, so that no fault of the product's own client is on both sides."""

import asyncio
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyppeteer import launch
from pyppeteer.errors import NetworkError

from agent.engines.web.browser.process import find_browser
from agent.errors import ConfigError
from tests.lacking import lacks

_WATCH = """() => {
    window.__violations = [];
    document.addEventListener("securitypolicyviolation",
        (event) => window.__violations.push(event.violatedDirective + " " + event.blockedURI));
}"""

# Where the middle of an element is, when it was at the same place for two frames and nothing
# lies over it. From then on the page notes whether the next click met it.
_STANDS_STILL = """(async () => {
    const e = %s;
    if (!e) return null;
    e.scrollIntoView({block: 'center'});
    const frame = () => new Promise(requestAnimationFrame);
    const middle = (r = e.getBoundingClientRect()) => [r.x + r.width / 2, r.y + r.height / 2];
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
PATIENCE = 120.0
"""Seconds of a wait: they guard against hanging."""
# It sees this repository's page alone.
_ARGUMENTS = ["--no-sandbox", "--no-zygote", "--disable-gpu"]
_SIGNALS = ("handleSIGINT", "handleSIGTERM", "handleSIGHUP")
_ENDS_WITH_ITS_TEST = dict.fromkeys(("autoClose", *_SIGNALS), False)


class Watcher:
    def __init__(self, browser: Any, page: Any) -> None:
        self._browser, self._page = browser, page
        self.call = page._client.send
        self.asked: list[str] = []
        """Every address that the page asked for."""
        self.complaints: list[str] = []
        """Errors in its console, and uncaught exceptions."""
        self.loads = 0
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("load", lambda *_: self._loaded())
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page._client.on("Network.webSocketCreated", lambda e: self.asked.append(e["url"]))
        page._client.on("Log.entryAdded", self._logged)

    @classmethod
    async def open(cls, profile: Path) -> "Watcher":
        try:
            program = find_browser("headless-shell", os.environ.get("WA_BROWSER", ""))
        except ConfigError as error:
            lacks(str(error))
        where = {"executablePath": str(program.path), "userDataDir": str(profile)}
        browser = await launch(**where, args=_ARGUMENTS, **_ENDS_WITH_ITS_TEST)
        made = cls(browser, (await browser.pages())[0])
        await made._page.evaluateOnNewDocument(_WATCH)
        return made

    def _loaded(self) -> None:
        self.loads += 1

    def _logged(self, event: Mapping[str, Any]) -> None:
        entry = event["entry"]
        # Errors of the network (no key yet, no agent) are part of the play.
        if entry["level"] == "error" and entry["source"] not in ("network", "other"):
            self.complaints.append(entry["text"])

    async def size(self, width: int, height: int, *, phone: bool = False) -> None:
        shape = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        await self.call("Emulation.setDeviceMetricsOverride", shape)

    async def go(self, url: str) -> None:
        await self.call("Page.navigate", {"url": url})

    async def run(self, script: str) -> Any:
        """Return the value of the expression, as JSON."""
        asked = {"expression": script, "returnByValue": True, "awaitPromise": True}
        told = await self.call("Runtime.evaluate", asked)
        assert "exceptionDetails" not in told, (script, told["exceptionDetails"])
        return told["result"].get("value")

    async def _see(self, script: str) -> Any:
        """As `run`, in the page that is there in the end: the one before may go meanwhile."""
        while True:
            try:
                return await self.run(script)
            except NetworkError as error:
                if "navigated" not in str(error):
                    raise

    async def until(self, script: str) -> Any:
        """Wait until the expression comes to something true."""
        deadline = time.monotonic() + PATIENCE
        while True:
            # An expression that fails, since a part is not there yet, counts as false.
            found = await self._see(f"(() => {{ try {{ return !!({script}); }} catch {{ }} }})()")
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
        at = await self._see(_STANDS_STILL % found)
        if at is None:
            return False
        await self._page.mouse.click(*at)
        return bool(await self._see("window.__met !== false"))

    async def type(self, text: str) -> None:
        await self._page.keyboard.sendCharacter(text)

    async def choose(self, field: str, value: str) -> None:
        found = f"document.querySelector({json.dumps(field)})"
        await self.run(f"{found}.value = {json.dumps(value)}")
        await self.run(f"{found}.dispatchEvent(new Event('change'))")

    async def press(self, key: str) -> None:
        await self._page.keyboard.press(key)

    async def enter(self, key: str) -> None:
        """At the entrance."""
        await self.click("#entrance-key")
        await self.type(key)
        await self.press("Enter")

    async def picture(self, path: Path) -> None:
        await self._page.screenshot({"path": str(path)})

    async def violations(self) -> list[str]:
        found: list[str] = await self.run("window.__violations")
        return found

    async def close(self) -> None:
        await self._browser.close()
        self._browser.process.wait(PATIENCE)
