"""A session paired at a desk in a real, visible Chromium, given to a real agent by invitation."""

import asyncio
import contextlib
import io
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import aiohttp
import pytest

from agent.core.invitation_line import HEADER, Invitation, parse_invitation
from agent.core.model import InstanceId
from agent.engines.web.browser.arguments import find_browser
from agent.engines.web.fetch import fetch_bundle
from agent.errors import ConfigError, EngineError
from agent.wings.desk.hand_over import seal_session
from tests.daemon.conftest import RunningAgent
from tests.daemon.test_vault import cli
from tests.daemon.test_web import SETTINGS
from tests.lacking import lacks
from tests.ports import free_port
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
        find_browser("chromium")
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
    """One that desks reach over TCP."""
    address = f"127.0.0.1:{free_port()}"
    one: RunningAgent = make_agent(f'\n[api]\npublic_url = "http://{address}"\n', base=SETTINGS)
    one.listen = address
    shutil.copytree(cache / "wa-js", tmp_path / "cache" / "wa-js")
    await one.start(env={"CACHE_PATH": str(tmp_path / "cache")})
    return one


class Person:
    """A person at a desk: a display, a browser with an authenticator of their own, a phone."""

    def __init__(self, home: Path, display: str, cache: Path, stand_in: StandIn) -> None:
        self.home, self.stand_in = home, stand_in
        self.folders = home / "wa-agent" / "desk"
        browser = home / "browser"
        browser.parent.mkdir(exist_ok=True)
        program = find_browser("chromium").path
        # A second way in, beside the pipe that the program under test holds.
        browser.write_text(f'#!/bin/sh\nexec {program} --remote-debugging-port=0 "$@"\n')
        browser.chmod(0o755)
        self.env = {
            **{name: text for name, text in os.environ.items() if not name.startswith("WA_")},
            **{"DISPLAY": display, "WA_BROWSER": str(browser), "XDG_DATA_HOME": str(home)},
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
        for file in self.folders.glob("*/session/profile/DevToolsActivePort"):
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
        """What the program said until then."""
        assert desk.stdout is not None
        said = b""
        async with asyncio.timeout(90):
            while words not in said:
                said += await desk.stdout.readuntil(b"\n")
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
def person(tmp_path: Path, display: str, cache: Path, stand_in: StandIn) -> Person:
    return Person(tmp_path / "home", display, cache, stand_in)


async def invite(agent: RunningAgent, person: Person) -> str:
    """The line that `create --invite` prints."""
    url = person.page.replace("=desk", f"={ID}")
    status, out = await cli(
        agent, "create", ID, "--engine", "web", "--set", f"url={url}", "--invite"
    )
    assert status == 0, out
    return next(line for line in out.splitlines() if line.startswith("wap1:"))


async def test_a_person_with_a_passkey_pairs_from_the_invitation_to_connected(
    agent: RunningAgent, person: Person, eventually: Any
) -> None:
    line = await invite(agent, person)
    assert (agent.state / "pairing.key").stat().st_mode & 0o777 == 0o600
    desk = await person.pair("--to", line, "--page", person.page, "--wait", 60)
    await person.links(desk, eventually)
    out = (await desk.communicate())[0].decode()
    assert (desk.returncode, f"{ID} is connected" in out) == (0, True), out
    assert "asks for your passkey" in out
    assert await agent.status(ID) == "CONNECTED"
    shown = await agent.show(ID)
    assert (shown["account"], shown["enabled"], shown["needs_passkey"]) == (ACCOUNT, True, True)
    assert list(person.folders.iterdir()) == [], "what the agent runs is nowhere else"
    kinds = [kind for kind, _ in await agent.story(ID)]
    assert {"invited", "imported", "invite_used"} <= set(kinds)
    token = parse_invitation(line, ID).token
    assert token not in agent.log.read_text() + out
    assert not any(token.encode() in path.read_bytes() for path in agent.state.glob("agent.db*"))

    again = await person.pair("--to", line, "--page", person.page)
    out = (await again.communicate())[0].decode()
    assert (again.returncode, "used already" in out) == (4, True), out


# what is refused, and nothing of it is left


def paired_folder(folder: Path) -> Path:
    """The files of a session as far as anybody but WhatsApp can judge them."""
    store = folder / "profile/Default/IndexedDB/http_localhost_1.indexeddb.leveldb"
    store.mkdir(parents=True)
    (store / "CURRENT").write_text("MANIFEST-000001\n")
    (store / "MANIFEST-000001").write_bytes(os.urandom(100))
    (folder / "web.json").write_text('{"version": 1, "paired": true, "account": "55", "page": ""}')
    return folder


def sealed(session: Path, invitation: Invitation) -> bytes:
    out = io.BytesIO()
    seal_session(session, invitation, out)
    return out.getvalue()


@dataclass
class Desks:
    """A client that sends to an agent with instances that wait for it."""

    agent: RunningAgent

    async def send(self, content: bytes, door: str, id: str = ID) -> tuple[int, str]:
        connector = aiohttp.UnixConnector(str(self.agent.state / "api.sock"))
        headers = {HEADER: door, "Content-Type": "application/octet-stream"}
        where = f"http://localhost/api/instance/{id}/pairing"
        async with aiohttp.ClientSession(connector=connector) as desk:
            answer = await desk.post(where, data=io.BytesIO(content), headers=headers)
            return answer.status, (await answer.json()).get("error", "")

    @contextlib.asynccontextmanager
    async def begun(self, content: bytes, door: str) -> AsyncIterator[asyncio.StreamReader]:
        """An upload of a gigabyte of which only this content comes, and its answer."""
        reader, writer = await asyncio.open_unix_connection(str(self.agent.state / "api.sock"))
        head = [
            f"POST /api/instance/{ID}/pairing HTTP/1.1",
            *("Host: localhost", f"{HEADER}: {door}", "Content-Length: 1000000000"),
            "Content-Type: application/octet-stream",
        ]
        writer.write(("\r\n".join(head) + "\r\n\r\n").encode() + content)
        await writer.drain()
        try:
            yield reader
        finally:
            writer.close()

    async def invited(self, id: str = ID) -> Invitation:
        made = await self.agent.do("POST", f"/api/instance/{id}/invite")
        return parse_invitation(made["line"], InstanceId(id))


@pytest.fixture
async def desks(make_agent: Any) -> Desks:
    agent = make_agent("\n[sessions]\nimport_unpacked = 1048576\nimport_files = 100\n")
    await agent.start()
    for id, engine in ((ID, "web"), ("other", "web"), ("box", "sandbox")):
        body = {"id": id, "engine": engine, "enabled": False}
        await agent.do("POST", "/api/instance", body)
    return Desks(agent)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return paired_folder(tmp_path / "good")


async def test_an_upload_without_the_token_is_refused_before_its_rest_is_read(
    desks: Desks, good: Path
) -> None:
    """Who reads the network along knows the door, and not the token."""
    line = await desks.invited()
    for content, status in (
        (sealed(good, replace(line, token="x" * 43)), b" 401 "),
        (b"\x1f\x8b" + bytes(1000), b" 400 "),
    ):
        async with desks.begun(content, line.door) as answer, asyncio.timeout(60):
            assert status in await answer.readline(), "no further byte was needed"


async def test_a_file_of_a_desk_is_imported_once_where_it_belongs(
    desks: Desks, good: Path, tmp_path: Path
) -> None:
    agent, line, file = desks.agent, await desks.invited(), tmp_path / "shop.wa-sealed"
    file.write_bytes(sealed(good, line))
    status, out = await cli(agent, "import", file, "other")
    assert (status, "sealed for instance shop" in out) == (4, True), out
    status, out = await cli(agent, "import", file, "--dry-run")
    assert (status, "sealed for an agent" in out) == (4, True), out
    status, out = await cli(agent, "import", file, "--json")
    assert status == 0 and json.loads(out)["enabled"] is True, out
    status, out = await cli(agent, "import", file)
    assert (status, "used already" in out) == (4, True), out

    line = await desks.invited("other")
    file.write_bytes(sealed(good, replace(line, token="")))
    status, out = await cli(agent, "import", file)
    assert status == 0, out
    status, out = await cli(agent, "import", file)
    assert (status, "paired already" in out) == (4, True), out
    refused = await desks.send(sealed(good, line), line.door, "other")
    assert refused == (409, "already_paired"), "another desk paired it meanwhile"
