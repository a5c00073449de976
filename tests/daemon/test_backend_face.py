"""What a person or a script asks of a session on a backend, through a real agent."""

import asyncio
import json
import sys
import time
import tomllib
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.daemon.conftest import RunningAgent, remote_settings
from tests.daemon.test_backends import Watched, standin, table, watch
from tests.ports import free_port
from tests.standin.evolution import KEY
from tests.standin.whaticket.keys import FolderKeys
from tests.standin.whaticket.server import PASSWORD, USER
from tests.standin.whaticket.server import StandIn as Desk
from tests.standin.whaticket.session import DAMAGED

__all__ = ["standin", "watch"]

PEERS = [f"55119999900{number:02}" for number in range(1, 5)]


# on an Evolution server


async def test_a_session_is_deleted_there_only_with_the_words(watch, standin, eventually):
    one = await watch("shop", "other")
    await eventually(lambda: one.all_connected(2))
    path = "/api/instance/shop?remote=true"
    for body in (None, {"confirm": "delete other"}):
        status, told = await one.agent.ask("DELETE", path, body)
        assert (status, told["error"]) == (409, "confirm"), told
    status, told = await one.agent.ask("POST", "/api/instance/shop/cleanup", {})
    assert (status, told["error"]) == (409, "would_unpair"), told
    assert "delete shop on" in told["message"] and "with its chats" in told["message"]
    assert one.ended_anything() == []
    told = await one.agent.do("DELETE", path, {"confirm": "delete shop"})
    assert (told["remote"], told["remote_deleted"]) == ("shop", True)
    assert "shop" not in standin.instances
    assert standin.instances["other"].state == "open"
    # Neither the agent nor its discovery makes it again.
    looks = standin.paths["GET /instance/fetchInstances"]
    await eventually(lambda: standin.paths["GET /instance/fetchInstances"] > looks + 1, within=45)
    assert await one.all_connected(1)
    assert "shop" not in standin.instances
    assert not any("other" in route for route in one.ended_anything())


async def test_a_session_that_its_server_does_not_delete_is_kept_here(watch, standin, eventually):
    one = await watch("shop")
    await eventually(lambda: one.all_connected(1))
    await standin.front.set("refuse")
    path, body = "/api/instance/shop?remote=true", {"confirm": "delete shop"}
    status, told = await one.agent.ask("DELETE", path, body)
    assert (status, told["error"]) == (502, "backend_down"), told
    await standin.front.set("")
    await eventually(lambda: one.all_connected(1), within=40)
    assert standin.instances["shop"].state == "open"


async def test_settings_over_there_are_read_and_changed(watch, standin, eventually):
    one = await watch("shop")
    await eventually(lambda: one.all_connected(1))
    path = "/api/instance/shop/remote-settings"
    before = (await one.agent.do("GET", path))["settings"]
    assert before["rejectCall"] is False
    told = await one.agent.do("PATCH", path, {"settings": {"rejectCall": True, "msgCall": "no"}})
    assert told["settings"] == {**before, "rejectCall": True, "msgCall": "no"}
    assert standin.instances["shop"].settings["rejectCall"] is True
    assert (await one.agent.do("GET", path))["settings"] == told["settings"]
    for wrong in ({"colour": "red"}, {"rejectCall": "yes"}):
        status, told = await one.agent.ask("PATCH", path, {"settings": wrong})
        assert (status, told["error"]) == (400, "invalid_request"), told
    status, told = await one.agent.ask("GET", "/api/instance/shop/removed")
    assert (status, told["error"]) == (409, "not_supported"), told
    await standin.front.set("refuse")
    status, told = await one.agent.ask("GET", path)
    assert (status, told["error"]) == (502, "backend_down"), told


