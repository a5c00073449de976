"""The settings of an instance with the sandbox engine. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.setting import setting
from agent.core.words import Address
from agent.engines.settings import read_table

NETWORK = "network"
"""The file in a session's folder that says until when its network is away (Unix seconds)."""
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """Durations are seconds."""

    scan: str = setting(
        "auto",
        "auto = the phone scans by itself; manual = it waits for `wa-agent sandbox scan`",
        choices=("auto", "manual"),
    )
    scan_after: float = setting(
        1.0, "seconds until a phone that scans by itself scans", low=0, high=_DAY
    )
    qr_every: float = setting(20.0, "seconds that one code holds", low=0.05, high=_DAY)
    qr_codes: int = 6
    """Codes of one login; after the last one a new request starts again."""
    messages_per_minute: float = setting(6.0, "messages that come in; 0 = none", low=0, high=6000)
    read_after: float = setting(1.0, "seconds until a contact reads what it got", low=0, high=_DAY)
    login_seconds: float = setting(0.05, "seconds of a login", low=0, high=_DAY)
    sync_seconds: float = setting(0.05, "seconds of the sync after a login", low=0, high=_DAY)
    save_seconds: float = setting(0.0, "seconds of a save before it writes", low=0, high=_DAY)
    account: str = setting("", 'number of the phone; "" = made from the id of the instance')


def read_settings(raw: Mapping[str, Any]) -> SandboxSettings:
    """ConfigError names the setting that cannot be used."""
    return read_table(SandboxSettings, raw, "sandbox setting")


def needed_address(_settings: SandboxSettings, folder: Path) -> Address:
    """`folder` is the engine's own. The fault `drop` with an end takes this network away."""
    return Address((folder / NETWORK).absolute().as_uri())
