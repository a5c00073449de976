"""One linked device is one session, and an instance keeps its account."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.core.model import InstanceId
from agent.vault.archives import pack_session
from tests.daemon.conftest import RunningAgent, cli, done, make_agent
from tests.moving.conftest import creds, keys_of, pair_of, write_folder

__all__ = ["make_agent"]

ACCOUNT = "5511900000001"
Make = Callable[..., RunningAgent]


async def test_a_copy_is_not_imported_beside_its_instance_and_no_account_is_replaced(
    make_agent: Make, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "one", keys_of())
    other = write_folder(
        tmp_path / "other", keys_of(creds(me={"id": "5511880000000:1@x"}, noiseKey=pair_of(9)))
    )
    agent = make_agent()
    await agent.start()

    async def refused(*words: object) -> str:
        status, out = await cli(agent, "import", *words, "--json")
        assert status in (2, 4), out
        return str(json.loads(out)["error"])

    assert await refused(folder, "shop", "--set", "proxy=ftp://x") == "invalid_settings"
    proxy = "socks5://127.0.0.1:9"
    out = await done(agent, "import", folder, "shop", "--set", f"proxy={proxy}")
    assert out.splitlines()[0] == "shop imported, disabled"
    details = await agent.do("GET", "/api/instance/shop/details")
    assert (details["settings"]["proxy"], details["account"]) == (proxy, ACCOUNT)
    assert await refused(folder, "--stopped", "copy") == "same_device"
    assert await refused(folder, "shop") == "exists"
    assert await refused(other, "shop", "--replace") == "other_account"
    deaf = write_folder(tmp_path / "deaf", keys_of(pre_keys=0))
    (empty := tmp_path / "empty").mkdir()
    archive = tmp_path / "a.tar.gz"
    for place, code in ((other, "other_account"), (deaf, "no_pre_keys"), (empty, "not_good")):
        with archive.open("wb") as file:
            pack_session(place, InstanceId("x"), "baileys", file, wall=1.0, account=ACCOUNT)
        assert await refused(archive, "shop", "--replace") == code
    assert not (await agent.do("GET", "/api/trash"))["trash"], "nothing was retired"
    await done(agent, "import", folder, "shop", "--replace")  # it is no copy of itself
    await agent.do("DELETE", "/api/instance/shop")
    await done(agent, "import", folder, "copy")
    newest = (await agent.do("GET", "/api/trash"))["trash"][0]
    status, out = await cli(agent, "trash", "restore", newest["name"])
    assert (status, "instance copy is the same" in out) == (4, True), out
    assert len((await agent.do("GET", "/api/trash"))["trash"]) == 2, "nothing is lost"


async def test_a_device_that_runs_is_not_enabled_or_restored_beside_it(
    make_agent: Make, tmp_path: Path
) -> None:
    """One folder's files were copied over another's; a snapshot's device moved on since."""
    agent = make_agent()
    await agent.start({"WA_NODE": "/no/node"})
    first = write_folder(tmp_path / "first", keys_of())
    second = write_folder(tmp_path / "second", keys_of(creds(noiseKey=pair_of(9))))
    await done(agent, "import", first, "a")
    snapshot = await agent.do("POST", "/api/instance/a/snapshots")
    await done(agent, "import", second, "a", "--replace")
    await done(agent, "import", first, "b")
    await agent.do("POST", "/api/instance/b/enable")
    creds_of_a = agent.state / "sessions/a/session/creds.json"
    before = creds_of_a.read_bytes()
    back = f"/api/instance/a/snapshots/{snapshot['name']}/restore"
    status, answer = await agent.ask("POST", back, {"force": True})
    assert (status, answer["error"], before) == (409, "same_device", creds_of_a.read_bytes())
    await agent.do("POST", "/api/instance/b/disable")
    shutil.copyfile(agent.state / "sessions/b/session/creds.json", creds_of_a)
    both = await asyncio.gather(
        *(agent.ask("POST", f"/api/instance/{id}/enable") for id in ("a", "b"))
    )
    assert sorted(status for status, _ in both) == [202, 409]
    other = "b" if (await agent.show("a"))["enabled"] else "a"
    status, answer = await agent.ask("POST", f"/api/instance/{other}/start")
    assert (status, answer["error"]) == (409, "same_device")


async def test_a_session_moves_to_another_machine(
    make_agent: Make, eventually: Any, tmp_path: Path
) -> None:
    here, there = make_agent(name="here"), make_agent(name="there")
    await here.start()
    await there.start()
    await here.create("a", messages_per_minute=1200)
    await eventually(lambda: here.status("a"), "CONNECTED")
    file = tmp_path / "a.tar.gz"
    sha256 = (await done(here, "export", "a", file)).split()[0]
    assert file.stat().st_mode & 0o777 == 0o600
    await here.do("POST", "/api/instance/a/disable")
    assert "can be imported" in await done(there, "import", file, "--dry-run")
    assert not await there.knows("a")
    assert sha256 in await done(there, "import", file, "--enable", "--wait", "60")
    shown = await there.show("a")
    assert (shown["paired"], shown["account"]) == (True, (await here.show("a"))["account"])
    assert await there.codes("a") == 0, "nobody scans"
