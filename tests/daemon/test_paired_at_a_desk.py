"""A session paired at a desk in a real, visible Chromium, imported by a real agent."""

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import aiohttp
import pytest

from agent.engines.web.browser.process import find_browser
from agent.engines.web.fetch import fetch_bundle
from agent.errors import ConfigError, EngineError
from tests.daemon.conftest import RunningAgent, cli, done
from tests.in_memory import folder_in_memory
from tests.lacking import lacks
from tests.standin.web.stand_in import StandIn

pytestmark = pytest.mark.slow

ACCOUNT = "5511999999999"
ID = "shop"
NEW_PASSKEY = """navigator.credentials.create({publicKey: {
  challenge: new Uint8Array(32), rp: {name: 'a stand-in', id: 'localhost'},
  user: {id: new Uint8Array([1]), name: 'ann', displayName: 'Ann'},
  pubKeyCredParams: [{type: 'public-key', alg: -7}],
  authenticatorSelection: {residentKey: 'required', userVerification: 'required'},
}}).then((made) => made.type)"""


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    if shutil.which("Xvfb") is None:
        lacks("Xvfb is not installed")
    read, write = os.pipe()
    line = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1200x900x24", "-nolisten", "tcp"]
    with Popen(line, pass_fds=[write], stdout=DEVNULL, stderr=DEVNULL) as server:
        os.close(write)
        with os.fdopen(read) as said:
            yield f":{said.readline().strip()}"
        server.terminate()


@pytest.fixture(scope="module")
def cache() -> Path:
    kept = Path(os.environ.get("WA_CACHE_PATH", Path(__file__).parents[3] / ".cache"))
    try:
        find_browser("chromium", os.environ.get("WA_BROWSER", ""))
        fetch_bundle(kept)
    except (ConfigError, EngineError) as error:
        lacks(str(error))
    return kept


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    found = await StandIn.open(qr_every=300, alive_every=0.5)
    found.passkey, found.passkey_limit = "ask", 60.0
    yield found
    await found.close()


@pytest.fixture
async def agent(make_agent: Any, cache: Path, tmp_path: Path) -> RunningAgent:
    one: RunningAgent = make_agent()
    shutil.copytree(cache / "wa-js", tmp_path / "cache" / "wa-js")
    await one.start(env={"CACHE_PATH": str(tmp_path / "cache"), "WA_AGENT_HEALTH__DEEP": "2"})
    return one


class Person:
    """A person at a desk: a display, a browser with an authenticator of their own, a phone."""

    def __init__(self, home: Path, display: str, cache: Path, stand_in: StandIn) -> None:
        self.home, self.stand_in = home, stand_in
        self.folders = home / f"wa-agent-{os.geteuid()}-"
        browser = home / "browser"
        program = find_browser("chromium", os.environ.get("WA_BROWSER", "")).path
        # A second way in, beside the pipe that the program under test holds.
        browser.write_text(f'#!/bin/sh\nexec {program} --remote-debugging-port=0 "$@"\n')
        browser.chmod(0o755)
        self.env = {
            **{name: text for name, text in os.environ.items() if not name.startswith("WA_")},
            **{"DISPLAY": display, "WA_BROWSER": str(browser), "TMPDIR": str(home)},
            "WA_CACHE_PATH": str(cache),
        }

    @property
    def page(self) -> str:
        return self.stand_in.url.replace("127.0.0.1", "localhost") + "?name=desk"

    async def pair(self, *words: object) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agent", "pair", *map(str, words)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self.env,
        )

    def browser_port(self) -> int:
        for file in self.home.glob("wa-agent-*/session/profile/DevToolsActivePort"):
            with contextlib.suppress(ValueError, OSError):
                return int(file.read_text().split()[0])
        return 0

    @contextlib.asynccontextmanager
    async def authenticator(self) -> AsyncIterator[None]:
        """DevTools' virtual authenticator with a passkey, for as long as the page is open."""
        async with aiohttp.ClientSession() as http:
            listed = await (
                await http.get(f"http://127.0.0.1:{self.browser_port()}/json/list")
            ).json()
            at = next(one["webSocketDebuggerUrl"] for one in listed if one["type"] == "page")
            async with http.ws_connect(at) as page:

                async def call(method: str, **params: Any) -> Any:
                    await page.send_json({"id": 1, "method": method, "params": params})
                    while "id" not in (said := await page.receive_json()):
                        pass
                    assert "error" not in said, said
                    return said["result"]

                await call("WebAuthn.enable")
                options = {
                    **{"protocol": "ctap2", "transport": "internal", "hasResidentKey": True},
                    **{"hasUserVerification": True, "isUserVerified": True},
                    "automaticPresenceSimulation": True,
                }
                await call("WebAuthn.addVirtualAuthenticator", options=options)
                made = await call(
                    "Runtime.evaluate",
                    **{"expression": NEW_PASSKEY, "awaitPromise": True, "userGesture": True},
                )
                assert made["result"].get("value") == "public-key", made
                yield

    async def reads(self, desk: asyncio.subprocess.Process, words: bytes) -> bytes:
        """Return the program's output up to `words`."""
        assert desk.stdout is not None
        said = b""
        async with asyncio.timeout(90):
            while words not in said:
                said += (line := await desk.stdout.readline())
                assert line, said
        return said

    async def links(self, desk: asyncio.subprocess.Process, eventually: Any) -> None:
        """As soon as the program says that the code is there to be scanned."""
        await self.reads(desk, b"link the phone")
        async with self.authenticator():
            assert not self.headless()
            self.stand_in.scan(ACCOUNT, "desk")
            await eventually(lambda: ACCOUNT in self.stand_in.devices.values())

    def headless(self) -> bool:
        lines = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # any process of the machine may end meanwhile
                lines.append(path.read_bytes())
        ours = [line for line in lines if bytes(self.folders) in line and b"--type=" not in line]
        assert ours
        return any(b"--headless" in line for line in ours)


@pytest.fixture
def person(display: str, cache: Path, stand_in: StandIn) -> Iterator[Person]:
    # Short, for the browser makes a socket below it; in memory, as agents' folders are.
    with folder_in_memory() as home:
        yield Person(home, display, cache, stand_in)


async def test_a_person_with_a_passkey_pairs_at_a_desk_and_the_server_connects(
    agent: RunningAgent, person: Person, eventually: Any, tmp_path: Path
) -> None:
    url = person.page.replace("=desk", f"={ID}")
    body = {"id": ID, "engine": "web", "settings": {"url": url}, "enabled": False}
    await agent.do("POST", "/api/instance", body)
    file = tmp_path / f"{ID}.tar.gz"
    desk = await person.pair("--out", file, "--page", person.page)
    await person.links(desk, eventually)
    out = (await desk.communicate())[0].decode()
    assert (desk.returncode, "asks for your passkey" in out) == (0, True), out
    assert file.stat().st_mode & 0o777 == 0o600
    assert not list(person.home.glob("wa-agent-*/*")), "what the agent runs is nowhere else"

    status, out = await cli(agent, "import", file)
    assert (status, "it exists" in out) == (4, True), out
    await done(agent, "import", file, "--replace", "--enable")
    await eventually(lambda: agent.status(ID), "CONNECTED", within=60)
    shown = await agent.show(ID)
    assert (shown["account"], shown["enabled"], shown["needs_passkey"]) == (ACCOUNT, True, True)
