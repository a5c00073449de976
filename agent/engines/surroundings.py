"""The machine's words for a local engine, in its worker's environment. Standard library only."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """What on this machine keeps an engine from working, and what cures it."""

    code: str
    sentence: str
    cure: str
    serious: bool = True
    """False: it works, only less well."""


def cache_folder(env: Mapping[str, str] | None = None) -> Path:
    """Where the machine keeps what can be fetched again; else beside the sessions."""
    env = os.environ if env is None else env
    named = env.get("WA_CACHE_PATH") or env.get("CACHE_PATH")
    if named:
        return Path(named)
    return Path(env.get("WA_SESSION_ROOT", ".state/sessions")).absolute().parent / "cache"


def probe_limit(env: Mapping[str, str] | None = None) -> float:
    """Seconds for one shallow question, so that the watchdog hears an answer, good or bad."""
    env = os.environ if env is None else env
    try:
        watchdog = int(env.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        watchdog = 0.0
    return min(3.0, watchdog * 0.35) if watchdog else 3.0


def in_path(name: str, path: str | None = None) -> str | None:
    """As shutil.which(), whose module brings three compressors into every worker."""
    path = "" if "/" in name else path or os.environ.get("PATH", os.defpath)
    found = (Path(folder) / name for folder in path.split(":"))
    return next((str(it) for it in found if os.access(it, os.X_OK) and it.is_file()), None)


def inside(raw: Any, *keys: str) -> Any:
    """The value below these keys; None where one of them is missing."""
    for key in keys:
        raw = raw.get(key) if isinstance(raw, Mapping) else None
    return raw


def text(raw: Any, most: int = 200) -> str:
    """The text; "" for any other value."""
    return raw[:most] if isinstance(raw, str) else ""


def whole(raw: Any) -> int | None:
    return raw if type(raw) is int else None


def moment(raw: Any) -> float:
    """Unix seconds of an ISO time; 0.0 for any other value."""
    try:
        return datetime.fromisoformat(raw).timestamp() if isinstance(raw, str) else 0.0
    except (ValueError, OverflowError, OSError):
        return 0.0
