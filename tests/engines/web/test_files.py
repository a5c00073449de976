"""The files of messages that came, loaded by the page and taken from it in pieces."""

import base64
import os
import time
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import pytest

from agent.engines.web import page_calls
from agent.engines.web.page_calls import load_media
from agent.errors import EngineError
from tests.engines.web.test_records import Watched, says, watched
from tests.standin.web.stand_in import StandIn

__all__ = ["watched"]


async def loaded(watched: Watched, record: Mapping[str, Any]) -> bytes:
    content = b""
    async for piece in load_media(watched.page, record):
        assert len(piece) <= page_calls.PIECE
        content += piece
    return content


async def refusal(watched: Watched, record: Mapping[str, Any]) -> str:
    with pytest.raises(EngineError) as error:
        await loaded(watched, record)
    return str(error.value.code)


async def test_the_page_loads_files_and_says_which_are_gone(
    watched: Watched, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    await watched.pair()
    content = os.urandom(2 * page_calls.PIECE + 11)

    def send(id: str, content: bytes, **fields: Any) -> None:
        digest = base64.b64encode(sha256(content).digest()).decode()
        file = {"file": base64.b64encode(content).decode(), "filehash": digest}
        more = {"mimetype": "image/png", "size": len(content), "caption": "look", **fields}
        says(stand_in, id, type="image", fields={**file, **more}, t=int(time.time()))

    send("F1", content)
    send("F2", b"will be gone", lost=True)
    send("F3", b"takes its time", takes=400)
    await watched.record("message", 3)
    by_id = {each["message_id"]: each for each in watched.taken}
    assert by_id["F1"]["media"]["sha256"] == sha256(content).hexdigest()
    assert await loaded(watched, by_id["F1"]) == content
    assert await refusal(watched, by_id["F2"]) == "media_gone"
    nobody = {**by_id["F1"], "_media": {"key": "false_5511777777777@c.us_NOBODY"}}
    assert await refusal(watched, nobody) == "media_gone"
    monkeypatch.setattr(page_calls, "FILE_LOOK", 0.1)  # the page still loads when it is asked first
    assert await loaded(watched, by_id["F3"]) == b"takes its time"

    # A load that its reader gives up leaves room for others.
    for _ in range(6):
        pieces = load_media(watched.page, by_id["F1"])
        while not await anext(pieces):
            pass
        await pieces.aclose()
    assert await loaded(watched, by_id["F1"]) == content
