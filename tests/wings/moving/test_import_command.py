"""`wa-agent import` of several sessions into a running agent."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.core.model import InstanceId
from agent.vault.archives.pack import pack_session
from tests.daemon.conftest import RunningAgent, make_agent
from tests.daemon.test_vault import cli
from tests.wings.moving.conftest import creds, keys_of, pair_of, write_folder

__all__ = ["make_agent"]


async def test_several_sessions_become_instances_that_wait_to_be_enabled(
    make_agent: Callable[..., RunningAgent], tmp_path: Path
) -> None:
    write_folder(tmp_path / "bots" / "sales", keys_of())
    other = creds(me={"id": "5511880000000:1@x"}, noiseKey=pair_of(9))
    write_folder(tmp_path / "bots" / "Help Desk", keys_of(other))
    write_folder(tmp_path / "bots" / "deaf", keys_of(pre_keys=0))
    agent = make_agent()
    await agent.start()
    status, out = await cli(agent, "import", str(tmp_path / "bots"), "--all")
    assert (status, out.count("imported"), out.count("refused")) == (4, 2, 1), out
    for id, account in (("sales", "5511900000001"), ("help-desk", "5511880000000")):
        shown = await agent.show(id)
        assert (shown["engine"], shown["should_run"], shown["paired"]) == ("baileys", False, True)
        assert shown["account"] == account, "known before its first login"
    assert not await agent.knows("deaf")
    again, out = await cli(agent, "import", str(tmp_path / "bots" / "sales"))
    assert (again, "exists" in out) == (4, True), out
    await agent.do("DELETE", "/api/instance/sales")
    status, out = await cli(agent, "import", str(tmp_path / "bots"), "shop", "--only", "sales")
    assert (status, out.splitlines()[0]) == (0, "shop imported, disabled"), out


async def test_an_archive_is_shown_and_its_first_messages_prove_that_it_reads(
    make_agent: Callable[..., RunningAgent], eventually: Any, tmp_path: Path
) -> None:
    here, there = make_agent(name="here"), make_agent(name="there")
    await here.start()
    await there.start()
    await here.create("a", messages_per_minute=1200)
    await eventually(lambda: here.status("a"), "CONNECTED")
    shown = await here.do("GET", "/api/instance/a/details")
    assert shown["first_messages"] is None, "it was paired here"
    file = tmp_path / "a.tar.gz"
    assert (await cli(here, "export", "a", file))[0] == 0
    await here.do("POST", "/api/instance/a/disable")

    status, out = await cli(there, "import", file, "--dry-run")
    assert (status, "can be imported" in out, shown["account"] in out) == (0, True, True), out
    assert not await there.knows("a")
    status, out = await cli(there, "import", file, "--wait", "20")
    assert (status, "needs --enable" in out) == (2, True), out
    status, out = await cli(there, "import", file, "--enable", "--wait", "60")
    proof = "moved in; 10 of its first 10 messages read"
    assert (status, proof in out) == (0, True), out
    told = (await there.do("GET", "/api/instance/a/details"))["first_messages"]
    assert told == {"read": 10, "repeated": 0, "unread": 0, "over": True, "sentence": proof}

    async def is_in_the_story() -> bool:  # it is shown before it is written down
        return ("first_messages", proof) in await there.story("a")

    await eventually(is_in_the_story)
    for words in (("show", "a"), ("why", "a")):
        assert proof in (await cli(there, *words))[1]
    await there.kill()
    await there.start()
    assert (await there.do("GET", "/api/instance/a/details"))["first_messages"] == told


async def test_what_a_session_needs_before_its_first_login_is_set_with_its_import(
    make_agent: Callable[..., RunningAgent], tmp_path: Path
) -> None:
    agent = make_agent()
    await agent.start()
    folder = write_folder(tmp_path / "auth", keys_of())
    proxy = "socks5://127.0.0.1:9"
    status, out = await cli(agent, "import", folder, "shop", "--set", "proxy=ftp://x")
    assert (status, "proxy" in out) == (2, True), out
    assert not await agent.knows("shop")
    status, out = await cli(agent, "import", folder, "shop", "--set", f"proxy={proxy}")
    assert status == 0, out
    settings = (await agent.do("GET", "/api/instance/shop/details"))["settings"]
    assert settings["proxy"] == proxy
    archive = tmp_path / "shop.tar.gz"
    with archive.open("wb") as out_file:
        pack_session(folder, InstanceId("shop"), "baileys", out_file, wall=1.0)
    status, out = await cli(agent, "import", archive, "--set", f"proxy={proxy}")
    assert (status, "brings its settings" in out) == (2, True), out