async def test_a_code_to_type_comes_from_the_server(watch, standin, eventually):
    one = await watch("paired")
    await eventually(lambda: one.all_connected(1))
    wanted = {"id": "till", "engine": "evolution", "settings": {"backend": "evo"}}
    await one.agent.do("POST", "/api/instance", wanted)
    await eventually(lambda: one.agent.status("till"), "QR_REQUIRED")
    phone = {"phone": "+55 11 99999-0001"}
    told = await one.agent.do("POST", "/api/instance/till/pairing-code", phone)
    assert told["code"] == standin.instances["till"].pairing_code
    assert 0 < told["expires_in"] <= 60
    assert told["code"] not in one.agent.log.read_text()
    status, told = await one.agent.ask("POST", "/api/instance/paired/pairing-code", phone)
    assert (status, told["error"]) == (409, "not_waiting"), told
    assert standin.instances["paired"].state == "open"
    await standin.front.set("refuse")
    status, told = await one.agent.ask("POST", "/api/instance/till/pairing-code", phone)
    assert (status, told["error"]) == (502, "backend_down"), told


async def test_a_hook_with_a_wrong_secret_is_an_unknown_address(make_agent, standin, eventually):
    url = f"http://127.0.0.1:{free_port()}"
    agent = make_agent(table(standin, webhook=True, webhook_url=url), base=remote_settings())
    agent.listen = url.removeprefix("http://")
    standin.add("shop", "open")
    await agent.start()
    one = Watched(agent, standin)
    await eventually(lambda: one.all_connected(1))
    await eventually(lambda: standin.instances["shop"].webhook is not None)
    hook = standin.instances["shop"].webhook["url"]
    assert hook.startswith(f"{url}/hooks/evo/")
    told = {"event": "connection.update", "instance": "shop", "data": {"state": "close"}}

    async def hooks() -> int:
        lines = (await agent.do("GET", "/metrics")).splitlines()
        (line,) = [one for one in lines if one.startswith("wa_backend_hooks_total{")]
        return int(line.rpartition(" ")[2])

    before = await hooks()
    other = "/hooks/other/" + hook.rpartition("/")[2]
    async with aiohttp.ClientSession() as stranger:
        for wrong in (hook[:-1] + ("x" if hook[-1] != "x" else "y"), url + other):
            async with stranger.post(wrong, json=told) as answer:
                assert (answer.status, (await answer.json())["error"]) == (404, "unknown_route")
        async with stranger.post(hook, json={"event": "nonsense"}) as answer:
            assert answer.status == 200
    assert await one.all_connected(1)
    assert await hooks() == before + 1, "only the one that had the secret"
    asked = time.time()
    shown = (await agent.do("GET", "/api/backends/evo"))["next_check"]
    # Asked for while that check is under way, it is a moment ago.
    assert asked - 20 <= datetime.fromisoformat(shown).timestamp() <= time.time() + 10
    assert hook.rpartition("/")[2] not in agent.log.read_text()


async def test_scripts_for_a_whaticket_server_stop_and_start_any_session(
    watch, standin, eventually
):
    one = await watch("shop")
    await one.agent.create("local")
    await eventually(lambda: one.all_connected(2))
    for id in ("local", "shop"):
        down = await one.agent.do("PUT", f"/whatsapp/{id}/disconnect?wait=20")
        assert (down["status"], down["override"]) == ("DISCONNECTED", "stopped"), down
        up = await one.agent.do("PUT", f"/whatsapp/{id}/start-session?wait=30")
        assert up["status"] == "CONNECTED", up
    # Right after each other, without waiting in between: the answer is of the new run.
    await one.agent.do("PUT", "/whatsapp/local/disconnect")
    up = await one.agent.do("PUT", "/whatsapp/local/start-session?wait=30")
    assert (up["status"], await one.agent.status("local")) == ("CONNECTED", "CONNECTED")
    assert one.ended_anything() == []
    assert standin.instances["shop"].state == "open"


async def test_an_address_for_another_program_does_not_stop_the_agent(make_agent):
    agent = make_agent()
    await agent.start({"REDIS_URL": "redis://:Geheim-1@cache:6379", "BACKEND_URL": "a/b"})
    text = agent.log.read_text()
    for name in ("REDIS_URL", "BACKEND_URL"):
        assert f"[WARN] [SYSTEM] [-] the environment variable {name} is not used" in text
    assert "Geheim-1" not in text


# on a whaticket-like server


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with Desk.opened(tmp_path / "desk") as stand_in:
        yield stand_in


