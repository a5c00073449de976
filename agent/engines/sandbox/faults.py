"""The sandbox's faults: which are active, until when, and which outlive the worker: those that a
restart would not cure in reality are kept in the session's folder with their end in wall time.

crash: the worker is killed; with --for also at each start. hang: its event loop stops. zombie:
the session says CONNECTED, but gets no frame and answers no query. slow: probes and calls take
seconds. drop: the connection is lost; with --for the network stays down. leak: memory grows
steadily. bad-mac, prekey: a peer's messages cannot be decrypted (Bad MAC, Invalid PreKey ID).
logout: the phone removes this device. ban, temp-ban: WhatsApp bans the account, for good or for the
time of --for (else an hour). conflict: another client takes over. outdated: the server refuses this
client's version. no-qr: a login never shows a code. passkey: WhatsApp asks for one after a scan.
no-pairing: a scan leads to nothing. stuck-loading: the sync after a login stops. corrupt-files: the
session file is damaged, then the worker is killed."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.engines.sandbox.files import write_shared
from agent.engines.sandbox.settings import NETWORK
from agent.errors import EngineError

NAME = "faults.json"

_ALWAYS_KEPT = {"ban", "temp-ban", "outdated", "passkey", "no-pairing"}
_KEPT_WITH_END = {"crash", "drop", "conflict", "no-qr", "stuck-loading"}
TEMPORARY_BAN = 3600.0
"""Seconds, where none are given."""


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    until_wall: float | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        with_end = self.name in _KEPT_WITH_END and self.until_wall is not None
        return with_end or self.name in _ALWAYS_KEPT

    def number(self, key: str, default: float, smallest: float, largest: float) -> float:
        return min(max(float(self.arguments.get(key, default)), smallest), largest)


class Faults:
    """The active ones."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._network = folder / NETWORK
        self._active = _read(self._path)

    def begin(self, name: str, seconds: float | None, arguments: Mapping[str, Any]) -> Fault:
        if name == "temp-ban" and seconds is None:
            seconds = TEMPORARY_BAN
        until = None if seconds is None else time.time() + seconds
        fault = Fault(name, until, dict(arguments))
        self._active[name] = fault
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

    def sweep(self) -> None:
        """Forget those whose end has come."""
        over = [name for name in self._active if self.active(name) is None]
        if over:
            # Their ends are in the file too: what cannot be removed now ends all the same.
            with suppress(EngineError):
                self.clear(*over)

    def next_end(self) -> float | None:
        """Seconds until the next fault ends by itself."""
        ends = [fault.until_wall for fault in self._active.values() if fault.until_wall is not None]
        return max(0.0, min(ends) - time.time()) if ends else None

    def _keep(self) -> None:
        lasting = {
            name: {"until_wall": fault.until_wall, "arguments": dict(fault.arguments)}
            for name, fault in self._active.items()
            if fault.kept
        }
        try:
            if lasting:
                write_shared(self._path, json.dumps({"version": 1, "faults": lasting}).encode())
            else:
                self._path.unlink(missing_ok=True)
            self._keep_network()
        except OSError as error:
            raise EngineError(f"cannot keep the faults: {error}", code="save_failed") from error

    def _keep_network(self) -> None:
        """What a look from outside finds: the network is away until then."""
        drop = self._active.get("drop")
        if drop is not None and drop.until_wall is not None:
            write_shared(self._network, f"{drop.until_wall:.3f}\n".encode())
        else:
            self._network.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Fault]:
    """What an earlier worker kept; a file that cannot be read holds no faults."""
    try:
        raw = json.loads(path.read_bytes())["faults"]
        return {name: Fault(name, it["until_wall"], it["arguments"]) for name, it in raw.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
