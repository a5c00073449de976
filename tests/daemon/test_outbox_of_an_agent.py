"""The commands over a real agent's messages: `messages --media`, `send`, `outbox`, `delete`."""

from tests.daemon.conftest import cli, done
from tests.world.sending import ID, TO, connected, goes_away, say
from tests.world.test_media import has, say_file


async def test_people_fetch_files_see_what_waits_and_take_it_back(agent, eventually, tmp_path):
    await connected(agent, eventually, messages_per_minute=0)
    record = await say_file(agent, b"a picture", mimetype="image/png")
    await eventually(lambda: has(agent, record))
    fetch = ("messages", ID, "--media", record, "--out", tmp_path / "a.png")
    await done(agent, *fetch)
    assert (tmp_path / "a.png").read_bytes() == b"a picture"
    assert (await cli(agent, *fetch))[0] == 4, "it is there"
    await goes_away(agent, eventually)
    id = (await done(agent, "send", ID, TO, "hello", "--wait", "0")).split()[2].rstrip(":")
    assert "1 message to send, the oldest waits for " in await done(agent, "why", ID)
    said = await done(agent, "outbox", ID)
    assert id in said
    assert "1 wait: the session is " in said
    assert "hello" not in said
    assert (await done(agent, "outbox", ID, "--cancel", id)).strip() == f"{id} is cancelled"
    for odd in ("", "../../x", "a?b"):
        status, said = await cli(agent, "outbox", ID, "--cancel", odd)
        assert (status, "--cancel names none" in said) == (2, True), said
    assert "cancelled by an operator" in await done(agent, "outbox", ID, "--state", "cancelled")
    await say(agent, "it goes with its session")
    assert "1 message not sent yet went with it" in await done(agent, "delete", ID)
