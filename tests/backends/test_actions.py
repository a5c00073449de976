"""Orders to a session on Evolution, some of which are refused without a request."""

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

from agent.core.model import InstanceId
from agent.errors import EngineError
from tests.backends.conftest import AT_ONCE, Watch, Watched
from tests.standin.evolution.instances import Instance

CONNECT, CREATE = "GET /instance/connect", "POST /instance/create"
DELETE, LOGOUT = "DELETE /instance/delete", "DELETE /instance/logout"
SCAN = "QR_REQUIRED"
PROXY = dict.fromkeys(("host", "port", "protocol", "username", "password"), "x") | {"enabled": True}


async def ours(at: Watched) -> Instance:
    """A session that the agent made, paired and connected."""
    await at.watch("one", adopted=False)
    await at.until_it_says("DISCONNECTED remote_missing", 45)
    await at.do("connect")
    await at.until_it_says(SCAN, 2 * AT_ONCE)
    one = at.standin.instances["one"]
    assert one.scan()
    await at.until_it_says("CONNECTED", 2 * AT_ONCE)
    assert (at.asked(CREATE), one.second_logins, one.logins) == (1, 0, 1)
    assert not at.claim().made_elsewhere
    return one


def backups(at: Watched) -> list[Path]:
    return sorted(at.folder.glob("one/[0-9]*.json"))


async def test_a_session_of_others_is_not_made_again(watch: Watch) -> None:
    at = await watch()
    await at.watch("one", adopted=True)
    await at.until_it_says("DISCONNECTED remote_missing", 45)
    assert await at.refusal("connect") == "remote_missing" and at.asked(CREATE) == 0


@pytest.mark.parametrize(("version", "route"), [("2.3.7", "POST"), ("1.8.6", "PUT")])
async def test_a_restart_keeps_the_pairing(watch: Watch, version: str, route: str) -> None:
    at = await watch(version)
    one = await at.connected()
    for _ in range(2):  # the same wish: a second login would fight it
        with contextlib.nullcontext() if route == "POST" else pytest.raises(EngineError):
            await at.do("restart")
    await at.until(lambda: one.state == "open", 5)
    await at.until_it_says("CONNECTED", 2 * AT_ONCE)
    # 1.8 would open a second connection.
    assert at.asked(f"{route} /instance/restart") == (1 if route == "POST" else 0)
    assert one.creds and not one.storms
    assert ("restart" in at.claim().useless) is (route == "PUT")


async def test_a_logout_that_changed_nothing_is_told(watch: Watch) -> None:
    at = await watch()
    one = await at.connected()
    one.silence(True)
    one.drop(408)
    await asyncio.sleep(1)
    assert await at.refusal("logout") == "no_effect"
    await asyncio.sleep(AT_ONCE)
    assert at.claim().paired and one.creds


async def test_a_renewal_gives_back_what_the_session_had(watch: Watch, version: str) -> None:
    at = await watch(version)
    one = await ours(at)
    one.settings["rejectCall"] = True
    hook = {"enabled": True, "url": "http://shop.example/in", "events": ["MESSAGES_UPSERT"]}
    one.webhook = hook | ({} if one.old else {"headers": None, "webhookByEvents": True})
    if not one.old:
        one.proxy = dict(PROXY)
    await at.do("renew", confirmed=False)
    made = at.standin.instances["one"]
    assert made is not one and (made.token, made.proxy) == (one.token, one.proxy)
    assert made.settings == one.settings
    assert made.webhook is not None and made.webhook["url"] == hook["url"]
    assert made.webhook["events"] == hook["events"]
    assert not (at.folder / "one/removal.json").exists()
    kept = json.loads(backups(at)[0].read_text())
    assert kept["row"] and kept["settings"] and kept["webhook"]
    assert backups(at)[0].stat().st_mode & 0o777 == 0o600
    await at.until_it_says(SCAN, AT_ONCE)
    assert made.scan()
    await at.until_it_says("CONNECTED", 2 * AT_ONCE)


