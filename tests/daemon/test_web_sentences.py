"""What a person reads where something else came than WhatsApp Web: a real browser, a real agent."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.daemon.conftest import RunningAgent
from tests.daemon.test_web import agent, cache
from tests.standin.web import fronts
from tests.standin.web.stand_in import StandIn

__all__ = ["agent", "cache"]

pytestmark = pytest.mark.slow
SECRET = "token-of-the-address"
UNKNOWN = "no-such-name.invalid"
TOLD_WITH = ("degraded: ", "disconnected: waiting: ")
"""Entries of a journal that say why a session is not connected."""


async def test_the_sentence_of_a_page_that_did_not_come_has_status_and_address(
    agent: RunningAgent, eventually: Callable[..., Any]
) -> None:
    failing, leads, portal = [await StandIn.open() for _ in range(3)]
    try:
        failing.front = fronts.HTTP_ERROR
        portal.front = fronts.PORTAL
        leads.front = fronts.elsewhere(f"{portal.url}?{SECRET}")
        await _create(agent, "failing", failing.url)
        await _create(agent, "led-on", leads.url)
        await _create(agent, "unknown", f"https://{UNKNOWN}/")
        said = {
            "failing": ("HTTP 500", failing.url.removeprefix("http://")),
            "led-on": ("HTTP 200", portal.url.removeprefix("http://"), "Guest network"),
            "unknown": (UNKNOWN,),
        }
        for id, parts in said.items():
            await eventually(lambda id=id: _is_judged(agent, id), within=60)
            story = await agent.story(id)
            causes = [sentence for _, sentence in story if sentence.startswith(TOLD_WITH)]
            without = [it for it in causes if not all(part in it for part in parts)]
            assert without == []
            assert SECRET not in str(story), "an address is told without its query"
        assert SECRET not in agent.log.read_text()
    finally:
        for each in (failing, leads, portal):
            await each.close()


async def _is_judged(agent: RunningAgent, id: str) -> bool:
    """After a try of its browser: until then an address that no look reaches is all it says."""
    return any(sentence.startswith("degraded: ") for _, sentence in await agent.story(id))


async def _create(agent: RunningAgent, id: str, url: str) -> None:
    settings = {"url": f"{url}?name={id}&key={SECRET}"}
    await agent.do("POST", "/api/instance", {"id": id, "engine": "web", "settings": settings})
