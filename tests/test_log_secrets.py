"""Every secret that we hold, through every way a line can be written, at DEBUG: none is shown."""

import logging
import socket
import traceback
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from agent.log import LineWriter, as_fields, as_json, as_text, describe
from agent.logfiles import FileWriter
from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent, make_agent

__all__ = ["make_agent"]

SECRETS = {
    "a key": "wak_ab12cd34_Zx-9_yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
    "WhatsApp's QR": "2@lGDC9Jk3lqvCqkZkOTXBz9v+abcd/efgh==,QkFTRTY0S0VZ+a/b=,T1RI==,c2VjcmV0",
    "the sandbox's QR": "sandbox-qr:sales:9f8e7d6c5b4a",
    "a header": "Authorization: Bearer s3cr3t.t0ken.value",
    "an engine's key": '{"apikey": "B6D711FCDE4D4FD5936544120E713976"}',
    "a password in an address": "password=hunter22hunter22",
    "a token in a query": "https://x/?token=abcdef0123456789&y=1",
}
CORES = {
    "a key": "Zx-9_yyyy",
    "WhatsApp's QR": "lGDC9Jk3",
    "the sandbox's QR": "9f8e7d6c5b4a",
    "a header": "s3cr3t",
    "an engine's key": "B6D711FC",
    "a password in an address": "hunter22",
    "a token in a query": "abcdef0123456789",
}


class Holder:
    """Something whose picture holds the secret."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    def __repr__(self) -> str:
        return f"<Holder {self.secret}>"


def records(secret: str) -> list[logging.LogRecord]:
    """The ways in which a text can come into a line."""

    def made(message: str, *args: object, error: BaseException | None = None) -> logging.LogRecord:
        info = None if error is None else (type(error), error, error.__traceback__)
        return logging.LogRecord("agent", logging.DEBUG, "/x.py", 1, message, args, info)

    try:
        try:
            raise ValueError(secret)
        except ValueError as error:
            raise RuntimeError(f"because of {secret}") from error
    except RuntimeError as error:
        chained = error
    group = ExceptionGroup("several", [ValueError(secret), chained])
    noted = ValueError("x")
    noted.add_note(secret)
    return [
        made(secret),
        made("is %s", secret),
        made("is %r", secret),
        made("is %r", {"inside": [secret]}),
        made("is %s", Holder(secret)),
        made("%d of %d", secret),
        made("two\nlines " + secret + "\r\x1b[31m"),
        made("failed", error=chained),
        made("failed", error=group),
        made("failed", error=noted),
        made(traceback.format_exc() + secret),
        made("x" * 200 + " " + secret + " " + "y" * 200),
    ]


@pytest.mark.parametrize("kind", SECRETS)
def test_no_secret_in_any_form_of_any_line(kind: str, tmp_path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(tmp_path / "journal"))
    journal = LineWriter(2, "text", to_journal=True, journal_path=str(tmp_path / "journal"))
    files = [
        FileWriter(tmp_path / f"{form}.log", form, max_bytes=1 << 20, keep=1)
        for form in ("text", "json")
    ]
    core = CORES[kind]
    with (tmp_path / "stderr").open("wb") as stream:
        lines = [LineWriter(stream.fileno(), form, to_journal=False) for form in ("text", "json")]
        for record in records(SECRETS[kind]):
            described = describe(record)
            for shown in (
                as_text(record, *described),
                as_json(record, *described),
                as_fields(record, *described).decode("utf-8", "replace"),
            ):
                assert core not in shown
                assert "removed" in shown, "it was there, and taken out"
            for writer in (journal, *lines, *files):
                writer.emit(record)
            assert core.encode() not in listening.recv(1 << 17)
    for name in ("stderr", "text.log", "json.log"):
        text = (tmp_path / name).read_text()
        assert core not in text
        assert text.count("removed") >= len(records(SECRETS[kind]))
    journal.close()
    for one in files:
        one.close()
    listening.close()


TEXT = "a-very-private-message-7731"
CAPTION = "a-very-private-caption-7732"
FORGED = "wak_aaaaaaaa_" + "forged7733" * 4


async def test_a_running_agent_at_debug_writes_no_secret_anywhere(
    make_agent: Callable[..., RunningAgent], tmp_path: Path, eventually: Eventually
) -> None:
    logs = tmp_path / "logs"
    agent = make_agent(f'\n[log]\nfolder = "{logs}"\nperformance_interval = 1\n')
    agent.config.write_text(
        agent.config.read_text().replace("[agent]", '[agent]\nlog_level = "debug"')
    )
    agent.listen = "127.0.0.1:0"
    await agent.start()
    key = (await agent.do("POST", "/api/keys", {"name": "shop", "scopes": ["admin"]}))["token"]
    await agent.create("sales", scan="manual", messages_per_minute=600)
    await eventually(lambda: agent.status("sales"), "QR_REQUIRED")
    code = (await agent.do("GET", "/api/instance/sales/qr"))["qr"]
    await agent.do("POST", "/api/instance/sales/sandbox/scan", {})
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    send = "/api/instance/sales/messages"
    await agent.do("POST", send, {"to": "5511999", "text": TEXT})
    await agent.ask(
        "POST", send, {"to": "5511999", "type": "media", "mimetype": "x/y", "caption": CAPTION}
    )
    await agent.ask("POST", send, {"to": "5511999", "text": 7, TEXT: CAPTION})
    await agent.fault("sales", "drop", 0.5)
    await agent.ask("POST", send, {"to": "5511999", "text": TEXT})
    connector = aiohttp.UnixConnector(str(agent.state / "api.sock"))
    async with aiohttp.ClientSession(connector=connector) as session:
        for token in (key, FORGED):
            header = {"Authorization": f"Bearer {token}"}
            await session.post(f"http://x/api/instance/sales/restart?token={token}", headers=header)
            await session.post("http://x/api/instance/sales/health", json={}, headers=header)
            await session.get(f"http://x/{token}", headers=header)
            await session.post(f"http://x/api/instance/sales/{token}", json={}, headers=header)
    await agent.fault("sales", "crash")
    await eventually(lambda: "status=" in (logs / "performance.log").read_text())
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    await agent.do("POST", "/api/instance/sales/recover", {})
    await agent.stop()

    audit = (logs / "audit.log").read_text()
    assert "POST /api/instance → 201 /api/instance/sales" in audit
    assert "key shop: POST /api/instance/sales/health → 200" in audit
    written = [agent.log, *logs.iterdir(), *agent.state.rglob("*.log")]
    assert (logs / "repairs.log") in written
    # The journal is on the disk, too, and is shown on the dashboard.
    for path in (*written, *agent.state.glob("agent.db*")):
        raw = path.read_bytes()
        for secret in (key[13:], code[-24:], TEXT, CAPTION, "forged7733"):
            assert secret.encode() not in raw, (path, secret)
