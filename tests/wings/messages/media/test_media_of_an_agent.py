"""Files that the contacts of a sandbox send, through the worker, the agent and its API."""

import asyncio
import base64
import io
import json
import os
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from agent.deliver.media import READERS
from tests.daemon.test_vault import cli
from tests.wings.messages.out.sending import ID, PATH, connected, goes_away

ANN = "5511777777777"
MIB = 1 << 20


@asynccontextmanager
async def client_of(agent):
    connector = aiohttp.UnixConnector(str(agent.state / "api.sock"))
    async with aiohttp.ClientSession("http://localhost", connector=connector) as client:
        yield client


async def say_file(agent, content: bytes, **more: Any) -> str:
    """The id of its record, which the session has kept."""
    body = {"contact": ANN, "content": base64.b64encode(content).decode(), **more}
    async with client_of(agent) as client:
        answer = await client.post(
            f"/api/instance/{ID}/sandbox/say",
            data=io.BytesIO(json.dumps(body).encode()),
            headers={"Content-Type": "application/json"},
        )
        assert answer.status == 200, await answer.text()
        return str((await answer.json())["record"])


def path_of(record: str, query: str = "") -> str:
    return f"{PATH}/{quote(record, safe='')}/media{query}"


async def has(agent, record: str) -> bool:
    page = await agent.do("GET", f"{PATH}?limit=500")
    return record in [each["id"] for each in page["records"]]


async def test_a_file_comes_as_an_attachment_with_its_hash(agent, eventually, tmp_path):
    await connected(agent, eventually, messages_per_minute=0)
    content = os.urandom(3 * MIB + 5)
    id = await say_file(
        agent, content, mimetype="image/png", filename="../../a\r\nb.png", message_id="3EB0/é"
    )
    await eventually(lambda: has(agent, id))
    (record,) = (await agent.do("GET", PATH))["records"]
    assert record["media"]["sha256"] == sha256(content).hexdigest()
    assert not [name for name in record if name.startswith("_")]
    async with client_of(agent) as client:
        answer = await client.get(path_of(id))
        assert (answer.status, await answer.read()) == (200, content)
        shown = {name.lower(): text for name, text in answer.headers.items()}
    assert shown["content-type"] == "image/png"
    assert shown["content-disposition"].startswith('attachment; filename="ab.png"')
    assert shown["x-content-type-options"] == "nosniff"
    assert shown["content-length"] == str(len(content))
    assert shown["x-media-sha256"] == record["media"]["sha256"]
    assert (await agent.ask("GET", path_of("m:no")))[1]["error"] == "message_not_found"
    async with client_of(agent) as client:
        answer = await client.get(path_of("3EB0/é", f"?chat={ANN}&wait=0"))
        assert await answer.read() == content

    out = tmp_path / "a.png"
    fetch = ("messages", ID, "--media", id, "--out", out)
    status, said = await cli(agent, *fetch)
    assert status == 0, said
    assert out.read_bytes() == content
    assert (await cli(agent, *fetch))[0] == 4  # it is there


async def test_errors_have_their_codes(agent, eventually):
    await connected(agent, eventually, messages_per_minute=0)
    wrong = {"media": {"sha256": "0" * 64}}
    damaged = await say_file(agent, b"a file", mimetype="image/png", fields=wrong)
    page = await say_file(agent, b"<script>", mimetype="text/html", filename="a.html")
    gone = await say_file(agent, b"will be gone", mimetype="image/png")
    await eventually(lambda: has(agent, gone))
    at_whatsapp = agent.state / "sessions" / ID / "whatsapp" / "media"
    (at_whatsapp / sha256(b"will be gone").hexdigest()).unlink()

    async def code(record: str) -> tuple[int, str]:
        status, answer = await agent.ask("GET", path_of(record))
        return status, answer["error"] if status >= 400 else ""

    assert await code(damaged) == (502, "media_damaged")
    assert await code(gone) == (404, "media_gone")
    assert (await agent.ask("GET", path_of(page, "?wait=61")))[1]["field"] == "wait"
    async with client_of(agent) as client:
        answer = await client.get(path_of(page))
        assert (answer.content_type, await answer.read()) == (
            *("application/octet-stream", b"<script>"),
        )
    large = await say_file(agent, b"x", mimetype="video/mp4", fields={"media": {"size": 65 * MIB}})
    await eventually(lambda: has(agent, large))
    assert await code(large) == (409, "media_too_large")
    late = await say_file(agent, b"too late", mimetype="image/png")
    await eventually(lambda: has(agent, late))
    await goes_away(agent, eventually)
    assert await code(late) == (409, "not_connected")
    async with client_of(agent) as client:  # what is here needs no connection
        assert await (await client.get(path_of(page))).read() == b"<script>"
    await agent.do("POST", f"/api/instance/{ID}/stop")
    await eventually(lambda: code(page), (409, "not_running"))


