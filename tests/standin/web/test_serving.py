"""`python -m tests.standin.web`: the stand-in for people to watch, until they end it."""

import asyncio
import re
import signal
import sys
from pathlib import Path

import aiohttp

REPOSITORY = Path(__file__).parents[3]


async def start(*words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.standin.web", *words),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_the_page_and_its_phone_are_served_until_interrupted() -> None:
    serving = await start("--port", "0")
    assert serving.stdout is not None
    async with asyncio.timeout(60):
        said = (await serving.stdout.readuntil(b"Ctrl-C")).decode()
    url = re.search(r"http://127\.0\.0\.1:[0-9]+/", said)
    assert url is not None, said
    assert f"create webdemo --engine web --set url='{url[0]}?name=webdemo'" in said
    async with aiohttp.ClientSession() as session:
        for path in ("", "phone", "standin.js"):
            async with session.get(url[0] + path) as answer:
                assert answer.status == 200
        port = url[0].rsplit(":", 1)[1].strip("/")
        second = await start("--port", port)
        _, error = await second.communicate()
        assert second.returncode == 4
        assert b"cannot serve the stand-in" in error
    serving.send_signal(signal.SIGINT)
    async with asyncio.timeout(60):
        assert await serving.wait() == 130
