"""The web engine under a real agent: a real browser on the stand-in page, cared for."""

import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agent.engines.web.browser.arguments import find_browser
from agent.engines.web.fetch import fetch_bundle
from agent.errors import ConfigError, EngineError
from tests.daemon.conftest import RunningAgent
from tests.daemon.test_vault import cli
from tests.lacking import lacks
from tests.standin.web.stand_in import StandIn

pytestmark = pytest.mark.slow

ACCOUNT = "5511999999999"
ID = "shop"

# A browser takes longer than the sandbox; what is waited for is still the fault.
SETTINGS = """\
[agent]
host = "process"

[start]
stagger = 0
login_every = 0
first_check = 0.2

[health]
interval = 1
deep = 2
timeout = 1

[worker]
watchdog = 8
stop_timeout = 15

[stop]
save = 10

[reconnect]
base = 0.2
jitter = 0
"""


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    found = await StandIn.open(qr_every=300, alive_every=0.5)
    yield found
    await found.close()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The bundle, fetched once; each agent has a cache of its own, which it marks."""
    kept = Path(os.environ.get("WA_CACHE_PATH", Path(__file__).parents[2] / ".cache"))
    try:
        find_browser("headless-shell", os.environ.get("WA_BROWSER", ""))
        fetch_bundle(kept)
    except (ConfigError, EngineError) as error:
        lacks(str(error))
    shutil.copytree(kept / "wa-js", tmp_path / "cache" / "wa-js")
    return tmp_path / "cache"


@pytest.fixture
async def agent(make_agent: Callable[..., RunningAgent], cache: Path) -> RunningAgent:
    one = make_agent(base=SETTINGS)
    await one.start(env={"CACHE_PATH": str(cache)})
    return one


async def create(agent: RunningAgent, stand_in: StandIn, id: str = ID) -> None:
    settings = {"url": f"{stand_in.url}?name={id}"}
    await agent.do("POST", "/api/instance", {"id": id, "engine": "web", "settings": settings})


async def test_a_session_is_paired_by_a_code_for_the_phone(agent, stand_in, eventually, tmp_path):
    await create(agent, stand_in)
    await eventually(lambda: agent.status(ID), "QR_REQUIRED", within=30)
    status, out = await cli(agent, "pairing-code", ID, "letters")
    assert (status, "phone" in out) == (2, True), out
    status, out = await cli(agent, "pairing-code", ID, f"+{ACCOUNT}")
    assert status == 0, out
    stand_in.enter_code(out.split()[0].replace("-", ""))
    await eventually(lambda: agent.status(ID), "CONNECTED")
    assert (await agent.show(ID))["account"] == ACCOUNT
    status, answer = await agent.ask("POST", f"/api/instance/{ID}/pairing-code", {"phone": ACCOUNT})
    assert (status, answer["error"]) == (409, "not_waiting")

    status, out = await cli(agent, "screenshot", ID, tmp_path / "page.png")
    assert status == 0, out
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "page.png").stat().st_mode & 0o777 == 0o600
