"""The example of a bot in Python: what it is told is kept, and the agent sends by it."""

import asyncio
import socket
import sys
from pathlib import Path

import pytest

from agent.errors import EngineError
from tests.engines.program.conftest import ProgramBench
from tests.ports import free_port

EXAMPLE = Path(__file__).parents[3] / "scripts" / "examples" / "echo_program.py"


async def test_the_example_answers_keeps_and_sends(bench: ProgramBench) -> None:
    port = free_port()
    bench.run(command=[sys.executable, str(EXAMPLE), str(port)], messages=True)
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
