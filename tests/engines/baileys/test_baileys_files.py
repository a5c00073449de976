"""Files of a session: whole ones and such that come in parts, out to a peer and in from one."""

import base64
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.errors import EngineError
from tests.engines.baileys.conftest import PEER, Bench
from tests.lacking import lacks
from tests.standin.baileys.run import WhatsApp, make_certificate, why_not

pytestmark = pytest.mark.slow

PART = 192 * 1024


@pytest.fixture
def whatsapp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WhatsApp]:
    """With media servers, whose certificate the client trusts."""
    if reason := why_not("baileys"):
        lacks(reason)
    key, certificate = make_certificate(tmp_path)
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(certificate))
    server = WhatsApp(tmp_path / "whatsapp.log", (key, certificate))
    yield server
    server.end()


async def hand_over(bench: Bench, content: bytes) -> dict[str, Any]:
    upload = secrets.token_hex(16)
    for index, start in enumerate(range(0, len(content), PART)):
        data = base64.b64encode(content[start : start + PART]).decode()
        told = {"upload": upload, "index": index, "data": data}
        await bench.engine.command("file_part", told)
    return {"upload": upload, "size": len(content)}


async def arrived(bench: Bench) -> dict[str, Any]:
    heard = await bench.until(lambda: bench.whatsapp.person(PEER).get("heard"))
    return dict(heard[-1]["file"])


MESSAGE = {"to": PEER, "type": "media", "mimetype": "application/pdf", "filename": "offer.pdf"}


async def test_a_file_arrives_as_it_was_whole_or_in_parts(bench: Bench) -> None:
    await bench.pair()
    short = os.urandom(5000)
    message = {**MESSAGE, "content": base64.b64encode(short).decode(), "caption": "the offer"}
    assert (await bench.engine.send(message))["outcome"] == "sent"
    file = await arrived(bench)
    assert (file["kind"], file["size"], file["caption"]) == ("document", 5000, "the offer")
    assert file["sha256"] == hashlib.sha256(short).hexdigest()

    long = os.urandom(16 << 20)
    parts = await hand_over(bench, long)
    assert (await bench.engine.send({**MESSAGE, **parts}))["outcome"] == "sent"
    await bench.until(lambda: len(bench.whatsapp.person(PEER)["heard"]) == 2)
    file = await arrived(bench)
    assert (file["size"], file["filename"]) == (16 << 20, "offer.pdf")
    assert file["sha256"] == hashlib.sha256(long).hexdigest()
    with pytest.raises(EngineError, match="not whole here any more"):
        await bench.engine.send({**MESSAGE, **parts})
