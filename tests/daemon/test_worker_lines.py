"""The interface shows why a session of a real worker fails."""

from collections.abc import Callable
from typing import Any

from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent


async def test_a_workers_last_lines_and_its_figures_are_shown_when_its_page_is_read(
    make_agent: Callable[..., RunningAgent], eventually: Eventually
) -> None:
    agent = make_agent("\n[memory]\ninterval = 3600\n")
    await agent.start()
    await agent.create("sales")
    await eventually(lambda: agent.status("sales"), "CONNECTED")

    async def last_lines() -> dict[str, Any]:
        found: dict[str, Any] = await agent.do("GET", "/api/instance/sales/worker-lines")
        return found if any("CONNECTED" in line for line in found["lines"]) else {}

    assert (await eventually(last_lines))["command"].startswith("tail -n 60 ")
    shown = await agent.do("GET", "/api/instance/sales/details")
    assert shown["memory_bytes"] > 1 << 20
    assert shown["cpu_seconds"] is not None
