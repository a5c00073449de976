"""A session keeps messages by its settings, for its readers."""

import asyncio
import json

from tests.world.sending import PATH, keep_three, kept_in
from tests.world.test_lost_folder import troubles
from tests.world.test_vault import connected


async def test_a_session_has_the_settings_in_its_file_and_a_reload_writes_them_anew(
    make_agent, eventually
):
    agent = make_agent("[messages]\nkeep = false\n")
    await agent.start()
    await agent.create("shop")
    file = agent.state / "sessions" / "shop" / "instance.json"

    def told():
        return json.loads(file.read_text())["of_rooms"]

    assert told()["messages"]["keep"] is False
    await eventually(lambda: agent.status("shop"), "CONNECTED")
    usual = agent.config.read_text().replace("keep = false", "most = 500")
    agent.config.write_text(usual)
    agent.reload()
    await eventually(lambda: told().get("messages", {}).get("most"), 500)
    await agent.stop()
    agent.config.write_text(usual.replace("most = 500", ""))
    await agent.start()
    await eventually(told, {})


async def test_what_is_kept_goes_with_its_session_into_the_trash_and_comes_back(agent, eventually):
    await connected(agent, eventually, messages_per_minute=0)
    sessions = agent.state / "sessions"
    keep_three(sessions / "a")
    await agent.do("DELETE", "/api/instance/a")
    (name,) = [each["name"] for each in (await agent.do("GET", "/api/trash"))["trash"]]
    await agent.create("a")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert kept_in(sessions / "a") == [], "another session's are not its own"
    await agent.do("DELETE", "/api/instance/a")
    await agent.do("POST", f"/api/trash/{name}/restore", {})
    assert kept_in(sessions / "a") == [0, 1, 2]


async def test_a_clean_up_leaves_what_is_kept_to_its_readers(agent, eventually):
    await connected(agent, eventually, messages_per_minute=0)
    keep_three(agent.state / "sessions" / "a")
    await agent.do("POST", "/api/instance/a/cleanup", {"confirm": True})
    await eventually(lambda: agent.status("a"), "QR_REQUIRED")
    assert kept_in(agent.state / "sessions" / "a") == [0, 1, 2]
    assert not list((agent.state / "sessions" / ".carried").iterdir())
    made = (await agent.show("a"))["created"]
    (replaced,) = [each["name"] for each in (await agent.do("GET", "/api/trash"))["trash"]]
    await agent.do("DELETE", "/api/instance/a")
    await agent.do("POST", f"/api/trash/{replaced}/restore", {})
    assert (await agent.show("a"))["created"] != made, "webhooks' places are those of the other"


async def test_messages_that_the_disk_refuses_are_a_trouble_until_they_are_kept(agent, eventually):
    """V5: with the session connected and healthy, nothing else would say it."""
    await connected(agent, eventually, messages_per_minute=0)
    in_the_way = agent.state / "sessions" / "a" / "messages"
    in_the_way.write_text("")

    say = ("POST", "/api/instance/a/sandbox/say", {"contact": "5511777777777", "text": "hi"})
    await agent.ask(*say)
    await eventually(lambda: troubles(agent), ["messages"])
    assert "not_kept" in dict(await agent.story("a"))
    in_the_way.unlink()
    await agent.ask(*say)
    await eventually(lambda: troubles(agent), [])
    await agent.do("POST", "/api/instance/a/disable", {})
    await asyncio.sleep(30)
    await agent.kill()
    await agent.start()
    assert await troubles(agent) == [], "it stays over"

    async def counted() -> list[str]:
        return [one["instance"] for one in (await agent.do("GET", "/api/messages"))["sessions"]]

    await eventually(counted, ["a"])
    assert [one["text"] for one in (await agent.do("GET", PATH))["records"]][-1] == "hi"
