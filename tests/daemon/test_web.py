"""The web engine under a real agent: a real browser on the stand-in page, cared for."""

import asyncio
import base64
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.engines.web.browser.arguments import find_browser
from agent.engines.web.fetch import fetch_bundle
from agent.errors import ConfigError, EngineError
from tests.daemon.conftest import RunningAgent
from tests.daemon.test_vault import cli
from tests.lacking import lacks
from tests.standin.web.stand_in import StandIn
from tests.waiting import alive

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
spread = 0
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


async def pair(agent: RunningAgent, stand_in: StandIn, eventually: Any, id: str = ID) -> None:
    await create(agent, stand_in, id)
    await eventually(lambda: agent.status(id), "QR_REQUIRED", within=30)
    stand_in.scan(ACCOUNT, id)
    await eventually(lambda: agent.status(id), "CONNECTED")


def below(pid: int) -> list[int]:
    found = [pid]
    tasks: list[Path] = []
    with contextlib.suppress(OSError):  # it ends at this very moment
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    for task in tasks:
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text().split():
                found += below(int(child))
    return found


def browser_of(worker: int) -> int | None:
    """The one process of its browser that the others hang below."""
    for pid in below(worker)[1:]:
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"--user-data-dir=" in line and b"--type=" not in line:
                return pid
    return None


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


async def test_messages_go_out_come_in_and_are_heard_of(agent, stand_in, eventually):
    await pair(agent, stand_in, eventually)
    connector = aiohttp.UnixConnector(str(agent.state / "api.sock"))
    async with aiohttp.ClientSession(connector=connector) as session:
        heard = await session.ws_connect("http://localhost/api/events?kind=message&kind=ack")
        assert (await heard.receive_json())["type"] == "hello"
        path = f"/api/instance/{ID}/messages?wait=30"
        sent = await agent.do("POST", path, {"to": "5511777777777", "text": "hello"})
        assert sent["outcome"] == "sent"
        picture = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(64)).decode()
        file = {"type": "media", "content": picture, "mimetype": "image/png", "caption": "look"}
        sent = await agent.do("POST", path, {"to": "5511777777777", **file})
        assert sent["outcome"] == "sent"
        (agent.state / "note.txt").write_text("a document")
        words = ("send", ID, "5511777777777", "look", "--file", agent.state / "note.txt")
        status, said = await cli(agent, *words)
        assert (status, said.split()[0]) == (0, "sent"), said
        message = {"from": "5511777777777@c.us", "body": "a secret"}
        stand_in.page(ID).tell("message", **message)
        directions = set()
        async with asyncio.timeout(30):
            while directions != {"in", "out"}:
                event = await heard.receive_json()
                assert "a secret" not in str(event)
                assert "5511777777777" not in str(event)
                if event.get("kind") == "message":
                    directions.add(event["detail"]["direction"])
        await heard.close()

    async def counted() -> bool:
        counts = (await agent.show(ID))["messages"]
        return counts["in"] >= 1 and counts["out"] >= 2

    await eventually(counted)
    assert not [kind for kind, _ in await agent.story(ID) if kind in ("message", "ack")]

    # Its worker dies while the page still sends: the outcome is unknown, and the message is sent
    # again as the same one.
    stand_in.answers_sends = False
    page = stand_in.page(ID)

    def sends() -> int:
        return [told.get("do") for told in page.received].count("send")

    before = sends()
    status, kept = await agent.ask(
        "POST", path.partition("?")[0], {"to": "5511777777777", "text": "is it there?"}
    )
    assert (status, kept["state"]) == (202, "accepted")
    await eventually(lambda: sends() > before)
    os.kill(await agent.pid(ID), signal.SIGKILL)

    async def row(name: str) -> str:
        return (await agent.do("GET", f"/api/instance/{ID}/outbox/{kept['id']}"))[name]

    await eventually(lambda: row("reason"), "unknown_outcome")
    stand_in.answers_sends = True
    await eventually(lambda: agent.status(ID), "CONNECTED", within=30)
    await eventually(lambda: row("state"), "sent", within=60)


async def test_a_browser_that_is_killed_comes_back_in_the_same_worker(agent, stand_in, eventually):
    await pair(agent, stand_in, eventually)
    worker = await agent.pid(ID)
    killed = browser_of(worker)
    assert killed is not None
    tree = below(killed)
    os.kill(killed, signal.SIGKILL)
    await eventually(lambda: not any(alive(pid) for pid in tree))

    async def is_back() -> bool:
        new = browser_of(worker)
        return await agent.status(ID) == "CONNECTED" and new not in (None, killed)

    await eventually(is_back, within=30)
    assert await agent.pid(ID) == worker
    assert (await agent.show(ID))["account"] == ACCOUNT


