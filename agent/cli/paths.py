"""Places of the agent and its files, in a checkout or in an installation."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

INSTALLED_SOCKET = Path("/run/wa-agent/api.sock")
INSTALLED_CONFIG = Path("/etc/wa-agent/agent.toml")


def checkout() -> Path | None:
    """The checkout that this program runs from; None when it is installed."""
    top = Path(__file__).resolve().parents[2]
    return top if (top / "pyproject.toml").is_file() else None


def socket_candidates(env: Mapping[str, str]) -> list[Path]:
    """The sockets at which the agent may listen, the nearest first."""
    named = env.get("WA_AGENT_SOCKET")
    if named:
        return [Path(named)]
    candidates = []
    with suppress(OSError):  # another process removed the working folder
        here = Path.cwd() / ".state" / "api.sock"
        # Only this user's own: a folder of another user must not catch our commands.
        if here.lstat().st_uid == os.geteuid():
            candidates.append(here)
    top = checkout()
    if top is not None:
        candidates.append(top / ".state" / "api.sock")
    candidates.append(INSTALLED_SOCKET)
    return list(dict.fromkeys(candidates))


def config_path(named: str | None, env: Mapping[str, str]) -> Path | None:
    """The file to read: the named one, else the installed one if it exists."""
    if named or env.get("WA_AGENT_CONFIG"):
        return Path(named or env["WA_AGENT_CONFIG"])
    if checkout() is None and INSTALLED_CONFIG.exists():
        return INSTALLED_CONFIG
    return None
