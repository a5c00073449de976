"""Files that the contacts of a sandbox send, through the worker, the agent and its API."""

import asyncio
import base64
import io
import json
import os
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from tests.world.sending import ID, PATH, connected

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
    return record in [it["id"] for it in (await agent.do("GET", f"{PATH}?limit=500"))["records"]]


async def test_a_file_comes_as_an_attachment_with_its_hash(agent, eventually):
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
    reader, writer = await asyncio.open_unix_connection(agent.state / "api.sock")
    head = f"HEAD {path_of(id)} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    assert (await reader.read()).partition(b"\r\n\r\n")[2] == b"", "it would be the next answer"
    writer.close()
    assert shown["content-type"] == "image/png"
    assert shown["content-disposition"].startswith('attachment; filename="ab.png"')
    assert shown["x-content-type-options"] == "nosniff"
    assert shown["content-length"] == str(len(content))
    assert shown["x-media-sha256"] == record["media"]["sha256"]
    assert (await agent.ask("GET", path_of("m:no")))[1]["error"] == "message_not_found"
    async with client_of(agent) as client:
        answer = await client.get(path_of("3EB0/é", f"?chat={ANN}&wait=0"))
        assert await answer.read() == content


async def test_a_file_that_is_cut_while_it_is_read_ends_its_answer_at_once(agent, eventually):
    await connected(agent, eventually, messages_per_minute=0)
    id = await say_file(agent, os.urandom(8 * MIB))
    await eventually(lambda: has(agent, id))
    async with client_of(agent) as client, asyncio.timeout(20):
        answer = await client.get(path_of(id))
        (file,) = (agent.state / "sessions" / ID / "messages" / "media").iterdir()
        os.truncate(file, 2 * MIB)
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