async def test_a_stopped_browser_does_not_outlive_its_killed_worker(agent, stand_in, eventually):
    await pair(agent, stand_in, eventually)
    worker = await agent.pid(ID)
    browser = browser_of(worker)
    assert browser is not None
    tree = below(browser)
    # Stopped, its processes do not see that the one above them is gone.
    os.killpg(browser, signal.SIGSTOP)
    os.kill(worker, signal.SIGKILL)
    try:
        await eventually(lambda: not any(alive(pid) for pid in tree))
    finally:
        for pid in filter(alive, tree):
            os.kill(pid, signal.SIGKILL)
    await eventually(lambda: agent.status(ID), "CONNECTED", within=30)


async def test_a_page_that_hangs_is_repaired_without_a_scan(agent, stand_in, eventually):
    await pair(agent, stand_in, eventually)
    hung = stand_in.page(ID)
    hung.tell("hang", seconds=120)

    async def is_noticed() -> bool:
        return (await agent.show(ID))["health"]["verdict"] != "healthy"

    async def is_back() -> bool:
        shown = await agent.show(ID)
        healthy = shown["health"]["verdict"] == "healthy"
        return healthy and any(each is not hung for each in stand_in.clients)

    await eventually(is_noticed, within=30)
    await eventually(is_back, within=60)
    assert (await agent.show(ID))["account"] == ACCOUNT
    assert len(stand_in.devices) == 1


RARELY = SETTINGS.replace(
    "interval = 1\ndeep = 2", "interval = 3600\ndeep = 3600\nproof_limit = 3600"
)
"""Only what asks for a probe by itself gets one."""


@pytest.fixture
async def rarely(make_agent: Callable[..., RunningAgent], cache: Path) -> RunningAgent:
    one = make_agent(base=RARELY)
    await one.start(env={"CACHE_PATH": str(cache)})
    return one


async def test_a_page_whose_socket_is_not_seen_is_probed_as_soon_as_it_is_paired(
    rarely, stand_in, eventually
):
    settings = {"url": f"{stand_in.url}?name={ID}&unseen"}
    await rarely.do("POST", "/api/instance", {"id": ID, "engine": "web", "settings": settings})
    await eventually(lambda: rarely.status(ID), "QR_REQUIRED", within=30)
    stand_in.scan(ACCOUNT, ID)
    await eventually(lambda: rarely.status(ID), "CONNECTED")
    assert (await rarely.show(ID))["health"]["verdict"] == "healthy"


async def test_a_page_without_its_send_function_is_told_at_once_and_well_when_it_is_whole(
    rarely, stand_in, eventually
):
    async def verdict() -> tuple[str, str]:
        found = (await rarely.show(ID))["health"]
        return found["verdict"], found["reason"]

    stand_in.missing = "WAWebSendMsgChatAction"
    await pair(rarely, stand_in, eventually)
    await eventually(verdict, ("degraded", "page_incomplete"))
    await eventually(lambda: stand_in.requests.count("/standin.js") >= 2, within=30)
    await eventually(lambda: rarely.status(ID), "CONNECTED")
    await eventually(verdict, ("degraded", "page_incomplete"))
    stand_in.missing = ""
    stand_in.page().tell("navigate", to=f"/?name={ID}")
    await eventually(verdict, ("healthy", ""))


async def test_a_page_that_lost_a_part_is_degraded_before_a_request_needs_it(
    agent, stand_in, eventually
):
    settings = {"url": f"{stand_in.url}?name={ID}&missing=WAWebSendMsgChatAction"}
    await agent.do("POST", "/api/instance", {"id": ID, "engine": "web", "settings": settings})
    await eventually(lambda: agent.status(ID), "QR_REQUIRED", within=30)
    stand_in.scan(ACCOUNT, ID)
    await eventually(lambda: agent.status(ID), "CONNECTED")

    async def health() -> tuple[str, str, str]:
        found = (await agent.show(ID))["health"]
        return found["verdict"], found["reason"], found["sentence"]

    words = "its page lacks addAndSendMsgToChat: operations that need it will fail"
    await eventually(health, ("degraded", "page_incomplete", words))
    await agent.do(
        "PATCH", f"/api/instance/{ID}", {"settings": {"url": f"{stand_in.url}?name={ID}"}}
    )
    await agent.do("POST", f"/api/instance/{ID}/restart")

    async def is_whole() -> bool:
        return (await health())[0] == "healthy"

    await eventually(is_whole, within=60)


async def test_a_logout_on_the_phone_retires_the_session_and_shows_a_new_code(
    agent, stand_in, eventually
):
    await pair(agent, stand_in, eventually)
    stand_in.log_out(ACCOUNT)

    async def offers_a_new_code() -> bool:
        trash = (await agent.do("GET", "/api/trash"))["trash"]
        return bool(trash) and await agent.status(ID) == "QR_REQUIRED"

    await eventually(offers_a_new_code, within=40)
    assert any("removed this linked device" in sentence for _, sentence in await agent.story(ID))
    stand_in.scan(ACCOUNT, ID)
    await eventually(lambda: agent.status(ID), "CONNECTED")


