"""The client's npm packages: where they lie in the cache, and whether they are complete."""

import sys
from pathlib import Path

from agent.engines.files import sha256
from agent.errors import ConfigError

CLIENT = Path(__file__).parent / "client"
LOCK = CLIENT / "package-lock.json"
MARK = ".complete"
LIBRARY = Path("node_modules", "baileys", "package.json")
LOADER = "load.mjs"
LOADER_TEXT = "export const load = (name) => import(name);\n"
FETCH = "agent.engines.baileys.fetch"


def packages_folder(cache: Path) -> Path:
    """One folder for each state of the lock file, so that an upgrade never mixes two."""
    return cache / "baileys" / sha256(LOCK.read_bytes())[:16]


def find_packages(cache: Path) -> Path:
    folder = packages_folder(cache)
    if not (folder / MARK).is_file() or not (folder / LIBRARY).is_file():
        raise ConfigError(
            f"cannot find the packages of the baileys engine in {folder}: run"
            f" `{fetch_command(cache)}`",
            field="engine",
            code="packages_missing",
        )
    return folder


def fetch_command(cache: Path) -> str:
    return f"{sys.executable} -m {FETCH} {cache}"


def offline_way(cache: Path | str) -> str:
    return (
        f"Without a network: run `npm ci --cache DIR` elsewhere with {CLIENT}/package.json and"
        f" package-lock.json, bring DIR here, then `{sys.executable} -m {FETCH} {cache} DIR`"
    )
