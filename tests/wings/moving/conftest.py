"""Sources of other programs: real stores, written as those programs write them."""

import base64
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agent.wings.moving.whatsmeow import public_key
from tests.api.conftest import house, open_house
from tests.cli.conftest import cli, elsewhere
from tests.engines.baileys.conftest import bench, cache, whatsapp
from tests.lacking import lacks
from tests.standin.postgres import Postgres, temporary_postgres

__all__ = ["bench", "cache", "cli", "elsewhere", "house", "open_house", "whatsapp"]

Keys = Mapping[str, bytes]

SCHEMA = """
CREATE TABLE whatsmeow_device (jid TEXT PRIMARY KEY, lid TEXT, registration_id BIGINT NOT NULL,
    noise_key bytea NOT NULL, identity_key bytea NOT NULL, signed_pre_key bytea NOT NULL,
    signed_pre_key_id INTEGER NOT NULL, signed_pre_key_sig bytea NOT NULL, adv_key bytea NOT NULL,
    adv_details bytea NOT NULL, adv_account_sig bytea NOT NULL, adv_account_sig_key bytea NOT NULL,
    adv_device_sig bytea NOT NULL, platform TEXT NOT NULL DEFAULT '',
    business_name TEXT NOT NULL DEFAULT '', push_name TEXT NOT NULL DEFAULT '');
CREATE TABLE whatsmeow_pre_keys (jid TEXT, key_id INTEGER, key bytea NOT NULL,
    uploaded BOOLEAN NOT NULL, PRIMARY KEY (jid, key_id));
CREATE TABLE whatsmeow_app_state_sync_keys (jid TEXT, key_id bytea, key_data bytea NOT NULL,
    timestamp BIGINT NOT NULL, fingerprint bytea NOT NULL, PRIMARY KEY (jid, key_id));
"""
JID = "5511900000001:3@s.whatsapp.net"


def pair_of(seed: int) -> dict[str, Any]:
    private = bytes([seed]) * 32
    return {"private": buffer(private), "public": buffer(public_key(private))}


def buffer(content: bytes) -> dict[str, str]:
    return {"type": "Buffer", "data": base64.b64encode(content).decode()}


def creds(**more: Any) -> dict[str, Any]:
    """Credentials of the right shape, of an account that no server knows."""
    b64 = base64.b64encode(b"x" * 32).decode()
    return {
        "noiseKey": pair_of(1),
        "signedIdentityKey": pair_of(2),
        "signedPreKey": {"keyPair": pair_of(3), "signature": buffer(b"s" * 64), "keyId": 1},
        "registrationId": 7,
        "advSecretKey": b64,
        "nextPreKeyId": 3,
        "firstUnuploadedPreKeyId": 3,
        "account": {
            "details": b64,
            "accountSignatureKey": b64,
            "accountSignature": base64.b64encode(b"a" * 64).decode(),
            "deviceSignature": base64.b64encode(b"d" * 64).decode(),
        },
        "me": {"id": JID, "name": "Sales", "lid": "99:3@lid"},
        "platform": "android",
        **more,
    }


def keys_of(credentials: Mapping[str, Any] | None = None, pre_keys: int = 2) -> dict[str, bytes]:
    made = {f"pre-key-{id}": json.dumps(pair_of(id)).encode() for id in range(1, pre_keys + 1)}
    made["creds"] = json.dumps(creds() if credentials is None else credentials).encode()
    return made


