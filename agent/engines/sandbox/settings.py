"""What an instance of the sandbox can be told."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from agent.core.words import Address
from agent.errors import ConfigError

NETWORK = "network"
"""The file in a session's folder that says until when its network is away (Unix seconds)."""


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """Durations are seconds."""

    scan: str = "auto"
    """auto: the phone scans by itself; manual: it waits for the command `scan`."""
    scan_after: float = 1.0
    """How long a phone that scans by itself looks at the first code."""
    qr_every: float = 20.0
    """How long one code holds."""
    qr_codes: int = 6
    """Codes of one login; after the last one nothing is shown until somebody asks again."""
    messages_per_minute: float = 6.0
    """0: none."""
    frame_every: float = 5.0
    """The server's sign of life on an idle connection."""
    login_seconds: float = 0.05
    sync_seconds: float = 0.05
    save_seconds: float = 0.0
    """How long a save works before it writes."""
    account: str = ""
    """The phone's number; "" makes one up from the instance's id."""


_SMALLEST = {"qr_every": 0.05, "qr_codes": 1, "frame_every": 0.05}
_LARGEST = {"messages_per_minute": 6000.0}


def read_settings(told: Mapping[str, Any]) -> SandboxSettings:
    """Raise ConfigError naming the setting that cannot be used."""
    known = {each.name: each.type for each in fields(SandboxSettings)}
    # A phone number on a command line is read as a whole number.
    told = {
        key: str(value) if known.get(key) is str and type(value) is int else value
        for key, value in told.items()
    }
    for key, value in told.items():
        kind = known.get(key)
        if kind is None:
            raise _wrong(key, f"unknown, known are {', '.join(known)}")
        if kind is str:
            if not isinstance(value, str):
                raise _wrong(key, "not text")
        elif isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
            raise _wrong(key, "not a number")
        elif not _SMALLEST.get(key, 0) <= value <= _LARGEST.get(key, 86_400):
            raise _wrong(key, "out of range")
    settings = SandboxSettings(**told)
    if settings.scan not in ("auto", "manual"):
        raise _wrong("scan", "neither auto nor manual")
    return settings


def needed_address(_settings: Mapping[str, Any], folder: Path) -> Address | None:
    """`folder` is the engine's own. The fault `drop` with an end takes this network away."""
    return Address((folder / NETWORK).absolute().as_uri())


def _wrong(key: str, why: str) -> ConfigError:
    return ConfigError(f"cannot use sandbox setting {key!r:.60}: {why}", field=key)
