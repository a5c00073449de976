"""A foreign server's misbehaviours: each ends in time, in little memory, and as a code."""

import asyncio
import gzip
import json
import tracemalloc

import pytest

from agent.backends.http import CONNECT, Answer, Http, ServerDown
from agent.clock import boot_now
from tests.backends.conftest import declare
from tests.backends.hostile import Misbehaviour, answer, hostile, not_http, reset, silent, stream
from tests.ports import free_port

MIB = 1 << 20
KEY = "a-key-that-nobody-may-read"


async def ask(url: str, method: str = "GET", **more: object) -> Answer:
    http = Http(declare(url, key=KEY), {"apikey": KEY})
    try:
        return await http.ask(method, "/any", **more)  # type: ignore[arg-type]
    finally:
        await http.close()


BOMB = gzip.compress(b"[" + b" " * (64 * MIB) + b"]")
BEHAVIOURS: dict[str, tuple[Misbehaviour, str]] = {
    "no answer": (silent, "timeout"),
    "a reset": (reset, "unreachable"),
    "a web page": (answer(b"<html>Welcome to nginx!</html>"), "garbage"),
    "another protocol": (not_http, "garbage"),
    "half an answer": (answer(b'{"a":', length=90), "unreachable"),
    "a large answer": (answer(b" " * (9 * MIB)), "oversized"),
    "an endless stream": (stream(b" " * MIB), "oversized"),
    "a slow endless stream": (stream(b" ", 1.0), "timeout"),
    "many values": (answer(b"[" + b"[]," * 400_000 + b"1]"), "oversized"),
    "deep JSON": (answer(b"[" * 100_000), "garbage"),
    "a bomb": (answer(BOMB, "200 OK", "Content-Encoding: gzip"), "oversized"),
    "no text": (answer(b'{"a": "\xff\xfe"}'), "garbage"),
    "an unknown packing": (answer(b"x", "200 OK", "Content-Encoding: br"), "garbage"),
    "a redirect": (answer(b"{}", "302 Found", "Location: http://127.0.0.1:1/"), "not_found"),
    "an error without JSON": (answer(b"<html>", "502 Bad Gateway"), "failing"),
}


@pytest.mark.parametrize("name", BEHAVIOURS)
async def test_a_misbehaviour_is_a_code_and_costs_no_memory(name: str) -> None:
    (behave, reason), asked = BEHAVIOURS[name], []
    tracemalloc.start()

    async def counted(to: asyncio.StreamWriter) -> None:
        asked.append(to)
        await behave(to)

    async with hostile(counted) as url:
        begun = boot_now()
        with pytest.raises(ServerDown) as caught:
            await ask(url)
        assert caught.value.reason == reason
        assert caught.value.reached and caught.value.code == "backend_down"
        assert boot_now() - begun <= 10.1 and len(asked) == 1
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * MIB


async def test_what_is_not_there_was_not_reached() -> None:
    begun = boot_now()
    with pytest.raises(ServerDown, match=r"GET /any: connection refused$") as caught:
        await ask(f"http://127.0.0.1:{free_port()}")
    assert caught.value.reason == "unreachable" and not caught.value.reached
    assert boot_now() - begun < CONNECT


async def test_an_action_that_outlives_its_task_is_refused() -> None:
    async with hostile(silent) as url:
        http = Http(declare(url, key=KEY), {"apikey": KEY})
        under_way = asyncio.create_task(http.ask("GET", "/any"))
        await asyncio.sleep(1)
        await http.close()
        with pytest.raises(ServerDown):
            await under_way
        with pytest.raises(ServerDown):
            await http.ask("GET", "/any")


async def test_answers_are_read() -> None:
    packed = gzip.compress(b'{"a": 1}')
    async with hostile(answer(packed, "200 OK", "Content-Encoding: gzip")) as url:
        assert (await ask(url)).body == {"a": 1}
    async with hostile(answer(b"")) as url:
        assert (await ask(url)).body is None
    async with hostile(answer(b"<html>", "404 Not Found")) as url:
        refused = await ask(url)
        assert (refused.status, refused.body, refused.good) == (404, None, False)


async def test_no_secret_is_in_a_refusal_or_an_error() -> None:
    number, code = "5511987654321", "ERR_NO_WAPP_FOUND"
    for error in f"{KEY} for {number}", "keywithoutanysign77", code:
        words = json.dumps({"error": error, "message": number}).encode()
        async with hostile(answer(words, "400 Bad Request")) as url:
            refused = await ask(url, "POST", body={"number": number}, query={"q": "text"})
        assert refused.refusal == ("400 " + code if error is code else "400")
        assert KEY not in repr(refused) and number not in repr(refused)
    async with hostile(silent) as url:
        with pytest.raises(ServerDown) as caught:
            await ask(url, query={"number": number})
        assert KEY not in str(caught.value) and number not in str(caught.value)
