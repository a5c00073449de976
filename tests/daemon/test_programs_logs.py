"""`wa-agent logs` of a bot under a real agent without systemd."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from tests.daemon.conftest import RunningAgent
from tests.daemon.test_programs import declare

CODE = "2@Zm9vYmFyYmF6cXV4Zm9vYmFy,a2V5,a2V5,a2V5"


async def test_what_a_bot_prints_is_followed_without_secrets(
    make_agent: Callable[..., RunningAgent], eventually: Callable[..., Awaitable[Any]]
) -> None:
    agent = make_agent(declare("tell"))
    await agent.start()
    wanted = {"id": "shop", "engine": "program", "settings": {"program": "tell"}}
    await agent.do("POST", "/api/instance", wanted)
    orders = agent.state / "sessions" / "shop" / "orders"
    await eventually(orders.exists)
    follow = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", "logs", "shop", "-f"),
        env={**os.environ, "WA_AGENT_SOCKET": str(agent.state / "api.sock")},
        stdout=asyncio.subprocess.PIPE,
    )
    assert follow.stdout is not None
    try:
        said = f"print hello till password=hunter2hunter2 {CODE}\nprint the last\n"
        await asyncio.to_thread(orders.write_text, said)
        shown = b""
        async with asyncio.timeout(60):
            while b"the last" not in shown:
                line = await follow.stdout.readline()
                assert line, shown
                shown += line
        assert b"hello till" in shown
        assert b"hunter2" not in shown
        assert CODE.encode() not in shown
    finally:
        follow.kill()
        await follow.wait()
