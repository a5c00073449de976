"""Where the agent and its files are: of a checkout, or of an installation."""

import os
from collections.abc import Mapping
from pathlib import Path

INSTALLED_SOCKET = Path("/run/wa-agent/api.sock")
INSTALLED_CONFIG = Path("/etc/wa-agent/agent.toml")


def checkout() -> Path | None:
    """The checkout that this program runs from; None when it is installed."""
    top = Path(__file__).resolve().parents[2]
    return top if (top / "pyproject.toml").is_file() else None


def socket_candidates(env: Mapping[str, str]) -> list[Path]:
    """Where the agent may listen, the most particular first."""
    named = env.get("WA_AGENT_SOCKET")
    if named:
        return [Path(named)]
    found = []
    here = _working_folder() / ".state" / "api.sock"
    # Only an own one: a folder that somebody else prepared must not catch our commands.
    if _is_own(here):
        found.append(here)
    top = checkout()
    if top is not None:
        found.append(top / ".state" / "api.sock")
    found.append(INSTALLED_SOCKET)
    return list(dict.fromkeys(found))


def _is_own(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.geteuid()
    except OSError:
        return False


def config_path(named: str | None, env: Mapping[str, str]) -> Path | None:
    """The file to read: the named one, or the installed one where there is one."""
    if named or env.get("WA_AGENT_CONFIG"):
        return Path(named or env["WA_AGENT_CONFIG"])
    if checkout() is None and INSTALLED_CONFIG.exists():
        return INSTALLED_CONFIG
    return None


def _working_folder() -> Path:
    try:
        return Path.cwd()
    except OSError:  # it was removed under us
        return Path("/")
