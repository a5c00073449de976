"""The dashboard of an agent whose evidence of failing sessions was taken away."""

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

LINES = "document.querySelector('[data-do=worker-lines]')"


@pytest.mark.parametrize("there", [True, False])
async def test_a_session_offers_its_lines_only_where_the_agent_has_them(
    listening: Callable[..., RunningAgent],
    watcher: Watcher,
    eventually: Eventually,
    tmp_path: Path,
    *,
    there: bool,
) -> None:
    agent = listening("\n[api]\ntrust_loopback = true\n")
    taken = [wing for wing in wings() if wing.name == "evidence" and not there]
    await agent.start(program_without(taken, tmp_path / "program"))
    await agent.create("sales")
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    await watcher.go(f"http://{agent.listen}/#/instance/sales")
    await watcher.until(pill("sales", "good"))
    shown = f"{LINES} !== null && {LINES}.offsetParent !== null"
    await watcher.until(f"{LINES} !== null && ({shown}) === {str(there).lower()}")
    assert await watcher.run(f"{LINES}.closest('section').hidden") is not there