async def watching(
    make_agent: Callable[..., RunningAgent], desk: Desk, eventually: Any
) -> tuple[RunningAgent, str]:
    """An agent, and the id of the one session there."""
    assert isinstance(desk.keys, FolderKeys)
    settings = {
        "name": "desk",
        "engine": "whaticket",
        "url": desk.url,
        "user": USER,
        "password": PASSWORD,
        "timeout": 2.0,
        "adopt": ["*"],
        "logs": [f"file:{desk.log.path}"],
        "auth_folder": f"{desk.keys.root}/{{id}}",
    }
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    agent = make_agent(f"\n[[backend]]\n{lines}", base=remote_settings())
    await agent.start()

    async def up() -> str:
        found = (await agent.do("GET", "/api/instances"))["instances"]
        connected = [one["id"] for one in found if one["connection_status"] == "CONNECTED"]
        return str(connected[0]) if connected else ""

    return agent, await eventually(up, within=20)


async def test_files_put_aside_by_a_round_are_listed_and_put_back(make_agent, desk, eventually):
    session = desk.add("7")
    await session.pair("551100000007", PEERS, {})
    session.start()
    agent, id = await watching(make_agent, desk, eventually)
    path = f"/api/instance/{id}/removed"
    assert (await agent.do("GET", path))["removed"] == []
    peer = f"session-{PEERS[0]}.0"
    file = desk.keys.folder("7") / f"{peer}.json"
    session.memory[peer] = DAMAGED
    for _ in range(6):
        session.receive(PEERS[0])

    async def mended() -> bool:
        return any(said.startswith("regenerate_keys: done") for _, said in await agent.story(id))

    await eventually(mended, within=40)
    (aside,) = (await agent.do("GET", path))["removed"]
    assert (aside["state"], aside["files"] > 0, aside["whole"]) == ("done", True, False)
    await eventually(lambda: agent.status(id), "CONNECTED", within=40)
    aside_at = agent.state / "backends/desk/kept"
    (stored,) = aside_at.rglob(f"{aside['name']}/files/{file.name}")
    was = stored.read_bytes()
    assert not file.exists()
    desk.requests.clear()
    told = await agent.do("POST", f"{path}/{aside['name']}/restore")
    assert told["removed"]["name"] == aside["name"]
    assert file.read_bytes() == was
    puts = [each for each in desk.requests if each.startswith("PUT")]
    assert puts == ["PUT /whatsapp/7/disconnect", "PUT /whatsapp/7/start-session"]
    await eventually(lambda: agent.status(id), "CONNECTED", within=20)
    assert session.logouts == 0
    assert any("restore_removed" in sentence for _, sentence in await agent.story(id))
    status, answer = await agent.ask("POST", f"{path}/20200101T000000Z/restore")
    assert (status, answer["error"]) == (404, "not_found"), answer


async def test_an_action_unknown_to_the_server_is_refused_with_a_reason(
    make_agent, desk, eventually
):
    session = desk.add("7")
    await session.pair("551100000007", PEERS, {})
    session.start()
    agent, id = await watching(make_agent, desk, eventually)
    phone = {"phone": "+55 11 99999-0001"}
    remote = (await agent.show(id))["remote"]
    for method, path, body in (
        ("GET", f"/api/instance/{id}/remote-settings", None),
        ("PATCH", f"/api/instance/{id}/remote-settings", {"settings": {"x": 1}}),
        ("DELETE", f"/api/instance/{id}?remote=true", {"confirm": f"delete {remote}"}),
    ):
        status, told = await agent.ask(method, path, body)
        assert (status, told["error"]) == (409, "not_supported"), (path, told)
    # Of a session with a pairing none is asked for: on some servers that ends the pairing.
    status, told = await agent.ask("POST", f"/api/instance/{id}/pairing-code", phone)
    assert (status, told["error"]) == (409, "not_waiting")
    await eventually(lambda: agent.status(id), "CONNECTED")
    assert not [each for each in desk.requests if each.split()[0] in ("PUT", "DELETE")]


