"""At DEBUG, with servers that work and that do not: nothing that opens their doors is written."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.daemon.test_backends import Watched, standin, table

from tests.daemon.conftest import remote_settings
from tests.ports import free_port
from tests.standin.evolution import KEY
from tests.standin.whaticket import server as whaticket
from tests.standin.whaticket.server import StandIn as Desk

__all__ = ["standin"]

PASSWORD = "two words-7741"
REDIS = "redis-7742"


@pytest.fixture
async def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setattr(whaticket, "PASSWORD", PASSWORD)
    async with Desk.opened(tmp_path / "desk") as stand_in:
        yield stand_in


def desk_table(desk: Desk) -> str:
    settings = {
        "name": "desk",
        "engine": "whaticket",
        "url": desk.url,
        "user": whaticket.USER,
        "password": PASSWORD,
        "timeout": 2.0,
        "adopt": ["*"],
        "redis_url": f"redis://:{REDIS}@127.0.0.1:{free_port()}/0",
        "redis_pattern": "sessions:{id}:*",
    }
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    return f"\n[[backend]]\n{lines}"


async def test_nothing_that_opens_a_server_is_written(make_agent, standin, desk, eventually):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    agent = make_agent(
        table(standin, webhook=True, webhook_url=url) + desk_table(desk),
        base=remote_settings(),
    )
    logs = agent.state.parent / "logs"
    text = agent.config.read_text()
    text = text.replace("[agent]", '[agent]\nlog_level = "debug"', 1)
    agent.config.write_text(f'{text}\n[log]\nfolder = "{logs}"\n')
    agent.listen = f"127.0.0.1:{port}"
    standin.add("shop", "open")
    session = desk.add("7")
    await session.pair("551100000007", ["5511999999001"], {})
    session.start()
    await agent.start()
    one = Watched(agent, standin)
    await eventually(lambda: one.all_connected(2), within=30)
    await eventually(lambda: standin.instances["shop"].webhook is not None)
    hook = standin.instances["shop"].webhook["url"].rpartition("/")[2]
    wanted = {"id": "till", "engine": "evolution", "settings": {"backend": "evo"}}
    await agent.do("POST", "/api/instance", wanted)
    await eventually(lambda: agent.status("till"), "QR_REQUIRED")
    path, phone = "/api/instance/till/pairing-code", {"phone": "+55 11 99999-0001"}
    typed = (await agent.do("POST", path, phone))["code"]
    scanned = standin.instances["till"].code

    desk.expire_tokens()
    logins = desk.logins
    await standin.front.set("refuse")
    await agent.ask("POST", path, phone)
    await eventually(lambda: desk.logins > logins, within=30)
    await eventually(one.backend_word, "unreachable", within=30)
    await agent.ask("POST", "/api/instance/shop/recover", {})
    await agent.ask("GET", "/api/backends/desk")
    await standin.front.set("")
    await agent.stop()

    tokens = list(desk._tokens)
    assert len(tokens) > 1
    secrets = [KEY, PASSWORD, "words-7741", REDIS, hook, typed, scanned[-24:], *tokens]
    written = [agent.log, *logs.iterdir(), *agent.state.rglob("*.log")]
    for place in (*written, *agent.state.glob("agent.db*")):
        raw = place.read_bytes()
        for secret in secrets:
            assert secret.encode() not in raw, (place, secret)
    assert 'log_level = "debug"' in agent.config.read_text()


@pytest.mark.parametrize("content", [None, "", "two words\n"], ids=["away", "empty", "blanks"])
async def test_a_key_file_that_cannot_be_used_costs_only_its_backend_and_is_read_again(
    make_agent, standin, eventually, tmp_path, content
):
    file = tmp_path / "evo.key"
    if content is not None:
        file.write_text(content)
    standin.add("shop", "open")
    declared = table(standin).replace(f"key = {KEY!r}", f"key_file = {str(file)!r}")
    agent = make_agent(declared, base=remote_settings())
    await agent.start()
    await agent.create("a")
    await eventually(lambda: agent.status("a"), "CONNECTED")
    backend = await agent.do("GET", "/api/backends/evo")
    assert not backend["up"]
    assert "key_file of backend evo" in backend["sentence"], backend
    file.write_text(f"{KEY}\n")
    await eventually(lambda: Watched(agent, standin).all_connected(2), within=60)
