"""At DEBUG, with servers that work and that do not: nothing that opens their doors is written."""

import logging
import os

import pytest

from agent.log import LineWriter
from tests.ports import free_port
from tests.standin.evolution import KEY
from tests.standin.whaticket import server as whaticket
from tests.world.servers.test_evolution import Watched, standin, table

__all__ = ["standin"]

PASSWORD = "two words-7741"
REDIS = "redis-7742"


@pytest.fixture
async def desk(tmp_path, monkeypatch):
    monkeypatch.setattr(whaticket, "PASSWORD", PASSWORD)
    async with whaticket.StandIn.opened(tmp_path / "desk") as one:
        session = one.add("7")
        await session.pair("551100000007", ["5511999999001"], {})
        session.start()
        yield one


@pytest.fixture
def log(tmp_path, caplog):
    """The file of all lines, as the agent writes them."""
    for name in ("agent", "aiohttp", "asyncio"):  # the root's level is pytest's, by --log-level
        caplog.set_level(logging.DEBUG, name)
    path = tmp_path / "agent.log"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    writer = LineWriter(fd, "text", to_journal=False)
    logging.getLogger().addHandler(writer)
    yield path
    logging.getLogger().removeHandler(writer)
    os.close(fd)


async def test_nothing_that_opens_a_server_is_written(make_agent, standin, desk, log, eventually):
    more = {"name": "desk", "engine": "whaticket", "url": desk.url, "user": whaticket.USER}
    more |= {"password": PASSWORD, "redis_url": f"redis://:{REDIS}@127.0.0.1:{free_port()}/0"}
    lines = "".join(f"{name} = {value!r}\n" for name, value in more.items())
    agent = make_agent(table(standin) + f"\n[[backend]]\nadopt = ['*']\n{lines}")
    standin.add("shop", "open")
    await agent.start()
    one = Watched(agent, standin)
    await eventually(lambda: one.all_connected(2))
    wanted = {"id": "till", "engine": "evolution", "settings": {"backend": "evo"}}
    await agent.do("POST", "/api/instance", wanted)
    await eventually(lambda: agent.status("till"), "QR_REQUIRED")
    path, phone = "/api/instance/till/pairing-code", {"phone": "+55 11 99999-0001"}
    typed = (await agent.do("POST", path, phone))["code"]
    scanned = standin.instances["till"].code

    answers = []
    desk.expire_tokens()
    logins = desk.logins
    await eventually(lambda: desk.logins > logins)
    for fault in ("echo", "refuse"):
        await standin.front.set(fault)
        answers.append(await agent.ask("POST", path, phone))
        await eventually(one.backend_word)
        answers.append(await agent.ask("POST", "/api/instance/shop/recover", {}))
        answers.append(await agent.ask("GET", "/api/backends/evo"))
    answers += [await agent.ask("GET", place) for place in ("/metrics", "/api/backends/desk")]
    await standin.front.set("")
    await agent.stop()

    tokens = list(desk._tokens)
    assert len(tokens) > 1
    secrets = [KEY, PASSWORD, "words-7741", REDIS, typed, scanned[-24:], *tokens]
    files = [each for each in agent.state.rglob("*") if each.is_file()]
    assert any(each.name == "agent.db" for each in files)
    assert "DEBUG" in log.read_text()
    for secret in secrets:
        assert secret not in str(answers)
        for place in (log, *files):
            assert secret.encode() not in place.read_bytes(), (place, secret)
