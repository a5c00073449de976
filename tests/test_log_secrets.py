"""Every secret that we hold, through every way a line can be written, at DEBUG: none is shown."""

import json
import logging
import re
import socket
import traceback
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import get_args, get_type_hints

import aiohttp
import pytest

from agent.backends.whaticket.contract import BackendSettings
from agent.config.config import BackendDeclaration, Config
from agent.core.setting import settings_of
from agent.log import LineWriter, as_fields, as_json, as_text, describe
from agent.logfiles import FileWriter
from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent, make_agent
from tests.defaults import changed

__all__ = ["make_agent"]

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyIjoianduLWNvcmUifQ.c2lnLWp3bi1jb3Jl"
SECRETS = {
    # what it is: the text, and pieces of which none may be seen
    "a key": ("wak_ab12cd34_Zx-9_yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy", "Zx-9_yyyy"),
    "WhatsApp's QR": (
        "2@lGDC9Jk3lqvCqkZkOTXBz9v+abcd/efgh==,QkFTRTY0S0VZ+a/b=,T1RI==,c2VjcmV0",
        "lGDC9Jk3 QkFTRTY0 c2VjcmV0",
    ),
    "a QR as a link": ("https://wa.me/settings/linked_devices#2@corecore,abcd", "corecore"),
    "a QR as a picture": ("data:image/png;base64,iVBORw0KGgoAAAcore==", "iVBORw0 core"),
    "the sandbox's QR": ("sandbox-qr:sales:9f8e7d6c5b4a", "9f8e7d6c5b4a"),
    "a pairing code": ("pairing code ABCD-1234", "ABCD 1234"),
    "a pairing code in an answer": ('{"pairingCode": "WZYEH1YY", "count": 1}', "WZYEH1YY"),
    "a header": ("Authorization: Bearer s3cr3t.t0ken.value", "s3cr3t t0ken"),
    "a browser's header": ("authorization: Basic YWRtaW46aHVudGVy", "YWRtaW46"),
    "an engine's key": ('{"apikey": "B6D711FCDE4D4FD5936544120E713976"}', "B6D711FC"),
    "a password": ("password=hunter22hunter22", "hunter22"),
    "a password of two words": ('{"password": "zwei worte hier"}', "zwei worte hier"),
    "a password with a quote": (r'{"password": "zwei \"mehr\" worte"}', "zwei mehr worte"),
    "a password in a text in a text": (
        r'{"body": "{\"password\": \"zwei \\\"mehr\\\" worte\"}"}',
        "zwei mehr worte",
    ),
    "a password of a picture": ("{'password': \"it's zwei worte\"}", "it's zwei worte"),
    "a password with a name before it": ("whaticket_password=hunter22", "hunter22"),
    "a token in a query": ("https://x/?token=abcdef0123456789&y=1", "abcdef0123456789"),
    "another token in a query": ("GET /x?access_token=abcdef0123&y=1", "abcdef0123"),
    "a token as a name in one word": ("accessToken=abcdef0123", "abcdef0123"),
    "a token to renew": ("{'refreshToken': 'abc.def.ghi'}", "abc def ghi"),
    "a token of whaticket": (f"logged in with {JWT}", "eyJ1c2Vy c2lnLWp3"),
    "a cookie of whaticket": (f"Set-Cookie: jrt={JWT}; Path=/; HttpOnly", "eyJ1c2Vy c2lnLWp3"),
    "any cookie": ("'Cookie': 'session=corecore; other=more-core'", "corecore more-core"),
    "Redis' address": ("redis://:hunter22@host:6379/0", "hunter22"),
    "a password with a sign": ("redis://user:hun@ter22@host:6379/0", "hun ter22"),
    "a proxy's address": ("http://admin:topsecret@proxy:3128", "topsecret"),
    "an Alertmanager's address": ("cannot reach https://ops:topsecret@am/api/v2", "topsecret"),
    "a session's keys": (
        '{"noiseKey":{"private":{"type":"Buffer","data":"Y29yZWNvcmU="}}}',
        "Y29yZWNvcmU",
    ),
    "a session's keys as node shows them": (
        "SessionEntry { rootKey: <Buffer 05 a1 b2 c3 d4 ... 12 more bytes>, x: 1 }",
        "a1~b2~c3",
    ),
    "a session's keys as numbers": ("{'type': 'Buffer', 'data': [5, 161, 178, 195]}", "161,~178"),
    "the secret of a pairing": ('"advSecretKey":"c2VjcmV0IGtleQ=="', "c2VjcmV0"),
}
_CORE = "hunter22-core"


