"""Debian's own Prometheus and Alertmanager on loopback ports, beside a real agent."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.daemon.conftest import RunningAgent, make_agent
from tests.listener import listening
from tests.ports import free_port

__all__ = ["make_agent"]


@dataclass
class MailServer:
    """Takes every mail, without TLS, as one on the machine itself does."""

    address: str = ""
    mails: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        while line := await reader.readline():
            word = line[:4].upper()
            if word == b"DATA":
                writer.write(b"354 go on\r\n")
                text = await reader.readuntil(b"\r\n.\r\n")
                mail = message_from_bytes(text, policy=default)
                parts = [part.get_content() for part in mail.walk() if not part.is_multipart()]
                self.mails.append("\n".join([f"Subject: {mail['Subject']}", *parts]))
            writer.write(b"221 bye\r\n" if word == b"QUIT" else b"250 well\r\n")
            if word == b"QUIT":
                break
        writer.close()

    def about(self, *words: str) -> list[str]:
        """The mails that hold all of these words."""
        return [mail for mail in self.mails if all(word in mail for word in words)]


@pytest.fixture
async def mail_server() -> AsyncIterator[MailServer]:
    found = MailServer()
    async with listening(found.serve) as port:
        found.address = f"127.0.0.1:{port}"
        yield found


@dataclass
class Receiver:
    """The receivers: the webhook, the chat and the mail of the example."""

    url: str
    heard: list[dict[str, Any]] = field(default_factory=list)
    """Every alert of every notification of the webhook, in their order."""
    chats: list[str] = field(default_factory=list)
    heartbeats: int = 0
    mail: MailServer = field(default_factory=MailServer)

    def all_about(self, name: str, status: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """What Prometheus and what the agent itself raised; None until both were heard."""
        found = [
            alert
            for alert in self.heard
            if alert["labels"]["alertname"] == name and alert["status"] == status
        ]
        theirs = [alert for alert in found if "instance" in alert["labels"]]
        own = [alert for alert in found if "instance" not in alert["labels"]]
        return (theirs[0], own[0]) if theirs and own else None


@pytest.fixture
async def receiver(mail_server: MailServer) -> AsyncIterator[Receiver]:
    found = Receiver("", mail=mail_server)

    async def alerts(request: web.Request) -> web.Response:
        found.heard += (await request.json())["alerts"]
        return web.Response()

    async def chat(request: web.Request) -> web.Response:
        found.chats.append(json.dumps(await request.json()))
        return web.Response(text="ok")

    async def heartbeat(_: web.Request) -> web.Response:
        found.heartbeats += 1
        return web.Response()

    app = web.Application()
    app.router.add_post("/alerts", alerts)
    app.router.add_post("/chat", chat)
    app.router.add_post("/heartbeat", heartbeat)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    found.url = f"http://127.0.0.1:{port}"
    yield found
    await runner.cleanup()


StartServer = Callable[..., Any]


@pytest.fixture
async def start_server(tmp_path: Path) -> AsyncIterator[StartServer]:
    """Start a server that keeps running until the test ends; its log is shown when it fails."""
    started: list[asyncio.subprocess.Process] = []

    async def start(name: str, *argv: str) -> None:
        assert shutil.which(name), f"{name} is missing; scripts/test installs its package"
        with (tmp_path / f"{name}.log").open("wb") as log:
            started.append(
                await asyncio.create_subprocess_exec(name, *argv, stdout=log, stderr=log)
            )

    yield start
    for process in started:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
    for file in tmp_path.glob("*.log"):
        print(f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}")


async def run_program(agent: RunningAgent, *argv: str) -> tuple[int, str]:
    """`wa-agent ARGV` as an operator would run it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", *argv, "--socket", str(agent.state / "api.sock")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def fetch(url: str) -> str:
    """An answer's text; "" while no answer is good."""
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return await answer.text() if answer.status == 200 else ""
    except aiohttp.ClientError:
        return ""
