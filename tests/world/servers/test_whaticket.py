"""Sessions on a whaticket server, from outside: the whole agent and a stand-in of the server."""

import asyncio

from tests.standin.whaticket.server import PASSWORD, USER, StandIn
from tests.standin.whaticket.session import DAMAGED

PEER, OTHER = "5511999990001", "5511999990002"


def table(desk: StandIn) -> str:
    return f"""
[[backend]]
name = "desk"
engine = "whaticket"
url = "{desk.url}"
user = "{USER}"
password = "{PASSWORD}"
adopt = ["*"]
logs = ["file:{desk.log.path}"]
auth_folder = "{desk.keys.root}/{{id}}"
"""


async def test_errors_that_the_log_told_while_the_agent_was_away_count(
    make_agent, eventually, tmp_path
):
    async with StandIn.opened(tmp_path / "desk") as desk:
        sick = desk.add("7")
        await sick.pair("551100000007", [PEER, OTHER], {})
        sick.start()
        agent = make_agent(table(desk))
        await agent.start()

        async def connected() -> bool:
            found = (await agent.do("GET", "/api/instances"))["instances"]
            return [each["connection_status"] for each in found] == ["CONNECTED"]

        await eventually(connected)
        await asyncio.sleep(10)  # its log is read from the second list on
        await agent.stop()
        sick.memory[f"session-{PEER}.0"] = DAMAGED
        for _ in range(5):
            assert not sick.receive(PEER)
        await agent.start()
        await eventually(lambda: "PUT /whatsapp/7/disconnect" in desk.requests, within=30)
        await eventually(lambda: sick.receive(PEER), within=30)
        assert sick.logouts == 0
