"""The interface and the runbook in a real browser."""

from collections.abc import Callable

from tests.daemon.conftest import RunningAgent
from tests.wings.page.browsing import check_manners, listening, make_agent, picture, watcher
from tests.wings.page.watcher import Watcher

__all__ = ["listening", "make_agent", "watcher"]


async def test_the_interface_is_shown_whole_and_can_be_searched(
    listening: Callable[..., RunningAgent], watcher: Watcher
) -> None:
    agent = listening()
    await agent.start()
    described = await agent.do("GET", "/openapi.json")
    routes = {
        f"{method.upper()}{path}"
        for path, methods in described["paths"].items()
        for method in methods
        if not path.startswith("/page/")
    }
    assert len(routes) > 60
    await watcher.size(390, 844, phone=True)
    await watcher.go(f"http://{agent.listen}/docs")
    await watcher.until(f"document.querySelectorAll('#routes h2').length === {len(routes)}")
    shown = await watcher.run("[...document.querySelectorAll('h2')].map((e) => e.textContent)")
    assert set(shown) == routes
    await picture(watcher, "docs-phone")
    assert await watcher.run("document.documentElement.scrollWidth") <= 390
    seen = "[...document.querySelectorAll('#routes section')].filter((e) => e.checkVisibility())"
    await watcher.click("#filter")
    await watcher.type("snapshots restore")
    await watcher.until(f"{seen}.length === 1")
    assert "/snapshots/" in await watcher.run(f"{seen}[0].innerText")
    await check_manners(watcher, agent)


async def test_the_runbook_is_read_without_a_key_where_an_alert_links_to(
    listening: Callable[..., RunningAgent], watcher: Watcher
) -> None:
    agent = listening()
    await agent.start()
    await watcher.size(390, 844, phone=True)
    await watcher.go(f"http://{agent.listen}/runbook#wasessiondown")
    top = "document.querySelector('#wasessiondown').getBoundingClientRect().top"
    await watcher.until(f"{top} >= 0 && {top} < 120")
    assert await watcher.run("document.documentElement.scrollWidth") <= 390
    await picture(watcher, "runbook-phone")
    await check_manners(watcher, agent)
