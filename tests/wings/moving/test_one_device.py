"""One linked device is one session: its copies do not run beside each other."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.core.model import InstanceId
from agent.vault.archives.pack import pack_session
from tests.daemon.conftest import RunningAgent, make_agent
from tests.daemon.test_vault import cli
from tests.wings.moving.conftest import creds, keys_of, pair_of, write_folder

__all__ = ["make_agent"]

OTHER = creds(me={"id": "5511880000000:1@x"}, noiseKey=pair_of(9))
DEAF = {"WA_NODE": "/no/node"}


async def test_of_two_copies_of_one_device_none_is_imported_until_one_is_chosen(
    make_agent: Callable[..., RunningAgent], tmp_path: Path
) -> None:
    bots = tmp_path / "bots"
    write_folder(bots / "auth", keys_of())
    write_folder(bots / "auth-backup", keys_of(), ago=86400)
    write_folder(bots / "sales", keys_of(OTHER))
    agent = make_agent()
    await agent.start()
    status, out = await cli(agent, "import", bots, "--all", "--json")
    told = {row["name"]: (row["code"], row["result"]) for row in json.loads(out)}
    assert (status, told["sales"]) == (4, ("", "imported"))
    for name, other in (("auth", "auth-backup"), ("auth-backup", "auth")):
        assert told[name][0] == "same_device"
        assert f"{other} is the same linked device" in told[name][1]
    status, out = await cli(agent, "import", bots, "--only", "auth")
    assert status == 0, out


async def test_a_copy_of_an_instance_is_not_imported_beside_it(
    make_agent: Callable[..., RunningAgent], tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "auth", keys_of())
    agent = make_agent()
    await agent.start()
    assert (await cli(agent, "import", folder, "shop"))[0] == 0
    status, out = await cli(agent, "import", folder, "copy", "--json")
    told = json.loads(out)
    assert (status, told["error"], "instance shop is" in told["message"]) == (
        4, "same_device", True,
    )  # fmt: skip
    assert not await agent.knows("copy")
    status, out = await cli(agent, "import", folder, "shop", "--replace")
    assert status == 0, "it is no copy of itself"
    await agent.do("DELETE", "/api/instance/shop")
    assert (await cli(agent, "import", folder, "copy"))[0] == 0
    newest = (await agent.do("GET", "/api/trash"))["trash"][0]
    status, out = await cli(agent, "trash", "restore", newest["name"])
    assert (status, "instance copy is the same" in out) == (4, True), out
    assert len((await agent.do("GET", "/api/trash"))["trash"]) == 2, "nothing is lost"


async def test_a_duplicated_instance_is_not_enabled_beside_the_first(
    make_agent: Callable[..., RunningAgent], eventually: Any, tmp_path: Path
) -> None:
    """Somebody copied the files of one instance's folder over another's."""
    agent = make_agent()
    await agent.start(DEAF)
    first = write_folder(tmp_path / "first", keys_of())
    second = write_folder(tmp_path / "second", keys_of(creds(noiseKey=pair_of(9))))
    assert (await cli(agent, "import", first, "a"))[0] == 0
    assert (await cli(agent, "import", second, "b"))[0] == 0
    root = agent.state / "sessions"
    shutil.copyfile(root / "a/session/creds.json", root / "b/session/creds.json")
    both = await asyncio.gather(
        *(agent.ask("POST", f"/api/instance/{id}/enable") for id in ("a", "b"))
    )
    answers = sorted((status, answer.get("error", "")) for status, answer in both)
    assert [status for status, _ in answers] == [202, 409], answers
    assert answers[1][1] == "same_device"
    runs = "a" if (await agent.show("a"))["enabled"] else "b"
    other = "b" if runs == "a" else "a"
    status, answer = await agent.ask("POST", f"/api/instance/{other}/start")
    assert (status, answer["error"]) == (409, "same_device")
    assert (await agent.ask("POST", f"/api/instance/{runs}/enable"))[0] == 202
    await agent.do("POST", f"/api/instance/{runs}/disable")

    async def moved() -> Any:
        return (await agent.ask("POST", f"/api/instance/{other}/enable"))[0]

    await eventually(moved, 202)  # once the first one's worker has ended


async def test_x3_a_snapshot_of_a_device_that_runs_elsewhere_is_not_restored(
    make_agent: Callable[..., RunningAgent], tmp_path: Path
) -> None:
    """The device moved on to another instance since; `--force` is about time, not about two."""
    agent = make_agent()
    await agent.start(DEAF)
    one = write_folder(tmp_path / "one", keys_of())
    two = write_folder(tmp_path / "two", keys_of(creds(noiseKey=pair_of(9))))
    assert (await cli(agent, "import", one, "a"))[0] == 0
    snapshot = await agent.do("POST", "/api/instance/a/snapshots")
    assert (await cli(agent, "import", two, "a", "--replace"))[0] == 0
    assert (await cli(agent, "import", one, "b"))[0] == 0
    for id in ("a", "b"):
        await agent.do("POST", f"/api/instance/{id}/enable")
    before = (agent.state / "sessions/a/session/creds.json").read_bytes()
    back = f"/api/instance/a/snapshots/{snapshot['name']}/restore"
    status, answer = await agent.ask("POST", back, {"force": True})
    assert (status, answer["error"]) == (409, "same_device"), answer
    assert "instance b is the same linked device" in answer["message"]
    assert (agent.state / "sessions/a/session/creds.json").read_bytes() == before


async def test_a_session_of_another_account_is_not_put_over_an_instance(
    make_agent: Callable[..., RunningAgent], tmp_path: Path
) -> None:
    agent = make_agent()
    await agent.start()
    write_folder(tmp_path / "one", keys_of())
    write_folder(tmp_path / "other", keys_of(OTHER))
    assert (await cli(agent, "import", tmp_path / "one", "shop"))[0] == 0
    status, out = await cli(agent, "import", tmp_path / "other", "shop", "--replace", "--json")
    assert (status, json.loads(out)["error"]) == (4, "other_account"), out
    assert (await agent.show("shop"))["account"] == "5511900000001"
    assert not (await agent.do("GET", "/api/trash"))["trash"], "nothing was retired"
    swapped = tmp_path / "swapped.tar.gz"
    with swapped.open("wb") as file:
        pack_session(
            tmp_path / "other", InstanceId("x"), "baileys", file, wall=1.0, account="5511900000001"
        )
    status, out = await cli(agent, "import", swapped, "shop", "--replace", "--json")
    assert (status, json.loads(out)["error"]) == (2, "other_account"), out