async def test_a_session_with_a_proxy_of_its_own_goes_out_another_way(watch: Watch) -> None:
    """Such a session proves nothing for sessions on another way (core/recovery/pairing.py)."""
    at, ways = await watch(), []
    (await at.hold("one")).proxy = dict(PROXY)
    await at.hold("two")
    for name in ("one", "two"):
        await at.until_it_says("CONNECTED", 45, name)
        session = at.server.seats[InstanceId(name)].session
        ways += [session.known.way_out] if session else []
    assert ways[0] and ways[1] == ""


@pytest.mark.parametrize("confirmed", [False, True])
async def test_what_others_made_is_logged_out_and_made_again_only_for_a_person(
    watch: Watch, confirmed: bool
) -> None:
    at = await watch()
    one = await at.connected()
    await at.do("renew", confirmed=confirmed)
    assert at.asked(DELETE) == len(backups(at)) == confirmed
    assert (at.standin.instances["one"] is not one) is confirmed
    await at.until_it_says(SCAN, 2 * AT_ONCE)


async def test_a_renewal_that_was_killed_is_finished_by_the_next_agent(
    watch: Watch, version: str
) -> None:
    at = await watch(version)
    one = await ours(at)
    one.settings["rejectCall"] = True
    await at.standin.front.set("refused", only="instance/create")
    assert await at.refusal("renew", confirmed=False)
    assert "one" not in at.standin.instances
    await at.standin.front.set("")
    at.server.leave(InstanceId("one"))  # another agent knows only what is on the disk
    await at.watch("one", adopted=True)
    await at.until_it_says("DISCONNECTED renewal_unfinished", 45)
    await at.do("connect")
    made = at.standin.instances["one"]
    assert made.settings["rejectCall"] and made.token == one.token


@pytest.mark.parametrize("what", ["settings/set", "settings/find", "the disk"])
async def test_nothing_is_deleted_that_could_not_be_given_back(watch: Watch, what: str) -> None:
    at = await watch()
    one = await ours(at)
    if what == "the disk":
        (at.folder / "one/made").unlink()
        (at.folder / "one").rmdir()
        (at.folder / "one").write_text("no folder")
    else:
        await at.standin.front.set("half" if what.endswith("find") else "refused", only=what)
    assert await at.refusal("renew", confirmed=True)
    assert at.standin.instances["one"] is one and one.creds and at.asked(DELETE) == 0


async def test_a_session_that_came_back_is_kept(watch: Watch) -> None:
    at = await watch()
    one = await ours(at)
    one.silence(True)
    one.drop(408)
    await at.until_it_says("INITIALIZING", 2 * AT_ONCE + 60)
    one.silence(False)
    one.connect()
    await at.until(lambda: one.state == "open", 2)
    assert await at.refusal("renew", confirmed=True) == "pairing_kept"
    assert one.creds and at.asked(LOGOUT) == at.asked(DELETE) == 0


async def test_1_8_is_not_left_with_a_connection_of_a_deleted_session(watch: Watch) -> None:
    at = await watch("1.8.6")
    one = await ours(at)
    one.silence(True)
    await asyncio.sleep(35)
    assert one.state == "connecting"
    assert await at.refusal("renew", confirmed=True) == "no_effect"
    assert one.creds and at.asked(DELETE) == 0


async def test_a_deletion_leaves_its_backup(watch: Watch, version: str) -> None:
    at = await watch(version)
    await ours(at)
    await at.do("command", name="delete", arguments={})
    assert "one" not in at.standin.instances and len(backups(at)) == 1
    await at.until_it_says("DISCONNECTED remote_missing", 45)


async def test_a_pairing_code_is_for_a_session_without_a_pairing(
    watch: Watch, version: str
) -> None:
    at = await watch(version)
    one = await at.hold("one", "connecting")
    await at.until_it_says(SCAN, 20)
    asked = {"name": "pairing_code", "arguments": {"phone": "5511987654321"}}
    told = await at.do("command", **asked)
    assert told["code"] == "ABCD1234" and told["expires_in"] > 30
    one.scan()
    await at.until_it_says("CONNECTED", 2 * AT_ONCE)
    assert await at.refusal("command", **asked) == "not_waiting"
