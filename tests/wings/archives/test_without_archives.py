"""Without archives, what other wings bring in with them is refused before anything is done."""

from collections.abc import Callable
from pathlib import Path

from agent.wing import wings
from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent, make_agent
from tests.wings.taken_away import program_without

__all__ = ["make_agent"]


async def test_a_desk_is_refused(
    make_agent: Callable[..., RunningAgent], tmp_path: Path, eventually: Eventually
) -> None:
    taken = [wing for wing in wings() if wing.name == "archives"]
    without = program_without(taken, tmp_path / "program")
    agent = make_agent()
    await agent.start(without)
    await agent.create("shop")
    await eventually(lambda: agent.status("shop"), "CONNECTED")
    status, answer = await agent.ask("POST", "/api/instance/shop/invite")
    assert (status, answer["error"]) == (409, "no_archives")