@pytest.mark.parametrize("standin", ["1.8.6", "2.3.6"], indirect=True)
async def test_one_404_for_a_session_lets_nobody_end_its_pairing_without_a_word(
    watch, standin, eventually
):
    one = await watch("shop", "other")
    await eventually(lambda: one.all_connected(2))
    standin.instances["shop"].denied = 10**6
    await eventually(lambda: one.agent.status("shop"), "INITIALIZING", within=20)
    standin.instances["shop"].denied = 1
    status, told = await one.agent.ask("POST", "/api/instance/shop/cleanup", {})
    assert (status, told["error"]) == (409, "would_unpair"), told
    await eventually(lambda: one.all_connected(2), within=40)
    assert one.ended_anything() == []
    assert standin.instances["shop"].creds


@pytest.fixture
async def without(make_agent, standin, tmp_path):
    """An agent that was started without any backend, and a key file of its own."""
    agent = make_agent(base=remote_settings())
    await agent.start()
    key = tmp_path / "evo.key"
    key.write_text(KEY)
    key.chmod(0o600)
    standin.add("shop", "open")
    new = {"name": "evo", "engine": "evolution", "url": standin.url, "key": KEY, "adopt": ["*"]}
    return agent, new, key


async def test_a_backend_is_added_without_a_restart_and_is_there_after_one(
    without, standin, eventually
):
    agent, new, key = without
    before = agent.config.read_text()
    for wrong, word in (
        ({"engine": "fax"}, "engine"),
        ({"url": "ftp://x"}, "url"),
        ({"key_file": str(key)}, "key_file"),  # the agent reads no file that a client names
    ):
        status, told = await agent.ask("POST", "/api/backends", {**new, **wrong})
        assert status == 400, told
        assert word in told["message"], told
    assert agent.config.read_text() == before
    assert not list(agent.config.parent.glob("evo.*.key"))
    made = await agent.do("POST", "/api/backends", new)
    assert made["name"] == "evo"
    after = agent.config.read_text()
    assert after.startswith(before)
    assert KEY not in after, "others may read agent.toml"
    (file,) = agent.config.parent.glob("evo.*.key")
    assert (file.read_text().strip(), file.stat().st_mode & 0o777) == (KEY, 0o600)
    watched = Watched(agent, standin)
    await eventually(lambda: watched.all_connected(1), within=45)
    status, told = await agent.ask("POST", "/api/backends", new)
    assert (status, "declared twice" in told["message"]) == (400, True), told
    await agent.stop()
    await agent.start()
    await eventually(lambda: watched.all_connected(1), within=45)


async def test_a_person_who_may_write_agent_toml_adds_a_backend_by_the_command(
    without, standin, eventually
):
    agent, new, key = without
    words = ["backends", "add", "evo", "evolution", new["url"], "--key-file", str(key)]
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", *words, "--adopt", "*", "--config", str(agent.config)),
        *("--socket", str(agent.state / "api.sock")),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await run.communicate()
    assert (run.returncode, b"evo is added" in said) == (0, True), said
    watched = Watched(agent, standin)
    await eventually(lambda: watched.all_connected(1), within=45)


async def test_backends_that_are_added_at_once_are_all_there_after_a_restart(
    without, standin, eventually, tmp_path
):
    agent, new, _ = without
    real = tmp_path / "managed.toml"
    agent.config.rename(real)
    agent.config.symlink_to(real)
    names = [f"evo{number}" for number in range(6)]
    told = await asyncio.gather(
        *(agent.ask("POST", "/api/backends", {**new, "name": name, "adopt": []}) for name in names)
    )
    assert {status for status, _ in told} <= {201, 202}, told
    assert agent.config.is_symlink(), "it stays where another program manages it"
    declared = tomllib.loads(real.read_text())["backend"]
    assert sorted(backend["name"] for backend in declared) == names
    backups = [file for file in tmp_path.glob("managed.toml.2*") if file.suffix != ".key"]
    assert len(backups) == len(names), "each has its backup"
    assert (await agent.do("POST", "/api/reload"))["look"] == "/api/health"
    real.write_text(real.read_text() + "[[instance]\n")
    status, refused = await agent.ask("POST", "/api/backends", {**new, "name": "late"})
    assert (status, refused["error"]) == (409, "config_wrong"), refused
    assert "line" in refused["message"]
    await agent.do("POST", "/api/reload")

    async def is_refused() -> bool:
        return (await agent.do("GET", "/api/health"))["agent"]["settings_refused"] is True

    await eventually(is_refused)
