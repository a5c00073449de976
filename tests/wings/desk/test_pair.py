"""`wa-agent pair` without a browser: what it asks before, and how it gives a session away."""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent.cli.main import run
from agent.core.invitation_line import HEADER, Invitation
from agent.core.model import InstanceId
from agent.errors import AgentUnreachable, ConfigError, Refused, TryLater
from agent.vault.archives.seal import Unsealed, make_key
from agent.vault.archives.unpack import read_archive_manifest
from agent.vault.archives.untar import Limits
from agent.wings.desk import hand_over
from agent.wings.desk.browser import find_visible_browser, need_display

ID = InstanceId("sales")


@dataclass
class Server:
    """Plays the agent: `answers` are given one after the other, the last one again and again."""

    url: str = ""
    answers: dict[str, list[Any]] = field(default_factory=dict)
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    doors: set[str] = field(default_factory=set)

    def answer(self, method: str) -> Any:
        waiting = self.answers[method]
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    played = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            played.asked.append((self.command, body))
            played.doors.add(self.headers[HEADER])
            answer = played.answer(self.command)
            if answer is None:
                return  # the connection ends without an answer
            status, said = answer(body) if callable(answer) else answer
            raw = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None: ...

    monkeypatch.setattr(hand_over, "_TRIES", (0.0, 0.01, 0.01))
    monkeypatch.setattr(hand_over, "_LOOK_EVERY", 0.01)
    monkeypatch.setattr(hand_over, "_SETTLED", 0.05)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        played.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield played
        http.shutdown()
        thread.join()


@pytest.fixture
def invitation(server: Server, tmp_path: Path) -> Invitation:
    return Invitation(ID, make_key(tmp_path / "pairing.key"), "a token", server.url)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder = tmp_path / "sales.20260115T103000Z"
    store = folder / "session/profile/Default/IndexedDB/x.indexeddb.leveldb"
    store.mkdir(parents=True)
    (store / "CURRENT").write_text("MANIFEST-000001\n")
    (store / "MANIFEST-000001").write_bytes(bytes(9))
    note = {"version": 1, "paired": True, "account": "4915112345678", "page": ""}
    (folder / "session/web.json").write_text(json.dumps(note))
    (folder / "needs-passkey").touch()
    return folder


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a new profile would lie."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data"


UNUSED = (200, {"used": False, "connection_status": "DISCONNECTED", "reason": "", "sentence": ""})
CONNECTED = (200, {"used": True, "connection_status": "CONNECTED", "reason": "", "sentence": ""})


def take(body: bytes) -> tuple[int, dict[str, str]]:
    return 201, {"id": ID, "sha256": hashlib.sha256(body).hexdigest()}


def quiet(_: str) -> None: ...


def pair(*words: object) -> int:
    return run(["pair", *map(str, words)])


