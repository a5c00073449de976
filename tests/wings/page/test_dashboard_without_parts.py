"""The dashboard of an agent without the evidence of failing sessions and without archives."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.wing import wings
from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent
from tests.wings.page.browsing import listening, make_agent, pill, watcher
from tests.wings.page.watcher import Watcher
from tests.wings.taken_away import program_without

__all__ = ["listening", "make_agent", "watcher"]

PANELS = "[...document.querySelectorAll('section.panel')].filter((e) => !e.hidden).map((e) => e.id)"
TAKEN = ("evidence", "archives")
LINES = "document.querySelector('[data-do=worker-lines]')"


@pytest.mark.parametrize("there", [True, False])
async def test_the_page_offers_only_what_the_agent_answers(
    listening: Callable[..., RunningAgent],
    watcher: Watcher,
    eventually: Eventually,
    tmp_path: Path,
    *,
    there: bool,
) -> None:
    agent = listening("\n[api]\ntrust_loopback = true\n")
    taken = [wing for wing in wings() if wing.name in TAKEN and not there]
    await agent.start(program_without(taken, tmp_path / "program"))
    await agent.create("sales")
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    await watcher.go(f"http://{agent.listen}/#/instance/sales")
    await watcher.until(pill("sales", "good"))
    shown = f"{LINES} !== null && {LINES}.offsetParent !== null"
    await watcher.until(f"{LINES} !== null && ({shown}) === {str(there).lower()}")
    assert await watcher.run(f"{LINES}.closest('section').hidden") is not there
    await watcher.go(f"http://{agent.listen}/#/agent")
    await watcher.until(f"{PANELS}.includes('keys')")
    await watcher.until(f"{PANELS}.includes('import') === {str(there).lower()}")
    assert ("export" in await watcher.run(PANELS)) is there
