"""The dashboard of an agent whose alerting was taken away."""

from collections.abc import Callable
from pathlib import Path

from agent.wing import wings
from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent
from tests.wings.page.browsing import listening, make_agent, pill, watcher
from tests.wings.page.watcher import Watcher
from tests.wings.taken_away import program_without

__all__ = ["listening", "make_agent", "watcher"]

FACTS = "[...document.querySelectorAll('dl.facts dt')].map((e) => e.textContent)"


async def test_the_page_shows_all_else_and_names_no_alerts(
    listening: Callable[..., RunningAgent],
    watcher: Watcher,
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    agent = listening("\n[api]\ntrust_loopback = true\n")
    taken = [wing for wing in wings() if wing.name == "alerting"]
    await agent.start(program_without(taken, tmp_path / "program"))
    await agent.create("sales")
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    await watcher.go(f"http://{agent.listen}/")
    await watcher.until(pill("sales", "good"))
    await watcher.until(f"{FACTS}.includes('Agent')")
    assert not await watcher.run(f"{FACTS}.includes('Alerts')")
