"""WhatsApp's side of a connection and the faults: each does what the real thing would do, to the
process, the session, the server or the way to it. The engine only sees frames, answers, refusals,
or nothing."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.clock import boot_now
from agent.engines.sandbox.rules import NETWORK, SandboxSettings, saving, write_shared
from agent.errors import EngineError, InvalidRequest

# The sandbox's faults: which are active, until when, and which outlive the worker: those that a
# restart would not cure in reality are kept in the session's folder with their end in wall time.
# crash: the worker is killed; with --for also at each start. hang: its event loop stops. zombie:
# the session says CONNECTED, but gets no frame and answers no query. slow: probes and calls take
# seconds. drop: the connection is lost; with --for the network stays down. leak: memory grows
# steadily. bad-mac, prekey: a peer's messages cannot be decrypted (Bad MAC, Invalid PreKey ID).
# logout: the phone removes this device. ban, temp-ban: WhatsApp bans the account, for good or for
# the time of --for (else an hour). conflict: another client takes over. outdated: the server
# refuses this client's version. passkey: WhatsApp asks for one after a scan. stuck-loading: the
# sync after a login stops.
# corrupt-files: the session file is damaged, then the worker is killed.


FAULTS_FILE = "faults.json"

_ALWAYS_KEPT = {"ban", "temp-ban", "outdated", "passkey"}
KEPT_WITH_END = {"crash", "drop", "conflict", "stuck-loading"}
LOST_BY = {
    "drop": "connection_lost",
    "conflict": "conflict",
    "ban": "banned",
    "temp-ban": "temporary_ban",
    "outdated": "client_outdated",
}
TEMPORARY_BAN = 3600.0
"""Seconds, where none are given."""


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    until_wall: float | None
    arguments: Mapping[str, Any]

    @property
    def lost(self) -> dict[str, Any]:
        """Why the connection ends by it, as the claim has it."""
        until = self.until_wall if self.name == "temp-ban" else None
        return {"reason": LOST_BY[self.name], "until_wall": until}


class Faults:
    """The active ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._active: dict[str, Fault] = {}
        # A file that cannot be read holds no faults.
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            kept = json.loads((folder / FAULTS_FILE).read_bytes())["faults"]
            self._active = {name: Fault(name, **fault) for name, fault in kept.items()}

    def begin(self, name: str, seconds: float | None, arguments: Mapping[str, Any]) -> Fault:
        if name == "temp-ban" and seconds is None:
            seconds = TEMPORARY_BAN
        until = None if seconds is None else time.time() + seconds
        self._active[name] = fault = Fault(name, until, arguments)
        self._keep()
        return fault

    def active(self, name: str) -> Fault | None:
        fault = self._active.get(name)
        if fault is None or (fault.until_wall is not None and fault.until_wall <= time.time()):
            return None
        return fault

    def list(self) -> dict[str, float | None]:
        """Every active fault with its end."""
        return {name: fault.until_wall for name, fault in self._active.items() if self.active(name)}

    def clear(self, *names: str) -> None:
        """End these faults, or all when none is named."""
        for name in names or tuple(self._active):
            self._active.pop(name, None)
        self._keep()

    def _keep(self) -> None:
        lasting = {
            name: {"until_wall": fault.until_wall, "arguments": fault.arguments}
            for name, fault in self._active.items()
            if name in _ALWAYS_KEPT or (name in KEPT_WITH_END and fault.until_wall is not None)
        }
        files = {
            FAULTS_FILE: json.dumps({"version": 1, "faults": lasting}) if lasting else "",
            # A look from outside finds the network away until then.
            NETWORK: f"{lasting['drop']['until_wall']:.3f}\n" if "drop" in lasting else "",
        }
        with saving("keep the faults"):
            for name, content in files.items():
                if content:
                    write_shared(self.folder / name, content.encode())
                else:
                    (self.folder / name).unlink(missing_ok=True)


PONG_LIMIT = 0.5
"""Seconds; what the protocol waits for the answer to a ping."""


class Server:
    """One connection at a time."""

    def __init__(self, settings: SandboxSettings, faults: Faults) -> None:
        self._settings = settings
        self._faults = faults
        self._last_frame = 0.0
        self.connected = False

    async def connect(self) -> Fault | None:
        """The fault for which the server, or the network before it, does not take it."""
        await asyncio.sleep(self._settings.login_seconds)
        for name in ("drop", "outdated", "ban", "temp-ban", "conflict"):
            if fault := self._faults.active(name):
                return fault
        self.connected = True
        self.frame()
        return None

    def frame(self) -> bool:
        """Let one frame reach the engine; False when it gets lost."""
        if not self.connected or self._faults.active("zombie"):
            return False
        self._last_frame = boot_now()
        return True

    def proof_age(self) -> float | None:
        """Seconds since the last frame reached the engine, which come all the time; None without a
        connection."""
        self.frame()
        return boot_now() - self._last_frame if self.connected else None

    async def ping(self) -> float:
        """Ask the server for a sign of life; return how long it took."""
        begun = boot_now()
        await self.lag()
        if not self.frame():
            await asyncio.sleep(PONG_LIMIT)
            raise EngineError("cannot reach the server: no answer to a ping", code="no_answer")
        return boot_now() - begun

    async def lag(self) -> None:
        if self._faults.active("slow"):
            await asyncio.sleep(3.0)


REPLY_FIRST = 0.05
"""Seconds in which a command that ends or blocks the worker can still be answered."""
CRYPTO = {"bad-mac": ("bad_mac", "Bad MAC"), "prekey": ("prekey_error", "Invalid PreKey ID")}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def damage(path: Path) -> None:
    """Leave half of the file and rubbish after it, as a torn write does."""
    if not path.exists():
        raise InvalidRequest("cannot damage the session file: there is none", field="name")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + os.urandom(16))