def write_folder(folder: Path, keys: Keys, ago: float = 3600.0) -> Path:
    """As a bot left it that ended so many seconds ago."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, value in keys.items():
        (folder / f"{key}.json").write_bytes(value)
    return age(folder, ago)


def age(folder: Path, ago: float = 3600.0) -> Path:
    then = time.time() - ago
    for path in folder.iterdir():
        os.utime(path, (then, then))
    return folder


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in folder.glob("*.json")}


def bytes_of(value: Any) -> bytes:
    return base64.b64decode(value["data"] if isinstance(value, dict) else value)


def whatsmeow_rows(keys: Keys) -> dict[str, list[tuple[Any, ...]]]:
    """The session as whatsmeow's tables hold it: private keys, ids, the account's signatures."""
    told = json.loads(keys["creds"])
    me, account, signed = told["me"], told["account"], told["signedPreKey"]
    device = (
        me["id"],
        me.get("lid"),
        told["registrationId"],
        bytes_of(told["noiseKey"]["private"]),
        bytes_of(told["signedIdentityKey"]["private"]),
        bytes_of(signed["keyPair"]["private"]),
        signed["keyId"],
        bytes_of(signed["signature"]),
        bytes_of(told["advSecretKey"]),
        bytes_of(account["details"]),
        bytes_of(account["accountSignature"]),
        bytes_of(account["accountSignatureKey"]),
        bytes_of(account["deviceSignature"]),
        told.get("platform", ""),
        "",
        me.get("name") or "",
    )
    pre_keys = [
        (me["id"], int(key.rpartition("-")[2]), bytes_of(json.loads(raw)["private"]), True)
        for key, raw in keys.items()
        if key.startswith("pre-key-")
    ]
    # rawId 5, currentIndex 1, deviceIndexes 0 and 1, packed.
    fingerprint = bytes([0x08, 5, 0x10, 1, 0x1A, 2, 0, 1])
    state_keys = [(me["id"], b"\x00\x00\x00\x01", b"k" * 32, 1_760_000_000, fingerprint)]
    return {
        "whatsmeow_device": [device],
        "whatsmeow_pre_keys": pre_keys,
        "whatsmeow_app_state_sync_keys": state_keys,
    }


def write_whatsmeow(path: Path, keys: Keys) -> Path:
    database = sqlite3.connect(path)
    with database:
        database.executescript(SCHEMA)
        for table, rows in whatsmeow_rows(keys).items():
            places = ", ".join("?" * len(rows[0]))
            database.executemany(f"INSERT INTO {table} VALUES ({places})", rows)
    database.close()
    return path


def literal(value: Any) -> str:
    """A value in PostgreSQL's SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"'\\x{value.hex()}'::bytea"
    if isinstance(value, bool | int):
        return str(value)
    return "'" + str(value).replace("'", "''") + "'"


def insert(table: str, *rows: tuple[Any, ...]) -> str:
    told = ", ".join("(" + ", ".join(literal(value) for value in row) + ")" for row in rows)
    return f'INSERT INTO "{table}" VALUES {told};\n'


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    with temporary_postgres() as server:
        yield server


class Mariadb:
    """A server of its own, reached through a Unix socket."""

    def __init__(self, folder: Path) -> None:
        install, program = shutil.which("mariadb-install-db"), "/usr/sbin/mariadbd"
        if install is None or not Path(program).exists():
            lacks("MariaDB is not installed")
        data, self.socket = folder / "data", folder / "socket"
        if os.geteuid() == 0:
            shutil.chown(folder, "mysql")
        owner = ["--user=mysql"] if os.geteuid() == 0 else []
        made = ["--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"]
        subprocess.run(
            [install, *made, "--skip-test-db", *owner], check=True, capture_output=True, timeout=120
        )
        options = [f"--datadir={data}", f"--socket={self.socket}", "--skip-networking"]
        fast = ["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=16M"]
        self._process = subprocess.Popen(
            [program, "--no-defaults", *options, *fast, *owner],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 90
        while subprocess.run(
            ["mariadb-admin", "--no-defaults", f"--socket={self.socket}", "ping"],
            check=False,
            capture_output=True,
        ).returncode:
            assert time.monotonic() < deadline, "MariaDB did not start"
            time.sleep(0.05)
        self.sql("GRANT ALL ON *.* TO reader@localhost IDENTIFIED BY 'se cret'", database="mysql")

    def url(self, database: str) -> str:
        return f"mysql://reader:se%20cret@localhost/{database}?socket={self.socket}"

    def client(self, *more: str) -> list[str]:
        letters = "--default-character-set=utf8mb4"
        return ["mariadb", "--no-defaults", letters, f"--socket={self.socket}", *more]

    def sql(self, text: str, database: str) -> None:
        """SQL as PostgreSQL writes it; MySQL's own `text` ends at 64 KiB."""
        mode = "SET SESSION sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES';\n"
        script = mode + text.replace(" text", " longtext")
        subprocess.run(self.client(database), input=script, text=True, check=True)

    def make(self, database: str, text: str) -> str:
        """A database with these tables; its address."""
        self.sql(f'CREATE DATABASE "{database}" CHARACTER SET utf8mb4', database="mysql")
        self.sql(text, database=database)
        return self.url(database)

    def dump(self, database: str, target: Path, *options: str) -> Path:
        command = ["mariadb-dump", "--no-defaults", f"--socket={self.socket}", *options, database]
        target.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
        return target

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="module")
def mariadb() -> Iterator[Mariadb]:
    with tempfile.TemporaryDirectory(prefix="wa-maria-", dir="/tmp") as place:
        Path(place).chmod(0o711)
        server = Mariadb(Path(place))
        yield server
        server.end()