def test_a_kept_session_is_sent_and_its_copy_removed_once_the_agent_is_connected(
    server: Server, invitation: Invitation, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = {"GET": [UNUSED, CONNECTED], "POST": [take]}
    assert pair("--to", invitation.line(), "--kept", kept) == 0
    out = capsys.readouterr()
    assert out.out == "sales is connected\n"
    assert not list(kept.parent.glob("sales.*"))
    assert server.doors == {invitation.door}
    ((_, body),) = [one for one in server.asked if one[0] == "POST"]
    assert b"a token" not in body and invitation.token not in out.err


@pytest.mark.parametrize("status", [401, 409, 413, 500])
def test_a_refused_pairing_stays_at_the_desk_and_can_be_sent_again(
    server: Server,
    invitation: Invitation,
    kept: Path,
    capsys: pytest.CaptureFixture[str],
    status: int,
) -> None:
    refusal = (status, {"error": "other_instance", "message": "cannot import it"})
    server.answers = {"GET": [UNUSED], "POST": [refusal]}
    assert pair("--to", invitation.line(), "--kept", kept, "--json") in (1, 4)
    err = capsys.readouterr().err
    assert '"error": "other_instance"' in err and str(kept) in err
    assert (kept / "session" / "web.json").exists()
    assert [method for method, _ in server.asked].count("POST") == 1


def test_a_copy_that_the_agent_has_is_never_given_again(
    server: Server, invitation: Invitation, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers = {"GET": [UNUSED, (200, {**CONNECTED[1], "connection_status": "LOADING"})]}
    server.answers["POST"] = [take]
    assert pair("--to", invitation.line(), "--kept", kept, "--wait", "0.05") == 75
    sent = kept.with_name(f"{kept.name}.sent")
    assert sent.is_dir() and str(sent) in capsys.readouterr().err
    assert pair("--to", invitation.line(), "--kept", sent) == 4
    assert "has this session already" in capsys.readouterr().err


def test_a_file_for_the_agent_opens_with_its_key_alone(
    invitation: Invitation, kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sales.wa-sealed"
    assert pair("--to", invitation.line(), "--kept", kept, "--out", file) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert "throw each other out" in capsys.readouterr().err and kept.is_dir()
    opened = Unsealed(io.BytesIO(file.read_bytes()), tmp_path / "pairing.key")
    assert (opened.sealed.id, opened.sealed.token) == (ID, "a token")
    manifest = read_archive_manifest(opened, Limits())
    assert (manifest.paired, manifest.account, manifest.needs_passkey) == (
        True,
        "4915112345678",
        True,
    )


def test_a_file_takes_no_devices_place(
    invitation: Invitation, kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked before the window opens: a session is not linked for a file that cannot be."""
    os.mkfifo(tmp_path / "fifo")
    assert pair("--to", invitation.line(), "--kept", kept, "--out", tmp_path / "fifo") == 4
    assert "it is a link, a device, a FIFO or a socket" in capsys.readouterr().err
    assert (tmp_path / "fifo").is_fifo()


def test_a_lost_answer_is_no_second_upload(
    server: Server, invitation: Invitation, tmp_path: Path
) -> None:
    file = tmp_path / "sealed"
    file.write_bytes(b"x" * 100_000)
    server.answers = {"POST": [None], "GET": [CONNECTED]}
    hand_over.send(invitation, file, quiet)
    assert [method for method, _ in server.asked] == ["POST", "GET"]


def test_a_busy_agent_is_asked_again(
    server: Server, invitation: Invitation, tmp_path: Path
) -> None:
    file, said = tmp_path / "sealed", []
    file.write_bytes(b"x" * 10)
    busy = (503, {"error": "try_later", "message": "another import is under way"})
    server.answers = {"POST": [busy, take], "GET": [UNUSED]}
    hand_over.send(invitation, file, said.append)
    assert said == ["another import is under way; trying again"]
    server.answers = {"POST": [None], "GET": [UNUSED]}
    with pytest.raises(AgentUnreachable):
        hand_over.send(invitation, file, quiet)


@pytest.mark.parametrize(
    "answer", [(201, {}), (200, {"sha256": "0" * 64}), (302, {}), (200, []), (204, None)]
)
def test_only_the_right_sum_is_an_acknowledgement(
    server: Server, invitation: Invitation, tmp_path: Path, answer: Any
) -> None:
    file = tmp_path / "sealed"
    file.write_bytes(b"x" * 10)
    server.answers = {"POST": [answer], "GET": [UNUSED]}
    with pytest.raises((AgentUnreachable, hand_over.ServerSaidNo)):
        hand_over.send(invitation, file, quiet)
    server.answers = {"GET": [answer]}
    with pytest.raises((AgentUnreachable, hand_over.ServerSaidNo)):
        hand_over.look_before(invitation)


def test_waiting_ends_with_the_agents_reason(server: Server, invitation: Invitation) -> None:
    logged_out = {"used": True, "connection_status": "DISCONNECTED", "reason": "logout"}
    server.answers = {"GET": [(200, {**logged_out, "sentence": "logged out on the phone"})]}
    with pytest.raises(Refused, match="logged out on the phone"):
        hand_over.wait_until_connected(invitation, 30.0)
    server.answers = {"GET": [(200, {**UNUSED[1], "connection_status": "LOADING"})]}
    with pytest.raises(TryLater, match="LOADING"):
        hand_over.wait_until_connected(invitation, 0.05)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ((401, {"error": "invite_unknown", "message": "unknown"}), 4),
        ((403, {"error": "invite_expired", "message": "expired"}), 4),
        (CONNECTED, 4),
        (None, 5),
    ],
)
def test_a_void_invitation_is_refused_before_a_browser_starts(
    server: Server, invitation: Invitation, data: Path, answer: Any, status: int
) -> None:
    server.answers = {"GET": [answer]}
    assert pair("--to", invitation.line()) == status
    assert not data.exists()


def test_a_line_without_an_address_wants_a_file(tmp_path: Path) -> None:
    line = Invitation(ID, make_key(tmp_path / "key"), "a token").line()
    assert pair("--to", line) == 2
    assert pair("--to", "no line") == 2


def test_a_browser_and_a_display_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError) as caught:
        need_display({})
    assert caught.value.code == "no_display"
    need_display({"WAYLAND_DISPLAY": "wayland-0"})
    program = tmp_path / "google-chrome"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("agent.wings.desk.browser.BINARIES", {"chromium": ()})
    with pytest.raises(ConfigError, match="install it"):
        find_visible_browser()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for named in ("", "google-chrome", str(program)):
        found = find_visible_browser(named)
        assert (found.path, found.visible) == (program, True)
    with pytest.raises(ConfigError):
        find_visible_browser("no-such-browser")


def test_a_desktop_needs_none_of_the_agents_libraries() -> None:
    code = (
        "import sys; from agent.cli.main import run; run(['pair', '--help']);"
        "import agent.wings.desk.pairing, agent.wings.desk.hand_over, agent.wings.desk.browser;"
        "print('loaded', *sorted({'aiohttp','dbus_fast','psutil','sqlite3','segno','agent.store',"
        "'agent.host','agent.supervise','agent.config','nacl'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded"


def test_an_invitation_is_for_the_web_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["create", "x", "--engine", "sandbox", "--invite"]) == 2
    assert "engine web" in capsys.readouterr().err
