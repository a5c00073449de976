"""The disk under a running agent turns read-only, as ext4 does after an error."""

import os
import signal

from tests.daemon.test_surroundings import with_disk_free
from tests.wings.messages.out.sending import ID, PATH, TO, connected, heard, say


async def read(agent) -> list[str]:
    page = await agent.do("GET", f"{PATH}?after=0&limit=500")
    records = [each for each in page["records"] if each["kind"] == "message"]
    return [each["text"] for each in records if not each["from_me"]]


async def comes(agent, number: int) -> int:
    body = {"contact": TO, "text": f"in {number}", "message_id": f"3EB0IN{number:08d}"}
    return int((await agent.ask("POST", f"/api/instance/{ID}/sandbox/say", body))[0])


async def test_a_disk_that_turns_read_only_under_the_agent_loses_and_doubles_no_message(
    make_agent, eventually, failing_disk
):
    agent = make_agent(base=with_disk_free(1 << 20))
    agent.state = failing_disk.folder / "state"
    await agent.start()
    await connected(agent, eventually)
    for number in range(3):
        assert await comes(agent, number) == 200
        await say(agent, f"out {number}")
    await eventually(lambda: heard(agent), ["out 0", "out 1", "out 2"])
    await eventually(lambda: read(agent), ["in 0", "in 1", "in 2"])
    os.sync()  # the sandbox does not flush what it plays of WhatsApp
    failing_disk.fail()
    status, answer = await agent.ask("POST", PATH, {"to": TO, "text": "refused"})
    assert (status, answer["error"]) == (507, "read_only"), answer
    await comes(agent, 3)
    assert await read(agent) == ["in 0", "in 1", "in 2"], "what was kept is read"
    await agent.kill()
    for pid in agent.worker_pids():
        os.kill(pid, signal.SIGKILL)
    failing_disk.mend()
    await agent.start()
    await eventually(lambda: agent.status(ID), "CONNECTED", within=30)
    for number in range(5):  # its contact gives again what was not taken, and some that was
        await eventually(lambda number=number: comes(agent, number), 200)
    await say(agent, "goes on")
    await eventually(lambda: heard(agent), ["out 0", "out 1", "out 2", "goes on"], within=30)
    await eventually(lambda: read(agent), [f"in {number}" for number in range(5)])
