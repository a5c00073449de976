"""Starts the stand-in for WhatsApp and the real Baileys server, and talks to both.

Real processes: they end with their standard input, so that none outlives its test.
"""

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

from tests.waiting import GrowingLog

HERE = Path(__file__).parent
TOKEN = "token-of-the-tests"
_OLDEST_NODE = {"baileys": 20, "baileys-6": 18, "baileys-6.7": 20}
"""7.0.0-rc14, 6.17.16 and 6.7.18, each unmodified."""
PACKAGES = ("baileys", "baileys-6")
"""Packages that backends run on; the third writes stores to move from."""


@cache
def why_not(package: str) -> str:
    """Why this package cannot run here; "" when it can. Each test asks; it is found out once."""
    node = shutil.which("node")
    if node is None:
        return "node is not installed (./scripts/test installs it)"
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(told.lstrip("v").split(".")[0]) < _OLDEST_NODE[package]:
        return f"{package} needs node {_OLDEST_NODE[package]}, here is {told.strip()}"
    if not (HERE / "node_modules" / package / "package.json").exists():
        return "npm's packages are not installed (tests/standin/baileys/install does it)"
    return ""


def call(
    url: str,
    body: Mapping[str, Any] | None = None,
    verb: str = "",
    token: str = "",
    within: float = 60,
) -> Any:
    """One request with a JSON answer; an answer of 400 and more raises `HTTPError`."""
    raw = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, raw, method=verb or ("GET" if raw is None else "POST"))
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=within) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            error.add_note(error.read().decode())
        raise


