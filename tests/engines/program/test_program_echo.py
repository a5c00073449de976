"""The examples in Python and Go: what they are told is kept, and the agent sends by them."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import EngineError
from tests.engines.program.conftest import ProgramBench
from tests.ports import free_port

EXAMPLES = Path(__file__).parents[3] / "scripts" / "examples"


def python(_folder: Path) -> list[str]:
    return [sys.executable, str(EXAMPLES / "echo_program.py")]


def go(folder: Path) -> list[str]:
    if shutil.which("go") is None:
        pytest.skip("go is not installed: 440 MiB, which scripts/test leaves out for one example")
    files = [str(EXAMPLES / "go" / name) for name in ("echo.go", "wa_program.go")]
    program = folder / "echo_program"
    own = {"GOCACHE": str(folder / "cache"), "GOPROXY": "off", "GOFLAGS": "-mod=mod"}
    build = ["go", "build", "-o", str(program), *files]
    subprocess.run(["go", "vet", *files], check=True, env={**os.environ, **own}, timeout=300)
    subprocess.run(build, check=True, env={**os.environ, **own}, timeout=300)
    return [str(program)]


@pytest.mark.parametrize("example", [python, go])
async def test_the_example_answers_keeps_and_sends(
    bench: ProgramBench, example: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    port = free_port()
    command = await asyncio.to_thread(example, tmp_path)
    bench.run(command=[*command, str(port)], messages=True)
    link = await bench.linked()
    await bench.is_now("CONNECTED")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"4915112345678 hello\n")
    async with asyncio.timeout(20):
        assert await reader.readline() == b"4915112345678 hello\n"
    (record,) = (await link.call("messages", {"after": 0, "limit": 10}))["records"]
    assert (record["text"], record["sender"]) == ("hello", "4915112345678@s.whatsapp.net")

    order = {"type": "text", "to": "4915112345678", "text": "from the agent", "key": "k" * 64}
    answer = await link.call("send", {"message": order})
    assert answer["outcome"] == "sent"
    assert await link.call("send", {"message": order}) == answer
    async with asyncio.timeout(20):
        assert await reader.readline() == b"4915112345678 from the agent\n"
    with pytest.raises(EngineError, match="cannot send media: this program sends text"):
        await link.call("send", {"message": {**order, "type": "media", "key": "m" * 64}})
    writer.close()
    await writer.wait_closed()
    assert await bench.stop() == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("how", ["raises", "refused", "sent"])
async def test_what_failed_after_it_may_have_gone_is_not_sent_again(
    bench: ProgramBench, how: str
) -> None:
    """A library's exception comes after the message as well as before it."""
    bench.run("sends", how, messages=True)
    link = await bench.linked()
    await bench.is_now("CONNECTED")
    order = {"type": "text", "to": "4915112345678", "text": "private words", "key": "k" * 64}
    if how == "refused":
        with pytest.raises(EngineError, match="error that has no code") as told:
            await link.call("send", {"message": order})
        assert told.value.code == "refused"
        assert not {"private", "4915112345678"} & set(str(told.value).split())
        return
    answer = await link.call("send", {"message": order})
    assert answer["outcome"] == ("unknown" if how == "raises" else "sent")
    assert (answer["id"], "private" in str(answer)) == ("", False)
    assert (await link.call("send", {"message": order}))["outcome"] == answer["outcome"]
    assert await bench.file("sent") == "k" * 64 + "\n", "once"