def _fields_of_secrets() -> Iterator[tuple[str, bool]]:
    """Name of each field that holds a secret, and whether it is one in an address."""
    for told in get_type_hints(Config).values():
        for part in (told, *get_args(told)):
            if is_dataclass(part):
                for one, mark in settings_of(part):
                    if mark.secret or mark.credentials:
                        yield one.name, mark.credentials
    for part in (BackendDeclaration, BackendSettings):
        for one, mark in settings_of(part):
            if mark.secret or mark.credentials:
                yield one.name, mark.credentials


def _ways_to_say(name: str, in_address: bool) -> Iterator[str]:
    value = f"redis://:{_CORE}@host/0" if in_address else f"{_CORE} and-more"
    yield f'{name} = "{value}"'
    yield json.dumps({"backend": {name: value, "port": 7}})
    yield json.dumps({"body": json.dumps({name: value})})


for _name, _in_address in sorted(set(_fields_of_secrets())):
    for _number, _text in enumerate(_ways_to_say(_name, _in_address), start=1):
        _cores = " ".join(core for core in (_CORE, "and-more") if core in _text)
        SECRETS[f"setting {_name}, {_number}"] = (_text, _cores)


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


def seen(cores: list[str], text: str) -> list[str]:
    """The path of this file is in each traceback, and its letters are anybody's."""
    text = text.replace(__file__, "")
    return [core for core in cores if core in text]


@pytest.mark.parametrize("kind", SECRETS)
def test_no_secret_in_any_form_of_any_line(kind: str, tmp_path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(tmp_path / "journal"))
    journal = LineWriter(2, "text", to_journal=True, journal_path=str(tmp_path / "journal"))
    files = [
        FileWriter(tmp_path / f"{form}.log", form, max_bytes=1 << 20, keep=1)
        for form in ("text", "json")
    ]
    text, cores = SECRETS[kind][0], [one.replace("~", " ") for one in SECRETS[kind][1].split()]
    assert all(core in text for core in cores)
    with (tmp_path / "stderr").open("wb") as stream:
        lines = [LineWriter(stream.fileno(), form, to_journal=False) for form in ("text", "json")]
        for record in records(text):
            described = describe(record)
            for shown in (
                as_text(record, *described),
                as_json(record, *described),
                as_fields(record, *described).decode("utf-8", "replace"),
            ):
                assert not seen(cores, shown), shown
                assert "removed" in shown, "it was there, and taken out"
            for writer in (journal, *lines, *files):
                writer.emit(record)
            assert not seen(cores, listening.recv(1 << 17).decode("utf-8", "replace"))
    for name in ("stderr", "text.log", "json.log"):
        written = (tmp_path / name).read_text()
        assert not seen(cores, written)
        assert written.count("removed") >= len(records(text))
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
    logs = tmp_path / "new/logs"
    agent = make_agent(f'\n[log]\nfolder = "{logs}"\n')
    agent.first = changed("agent.config.config.LogSection", performance_interval=1.0)
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
    send = "/api/instance/sales/messages?wait=30"
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
    worker = await agent.running_pid("sales")
    await agent.fault("sales", "crash")
    await eventually(lambda: "status=" in (logs / "performance.log").read_text())
    await eventually(lambda: agent.is_back("sales", worker))
    await agent.do("POST", "/api/instance/sales/recover", {})
    await agent.stop()

    audit = (logs / "audit.log").read_text()
    assert "POST /api/instance → 201 /api/instance/sales" in audit
    assert re.search(r"key shop from uid \d+: POST /api/instance/sales/health → 200", audit)
    kept = list(agent.state.glob("sessions/*/messages/*"))
    assert any(TEXT.encode() in path.read_bytes() for path in kept), "here alone texts are kept"
    written = {agent.log, *logs.iterdir(), *agent.state.rglob("*.log")} - {*kept}
    assert (logs / "repairs.log") in written
    for path in (logs.parent, *logs.parent.rglob("*"), agent.state, *agent.state.rglob("*")):
        assert not path.stat().st_mode & 0o007, path
    # The journal is on the disk, too, and is shown on the dashboard.
    for path in (*written, *agent.state.glob("*.db*")):
        raw = path.read_bytes()
        for secret in (key[13:], code[-24:], TEXT, CAPTION, "forged7733"):
            assert secret.encode() not in raw, (path, secret)
