"""The stand-in page: the unmodified bundle goes through its whole sequence on it."""

import asyncio
import json
import os
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.engines.web.browser.arguments import find_browser
from agent.engines.web.browser.page import Page
from agent.engines.web.browser.process import Browser
from agent.engines.web.browser.scripts import page_script
from agent.engines.web.bundle import page_config, read_bundle
from agent.engines.web.fetch import fetch_bundle
from agent.errors import ConfigError, EngineError
from tests.lacking import lacks
from tests.standin.web.stand_in import StandIn

ACCOUNT = "5511999999999"


class Shown:
    """A browser that shows the stand-in, and the words that it said."""

    def __init__(self, stand_in: StandIn, cache: Path, profile: Path) -> None:
        self.stand_in, self.profile = stand_in, profile
        self.script = page_script(stand_in.url, page_config(""), read_bundle(cache))
        self.words: list[str] = []
        self.facts: dict[str, Any] = {}
        self.browser: Browser | None = None

    async def open(self, query: str = "") -> Page:
        self.browser = await Browser.start(find_browser("headless-shell"), self.profile)
        page = await Page.open(self.browser.debugger, self.script, self.browser.version, self._take)
        await page.navigate(self.stand_in.url + query, within=60)
        return page

    def _take(self, word: str, told: Any) -> None:
        self.words.append(word)
        self.facts = told.get("s") or self.facts


@pytest.fixture
async def shown(tmp_path: Path) -> AsyncIterator[Shown]:
    told = os.environ.get("WA_CACHE_PATH")
    cache = Path(told) if told else Path(__file__).parents[3] / ".cache"
    try:
        find_browser("headless-shell")
        fetch_bundle(cache)
    except (ConfigError, EngineError) as error:
        lacks(str(error))
    stand_in = await StandIn.open(qr_every=30, alive_every=0.5)
    found = Shown(stand_in, cache, tmp_path)
    yield found
    if found.browser is not None:
        await found.browser.close()
    await stand_in.close()


async def test_the_bundle_passes_through_every_event_of_a_login(
    shown: Shown, eventually: Any
) -> None:
    await shown.open()
    words = {"loader.injected", "conn.main_init", "loader.ready", "conn.require_auth"}
    # That main_ready comes does not mean that it is logged in.
    words |= {"loader.full_ready", "conn.main_ready"}
    await eventually(lambda: words - set(shown.words), set())
    await eventually(lambda: shown.facts["qr"])
    assert shown.facts["mode"] == "QR" and shown.facts["auth"] is False
    assert "conn.authenticated" not in shown.words

    shown.stand_in.scan(ACCOUNT)
    words = {"conn.authenticated", "conn.main_loaded", "conn.stream_mode_changed"}
    await eventually(lambda: words - set(shown.words), set())
    await eventually(lambda: shown.facts["mode"], "MAIN")
    assert shown.facts["me"] == ACCOUNT and shown.facts["qr"] is None

    shown.stand_in.log_out(ACCOUNT, "unknown_companion")
    await eventually(lambda: "conn.logout" in shown.words)
    assert "conn.logout_reason" in shown.words


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("WAWebBuildConstants", "conn.main_init"),
        ("WAWebUserPrefsLogin", "loader.ready"),
        ("WAWebStreamModel", "conn.main_ready"),
        ("WAWebSocketConstants", "conn.require_auth"),
        ("WAWebCmd", "conn.main_loaded"),
    ],
)
async def test_a_module_that_is_missing_takes_its_event_along(
    shown: Shown, eventually: Any, module: str, never: str
) -> None:
    await shown.open(f"?missing={module}")
    await eventually(lambda: shown.stand_in.clients)
    await eventually(lambda: "load" in shown.words)
    # What comes at all comes within the bundle's own second.
    await asyncio.sleep(2)
    assert never not in shown.words


async def test_scripts_put_into_the_page_by_other_means_do_not_run(
    shown: Shown, eventually: Any
) -> None:
    page = await shown.open()
    await eventually(lambda: "load" in shown.words)
    added = """(() => { const added = document.createElement('script');
      added.textContent = 'globalThis.added = 1'; document.head.append(added);
      return globalThis.added || 0 })()"""
    assert await page.evaluate(added, within=60) == 0
    assert await page.evaluate("typeof WPP", within=60) == "object"


async def test_a_person_can_play_the_phone(shown: Shown, eventually: Any) -> None:
    await shown.open("?name=sales")
    await eventually(lambda: shown.facts.get("qr"))
    url = shown.stand_in.url

    def ask(path: str, body: object = None, **fields: str) -> tuple[int, bytes]:
        text = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url + path, text, fields)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    assert (await asyncio.to_thread(ask, "phone"))[0] == 200
    status, text = await asyncio.to_thread(ask, "pages")
    (row,) = json.loads(text)
    assert status == 200 and (row["name"], row["code"]) == ("sales", True)
    evil = {"Origin": "https://evil.example"}
    assert (await asyncio.to_thread(ask, "phone", {"page": row["number"], "do": "scan"}, **evil))[
        0
    ] == 403
    assert (await asyncio.to_thread(ask, "pages", None, Host="evil.example"))[0] == 403
    assert (await asyncio.to_thread(ask, "phone", {"page": 99, "do": "scan"}))[0] == 409
    assert (await asyncio.to_thread(ask, "phone", {"page": row["number"], "do": "scan"}))[0] == 200
    await eventually(lambda: shown.facts["mode"] == "MAIN")
    assert (await asyncio.to_thread(ask, "nothing"))[0] == 404
