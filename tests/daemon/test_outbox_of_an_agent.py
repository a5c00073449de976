"""The commands over a real agent's messages: `messages --media`, `send`, `outbox`, `delete`."""

from tests.daemon.conftest import cli
from tests.world.sending import ID, TO, connected, goes_away, say
from tests.world.test_media import has, say_file


async def test_people_fetch_files_see_what_waits_and_take_it_back(agent, eventually, tmp_path):
    await connected(agent, eventually, messages_per_minute=0)
    record = await say_file(agent, b"a picture", mimetype="image/png")
    await eventually(lambda: has(agent, record))
    fetch = ("messages", ID, "--media", record, "--out", tmp_path / "a.png")
    assert (await cli(agent, *fetch))[0] == 0
    assert (tmp_path / "a.png").read_bytes() == b"a picture"
    assert (await cli(agent, *fetch))[0] == 4, "it is there"
    await goes_away(agent, eventually)
    status, said = await cli(agent, "send", ID, TO, "hello", "--wait", "0")
    assert status == 0
    id = said.split()[2].rstrip(":")
    status, said = await cli(agent, "why", ID)
    assert "1 message to send, the oldest waits for " in said
    status, said = await cli(agent, "outbox", ID)
    assert id in said
    assert "1 wait: the session is " in said
    assert "hello" not in said
    status, said = await cli(agent, "outbox", ID, "--cancel", id)
    assert (status, said.strip()) == (0, f"{id} is cancelled")
    for odd in ("", "../../x", "a?b"):
        status, said = await cli(agent, "outbox", ID, "--cancel", odd)
        assert (status, "--cancel names none" in said) == (2, True), said
    status, said = await cli(agent, "outbox", ID, "--state", "cancelled")
    assert "cancelled by an operator" in said
    await say(agent, "it goes with its session")
    status, said = await cli(agent, "delete", ID)
    assert (status, "1 message not sent yet went with it" in said) == (0, True), said