async def large_file(agent, size: int) -> tuple[str, str]:
    """The id of a record whose file lies on the sandbox's side of WhatsApp; the file's sha256."""
    block = os.urandom(MIB)
    digest = sha256()
    for _ in range(size // MIB):
        digest.update(block)
    fields = {"media": {"size": size, "sha256": digest.hexdigest()}}
    small = os.urandom(8)
    id = await say_file(agent, small, mimetype="video/mp4", fields=fields)
    path = agent.state / "sessions" / ID / "whatsapp" / "media" / sha256(small).hexdigest()
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(block)
    return id, digest.hexdigest()


def begin_counting(pid: int) -> int:
    """Bytes in memory now; from here on the peak is counted."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak_of(pid)


def peak_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


async def test_memory_of_worker_and_agent_is_flat_whatever_the_file(agent, eventually):
    await connected(agent, eventually, messages_per_minute=0)
    pids = (agent.process.pid, await agent.pid(ID))
    first, _ = await large_file(agent, MIB)
    await eventually(lambda: has(agent, first))
    async with client_of(agent) as client:
        await (await client.get(path_of(first))).read()  # both have loaded what they need
        for size in (16 * MIB, 64 * MIB):
            id, digest = await large_file(agent, size)
            await eventually(lambda id=id: has(agent, id))
            before = [begin_counting(pid) for pid in pids]
            found = sha256()
            answer = await client.get(path_of(id, "?wait=60"))
            assert answer.status == 200, await answer.text()
            async for piece in answer.content.iter_chunked(MIB):
                found.update(piece)
            assert found.hexdigest() == digest
            grown = [peak_of(pid) - old for pid, old in zip(pids, before, strict=True)]
            assert all(each < 8 * MIB for each in grown), grown


async def test_who_does_not_read_or_goes_away_is_let_go(make_agent, eventually):
    agent = make_agent()
    agent.first = "import agent.wings.messages.media.routes as r; r.PART_SECONDS = 1.0"
    await agent.start()
    await connected(agent, eventually, messages_per_minute=0)
    content = os.urandom(3 * MIB)
    id = await say_file(agent, content, mimetype="video/mp4")
    await eventually(lambda: has(agent, id))
    status, answer = await agent.ask("GET", path_of(id, "?wait=0"))
    assert (status, answer["error"]) == (503, "media_loading")

    async def ask() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(agent.state / "api.sock", limit=1024)
        writer.write(f"GET {path_of(id)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert b"200 OK" in await reader.readline()
        return reader, writer

    async def status_now() -> int:
        async with client_of(agent) as client, client.get(path_of(id)) as answer:
            return answer.status

    # None of them reads on: a limit of time ends them, and others have their turns then.
    idle = [await ask() for _ in range(READERS)]
    await eventually(status_now, 200)
    reader, got = idle[0][0], 0  # it was the first to be let go
    with suppress(ConnectionError):
        while piece := await reader.read(MIB):
            got += len(piece)
    assert got < len(content)
    for _, writer in idle:
        writer.transport.abort()
    # These go away at once.
    for _ in range(8):
        _, writer = await ask()
        writer.transport.abort()
        await eventually(status_now, 200)