class Program:
    """A Node program that says on a line of its log where it listens."""

    def __init__(self, arguments: list[str], log: Path, host: str = "127.0.0.1") -> None:
        self.log, self._host = GrowingLog(log), host
        written = log.stat().st_size if log.exists() else 0
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                ["node", *arguments],
                cwd=HERE,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.url = self._address(written)

    def _address(self, written: int) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            said = self.log.read_bytes()[written:].decode(errors="replace")
            for line in said.splitlines(keepends=True):
                _, found, port = line.partition(f"http://{self._host}:")
                if found and port.endswith("\n"):
                    return found + port.strip()
            time.sleep(0.02)
        self.end()
        raise AssertionError(f"it does not listen: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        self._process.kill()
        self.end()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A key, and a certificate of its own for 127.0.0.1."""
    key, certificate = folder / "media.key", folder / "media.pem"
    line = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    line += ["-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-keyout", str(key)]
    line += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate)]
    subprocess.run(line, check=True, capture_output=True)
    return key, certificate


class WhatsApp(Program):
    """The stand-in for WhatsApp's server, with its people."""

    def __init__(
        self, log: Path, tls: tuple[Path, Path] | None = None, host: str = "127.0.0.1"
    ) -> None:
        """`tls`: key and certificate of its media servers; without, it takes no files."""
        super().__init__(["whatsapp/main.js", f"{host}:0", *map(str, tls or ())], log, host)
        self.kept = log.with_name("kept")
        """The folder of the session that `keep` knows."""
        self.socket = self.url.replace("http", "ws", 1) + "/ws/chat"

    def begin_anew(self, *, kept: bool = False) -> None:
        """Begin again at the same address: no client is connected, and WhatsApp knows no person, or
        the people of the last `keep`. Not for one that takes files."""
        call(self.url + "/anew", {"kept": kept})

    def keep(self) -> None:
        """Keep the devices and the people as they are now; no client may be connected."""
        call(self.url + "/keep", {})

    def scan(self, qr: str, user: str | list[str]) -> None:
        call(self.url + "/scan", {"qr": qr, "user": user})

    def enter_code(self, user: str) -> None:
        """The account's phone takes the pairing code; WhatsApp links no device with it."""
        call(self.url + "/enter_code", {"user": user})

    def say(self, sender: str, to: str, text: str) -> str:
        """A contact writes; the message's id."""
        return str(call(self.url + "/say", {"from": sender, "to": to, "text": text})["id"])

    def say_message(self, sender: str, to: str, message: Mapping[str, Any]) -> str:
        """Any message of the protocol, as protobufjs reads it from JSON."""
        return str(call(self.url + "/say", {"from": sender, "to": to, "message": message})["id"])

    def say_file(self, sender: str, to: str, kind: str, **more: Any) -> dict[str, Any]:
        """A contact sends a file, `bytes` long, with `fields` of its message; its id, the sha256
        of the file, and the `part` of the message that is about it. `how`: gone (until the phone
        gives it again), lost (the phone has it no more), held (half of it comes)."""
        return self.tell("/say_file", {"from": sender, "to": to, "kind": kind, **more})

    def files(self) -> dict[str, Any]:
        """The `url` of its media server, how often that and the phones were asked."""
        return self.tell("/files", {})

    def tell(self, path: str, told: Mapping[str, Any]) -> dict[str, Any]:
        """Any command of it."""
        return dict(call(self.url + path, told))

    def make_group(self, group: str, members: list[str]) -> None:
        call(self.url + "/group", {"group": group, "members": members})

    def say_in_group(self, sender: str, to: str, group: str, text: str) -> str:
        told = {"from": sender, "to": to, "group": group, "text": text}
        return str(call(self.url + "/say_in_group", told)["id"])

    def trouble(self, user: str, kind: str, **more: Any) -> None:
        """kind: refuse (code), stream_error (code), conflict (type), silence, none,
        unanswered (it takes messages, and confirms none), queries (it logs in, and leaves
        questions of that `xmlns` without an answer, or refuses them with a `refusal`)."""
        call(self.url + "/trouble", {"user": user, "kind": kind, **more})

    def answers_retries(self, user: str, answers: bool) -> None:
        """`answers`: True if the contact sends again, with new keys, what could not be read."""
        call(self.url + "/person", {"user": user, "answers": answers})

    def takes_enclosed_keys(self, *users: str) -> None:
        """These contacts write again with the keys that a second retry encloses, as WhatsApp's
        clients do; others take the next that the server hands out, lost or not."""
        for user in users:
            call(self.url + "/person", {"user": user, "takesKeys": True})

    def asks_again(self, *users: str) -> None:
        """These contacts ask for a message again that they could not read, as WhatsApp's clients
        do; others leave it unread."""
        for user in users:
            call(self.url + "/person", {"user": user, "asks": True})

    def asks_for_passkey(self, user: str, asks: bool) -> None:
        """`asks`: True if a scan by this account leads to a passkey instead of a linked device."""
        call(self.url + "/person", {"user": user, "passkey": asks})

    def device(self, user: str) -> dict[str, Any]:
        """The newest linked device of that account; {} when there is none."""
        return next((each for each in reversed(self.devices()) if each["user"] == user), {})

    def devices(self) -> list[dict[str, Any]]:
        """Linked devices of all accounts, in the order of their linking."""
        return list(call(self.url + "/state")["devices"])

    def logins(self) -> list[dict[str, Any]]:
        """Every login of a device, in order; times in ms."""
        return list(call(self.url + "/state")["logins"])

    def overlaps(self) -> list[str]:
        """A sentence for each login that came while another one of the device could send."""
        return [
            f"{new['user']} logged in while its login of {new['begun'] - old['begun']} ms before"
            f" could send: {old}, {new}"
            for old, new in combinations(self.logins(), 2)
            if old["device"] == new["device"]
            and max(old["last"], old["ended"] or time.time() * 1000) > new["begun"]
        ]

    def receipts(self, user: str, id: str) -> list[str]:
        """The types of the receipts that the account's device gave for one message."""
        return [each["type"] for each in self.device(user)["receipts"] if each["id"] == id]

    def people(self) -> list[dict[str, Any]]:
        return list(call(self.url + "/state")["people"])

    def person(self, user: str) -> dict[str, Any]:
        return next((each for each in self.people() if each["user"] == user), {})

    def screen(self, user: str) -> dict[str, Any]:
        """Return what the contact's phone shows: `messages`, `read`, `presences`, `ignored`."""
        return dict(self.person(user).get("screen", {}))


class BaileysServer(Program):
    """A whaticket-like server with real Baileys sessions; `log` is what it prints."""

    def __init__(
        self,
        whatsapp: WhatsApp,
        folder: Path,
        log: Path,
        package: str = PACKAGES[0],
        sessions: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        told = {
            "package": package,
            "folder": str(folder),
            "url": whatsapp.socket,
            "token": TOKEN,
            "sessions": dict(sessions or {"7": "sales"}),
        }
        super().__init__(["server/main.js", json.dumps(told)], log)

    def ask(self, path: str, verb: str = "", body: Mapping[str, Any] | None = None) -> Any:
        return call(self.url + path, body, verb, TOKEN)

    def status(self, id: str = "7") -> str:
        return str(self.ask(f"/whatsapp/{id}")["status"])

    def qr(self, id: str = "7") -> str:
        return str(self.ask(f"/whatsapp/{id}")["qrcode"])

    def disconnect(self, id: str = "7") -> None:
        self.ask(f"/whatsapp/{id}/disconnect", "PUT")

    def start_session(self, id: str = "7") -> None:
        self.ask(f"/whatsapp/{id}/start-session", "PUT")

    def send(self, number: str, body: str, id: str = "7") -> None:
        told = {"number": number, "body": body, "whatsappId": id}
        self.ask("/api/messages/send", body=told)