async def test_a_session_goes_to_another_program_and_comes_back_without_a_scan(
    agent, stand_in, eventually, tmp_path
):
    await pair(agent, stand_in, eventually)
    made = await agent.do("POST", f"/api/instance/{ID}/snapshots")
    assert (made["state"], made["problem"]) == ("whole", "")
    out = tmp_path / ".wwebjs_auth"
    status, said = await cli(agent, "export", ID, out, "--to", "wwebjs")
    assert (status, f"session-{ID} written" in said) == (0, True), said
    assert (out / f"session-{ID}" / "Default" / "IndexedDB").is_dir()
    status, said = await cli(agent, "export", ID, out, "--to", "wwebjs")
    assert (status, "it exists" in said) == (4, True), said

    await agent.do("DELETE", f"/api/instance/{ID}")
    status, said = await cli(agent, "import", out, ID, "--from", "wwebjs")
    assert status == 0, said
    settings = {"settings": {"url": f"{stand_in.url}?name={ID}"}}
    await agent.do("PATCH", f"/api/instance/{ID}", settings)
    await agent.do("POST", f"/api/instance/{ID}/enable")
    await eventually(lambda: agent.status(ID), "CONNECTED", within=30)
    assert len(stand_in.devices) == 1
    assert not [s for _, s in await agent.story(ID) if "→ QR_REQUIRED" in s][1:]


async def test_a_missing_bundle_is_named_everywhere_and_found_when_it_is_there(
    agent, stand_in, eventually, cache
):
    (cache / "wa-js").rename(cache / "away")
    await create(agent, stand_in)

    async def reason() -> str:
        return str((await agent.show(ID))["reason"])

    await eventually(reason, "bundle_missing", within=30)
    for words in (("list",), ("show", ID), ("why", ID)):
        status, out = await cli(agent, *words)
        assert (status, "wa-js bundle" in out) == (0, True), out
    _, why = await cli(agent, "why", ID)
    assert "wa-agent doctor" in why
    assert any("bundle" in sentence for _, sentence in await agent.story(ID))
    (cache / "away").rename(cache / "wa-js")
    await eventually(lambda: agent.status(ID), "QR_REQUIRED", within=60)


async def test_a_page_that_loads_itself_again_is_a_finding_and_ends_with_its_cause(
    agent, stand_in, eventually
):
    await pair(agent, stand_in, eventually)
    stand_in.reload_every = 2.0
    stand_in.page(ID).tell("navigate", to=f"/?name={ID}")
    seen = set()

    async def is_named() -> bool:
        seen.add((await agent.show(ID))["reason"])
        return "page_reloads" in seen

    await eventually(is_named, within=90)
    stand_in.reload_every = 0
    await eventually(lambda: agent.status(ID), "CONNECTED", within=90)


FRESH_WITHIN = 10.0
"""Seconds from the verdict to the worker that replaces a sick one; a loaded machine gets more."""


async def moments(agent: RunningAgent, kind: str, begins: str) -> list[float]:
    found = (await agent.do("GET", f"/api/instance/{ID}/events?limit=500"))["events"]
    return [
        datetime.fromisoformat(one["time"]).timestamp()
        for one in reversed(found)
        if one["kind"] == kind and one["sentence"].startswith(begins)
    ]


async def test_a5_a_page_that_hangs_has_a_fresh_worker_within_seconds_of_its_verdict(
    make_agent, cache, stand_in, eventually
):
    """The page shows itself connected and answers nothing; nothing is tried inside of it."""
    agent = make_agent(base=SETTINGS.replace("watchdog = 8", "watchdog = 60"))
    await agent.start(env={"CACHE_PATH": str(cache)})
    await pair(agent, stand_in, eventually)
    sick = await agent.pid(ID)
    stand_in.page(ID).tell("hang", seconds=600)

    async def judged():
        return bool(await moments(agent, "verdict", "stuck"))

    async def has_fresh_worker():
        return await agent.pid(ID) not in (0, sick)

    await eventually(judged, within=40)
    await eventually(has_fresh_worker, within=3 * FRESH_WITHIN)
    await eventually(lambda: agent.status(ID), "CONNECTED", within=40)
    seconds = (await moments(agent, "repaired", "restart: done"))[0] - (
        await moments(agent, "verdict", "stuck")
    )[0]
    print(f"a fresh worker {seconds:.1f} s after the verdict")
    assert seconds <= FRESH_WITHIN
    assert not await moments(agent, "repair", "reconnect")
