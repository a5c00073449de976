"""The round on a whaticket-like server as people see it: each of its steps is told."""

from typing import Any

from tests.daemon.conftest import RunningAgent
from tests.daemon.test_whaticket import PEERS, agent, connected, desk, id_of, paired
from tests.standin.whaticket.server import StandIn
from tests.standin.whaticket.session import DAMAGED

__all__ = ["agent", "desk"]


async def test_the_steps_of_a_round_are_in_the_history_and_no_errors(
    agent: RunningAgent, desk: StandIn, eventually: Any
) -> None:
    sick = await paired(desk, "7")
    await agent.start()
    await eventually(lambda: connected(agent, 1))
    id = await id_of(agent, "7")
    sick.memory[f"session-{PEERS[2]}.0"] = DAMAGED
    for _ in range(5):
        assert not sick.receive(PEERS[2])

    async def told() -> list[str]:
        story = await agent.story(id)
        return [sentence.partition(":")[0] for kind, sentence in story if kind == "repair_step"]

    steps = ["disconnect", "back up and remove", "start-session", "wait"]
    await eventually(told, steps, within=40)
    shown = await agent.show(id)
    assert set(shown["errors"]) <= {"crypto"}, "making new keys is no error"
    assert (await agent.do("GET", "/api/repairs/statistics"))["interventions"]["asked"] == 0