class Redis:
    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        if program is None:
            lacks("redis-server is not installed")
        self._socket = Path(f"/tmp/wa-moving-{os.getpid()}.sock")
        self.url = f"unix://{self._socket}?db=2"
        arguments = ["--port", "0", "--unixsocket", self._socket, "--save", "", "--dir", folder]
        self._process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < deadline, "Redis did not start"
            time.sleep(0.02)

    def _answers(self) -> bool:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self._socket))  # its file is there a moment before
            return True
        return False

    def client(self) -> Any:
        import redis

        return redis.Redis(unix_socket_path=str(self._socket), db=2)

    def fill(self, write: Callable[[Any], None]) -> None:
        client = self.client()
        write(client)
        client.close()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._socket.unlink(missing_ok=True)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path)
    yield server
    server.end()


def evolution_sql(id: str, name: str, keys: Keys) -> str:
    """Evolution API 2: the credentials' text is written as JSON a second time."""
    return (
        'CREATE TABLE "Instance" (id text, name text, "connectionStatus" text);\n'
        'CREATE TABLE "Session" (id text, "sessionId" text, creds text);\n'
        + insert("Instance", (id, name, "open"), ("never", "not paired", "close"))
        + insert("Session", ("s1", id, json.dumps(keys["creds"].decode())))
    )


def whaticket_sql(keys: Keys, *, beside: bool) -> str:
    """A fork's `session` column with all keys, or ticketz' table of keys beside it."""
    names = {"pre-key": "preKeys", "session": "sessions", "sender-key": "senderKeys"}
    inside: dict[str, dict[str, Any]] = {}
    rows = []
    for key, raw in keys.items():
        kind = next((kind for kind in names if key.startswith(kind + "-")), "")
        if kind:
            id = key.removeprefix(kind + "-")
            inside.setdefault(names[kind], {})[id] = json.loads(raw)
            rows.append((7, kind, id, json.dumps(as_numbers(json.loads(raw)))))
    column = {"creds": json.loads(keys["creds"]), "keys": {} if beside else inside}
    return (
        'CREATE TABLE "Whatsapps" (id int, name text, session text, status text);\n'
        'CREATE TABLE "BaileysKeys" ("whatsappId" int, "type" text, "key" text, value text);\n'
        + insert("Whatsapps", (7, "Support", json.dumps(column), "CONNECTED"), (8, "New", "", ""))
        + (insert("BaileysKeys", *rows) if beside else "")
    )


def as_numbers(value: Any) -> Any:
    """A Buffer as JSON.stringify writes it where no replacer is given."""
    if isinstance(value, dict):
        if value.get("type") == "Buffer":
            return {"type": "Buffer", "data": list(base64.b64decode(value["data"]))}
        return {key: as_numbers(each) for key, each in value.items()}
    return value
