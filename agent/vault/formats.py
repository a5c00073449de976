"""What each engine's session files look like when they are whole, and what may be done with them.

The rules are repeated here as data: the vault imports no engine.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.model import SessionFiles
from agent.errors import VaultError
from agent.vault.atomic import read_plain_file
from agent.vault.locate import names_in, open_folder


@dataclass(frozen=True, slots=True)
class FilesReport:
    files: SessionFiles
    problem: str = ""
    """What is wrong and where, for people."""


Check = Callable[[Path, int, bool], FilesReport]
"""Gets the session folder, its path and open, and whether a phone is known to be paired."""


@dataclass(frozen=True, slots=True)
class Format:
    """One engine's files."""

    check: Check
    key_based: bool = False
    """Its keys move on with every message: put back in time, peers' messages cannot be read."""
    left_out: frozenset[str] = frozenset()
    """Names of files and folders that no copy needs."""


PROFILE = "profile"
"""The folder, in a web session's own, that is the browser's profile."""

_EVERYWHERE = frozenset({"lock", "lockfile", "LOCK", "parent.lock", ".parentlock"})
_BROWSER = frozenset(
    {
        *("Cache", "Code Cache", "GPUCache", "CacheStorage", "ScriptCache", "DawnCache"),
        *("DawnGraphiteCache", "DawnWebGPUCache", "GrShaderCache", "GraphiteDawnCache"),
        *("ShaderCache", "Crashpad", "Crash Reports", "BrowserMetrics", "DevToolsActivePort"),
        *("component_crx_cache", "extensions_crx_cache", "RunningChromeVersion", "diagnostics"),
    }
)


def format_of(engine: str) -> Format:
    return FORMATS.get(engine, _UNKNOWN)


def is_left_out(engine: str) -> Callable[[str], bool]:
    """Locks of this run, links that name this host, caches, files half written."""
    names = format_of(engine).left_out | _EVERYWHERE

    def left_out(path: str) -> bool:
        name = path.rpartition("/")[2]
        return (
            name in names
            or name.startswith("Singleton")
            or name.endswith((".lock", "-shm"))
            or (name.startswith(".") and name.endswith(".tmp"))
        )

    return left_out


def may_roll_back(engine: str) -> bool:
    """Whether an older copy may replace a newer session without somebody asking for just that."""
    return not format_of(engine).key_based


# sandbox


def check_sandbox(path: Path, session_fd: int, _paired: bool) -> FilesReport:
    name = "sandbox.json"
    raw = _read_if_there(path, session_fd, name)
    if raw is None:
        return FilesReport(SessionFiles.UNPAIRED)
    try:
        content = json.loads(raw)
        rest = {key: value for key, value in content.items() if key != "checksum"}
        text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
        whole = hashlib.sha256(text.encode()).hexdigest() == content["checksum"]
        paired = content["paired"] is True
        known = content["version"] == 1
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        return _damaged(path / name, _how_broken(raw, error))
    if not whole:
        return _damaged(path / name, "its checksum does not fit its content")
    if not known:
        return _damaged(path / name, f"its version is {content['version']!r:.40}, not 1")
    return FilesReport(SessionFiles.WHOLE if paired else SessionFiles.UNPAIRED)


# a browser's profile


def check_profile(path: Path, session_fd: int, paired: bool) -> FilesReport:
    """The pairing lives in the profile's IndexedDB; what is in there only WhatsApp can read."""
    stores = _leveldb_stores(path, session_fd)
    if not stores:
        return FilesReport(SessionFiles.UNPAIRED)
    for store, names in stores.items():
        if problem := _leveldb_problem(path / store, names):
            return FilesReport(SessionFiles.DAMAGED, problem)
    # A page that was only looked at leaves a store behind too. The engine's note knows of a
    # pairing that came about while no agent was there to record it.
    known = paired or _note_says_paired(path, session_fd)
    return FilesReport(SessionFiles.WHOLE if known else SessionFiles.UNPAIRED)


def _note_says_paired(path: Path, session_fd: int) -> bool:
    try:
        told = json.loads(_read_if_there(path, session_fd, "web.json") or b"{}")
    except (ValueError, RecursionError):
        return False
    return isinstance(told, dict) and told.get("paired") is True


def _leveldb_stores(path: Path, session_fd: int) -> dict[str, dict[str, int]]:
    """Every site's store: its path, and its files with their sizes."""
    way = (PROFILE, "Default", "IndexedDB")
    found: dict[str, dict[str, int]] = {}
    try:
        with (
            open_folder(path / way[0], way[0], session_fd) as profile,
            open_folder(path / "/".join(way[:2]), way[1], profile) as default,
            open_folder(path / "/".join(way), way[2], default) as databases,
        ):
            for name in names_in(databases):
                if not name.endswith(".leveldb"):
                    continue
                inner = "/".join((*way, name))
                with open_folder(path / inner, name, databases) as fd:
                    found[inner] = {
                        each: os.stat(each, dir_fd=fd, follow_symlinks=False).st_size
                        for each in names_in(fd)
                    }
    except VaultError as error:
        if error.code != "absent":
            raise
    return found


def _leveldb_problem(store: Path, files: Mapping[str, int]) -> str:
    if not files:
        return f"cannot use {store}: it is empty"
    if not files.get("CURRENT"):
        state = "empty" if "CURRENT" in files else "missing"
        return f"cannot use {store / 'CURRENT'}: it is {state}"
    manifests = [name for name in files if name.startswith("MANIFEST-")]
    if not any(files[name] for name in manifests):
        state = "empty" if manifests else "missing"
        return f"cannot use {store / (manifests or ['MANIFEST'])[0]}: it is {state}"
    for name, size in files.items():
        if name.endswith(".ldb") and not size:
            return f"cannot use {store / name}: it is empty"
    return ""


# a folder of Baileys' useMultiFileAuthState


def check_auth_folder(path: Path, session_fd: int, _paired: bool) -> FilesReport:
    """creds.json is the pairing; a key file that broke costs one peer, never the pairing."""
    name = "creds.json"
    raw = _read_if_there(path, session_fd, name)
    others = [each for each in names_in(session_fd) if each.endswith(".json") and each != name]
    if raw is None:
        if any(each.startswith(("pre-key-", "session-", "app-state-sync-")) for each in others):
            return _damaged(path / name, "it is missing, and its keys are there")
        return FilesReport(SessionFiles.UNPAIRED)
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        return _damaged(path / name, _how_broken(raw, error))
    if not isinstance(content, dict):
        return _damaged(path / name, "it is not an object")
    for key in ("noiseKey", "signedIdentityKey"):
        if not _is_key_pair(content.get(key)):
            return _damaged(path / name, f"{key} is missing or no pair of keys")
    me = content.get("me")
    if not isinstance(me, dict) or not isinstance(me.get("id"), str) or not me["id"]:
        return FilesReport(SessionFiles.UNPAIRED)
    return FilesReport(SessionFiles.WHOLE, _broken_keys(path, session_fd, others))


def _is_key_pair(value: Any) -> bool:
    return isinstance(value, dict) and bool(value.get("private")) and bool(value.get("public"))


def _broken_keys(path: Path, session_fd: int, names: list[str]) -> str:
    empty = [
        name
        for name in names
        if not os.stat(name, dir_fd=session_fd, follow_symlinks=False).st_size
    ]
    if not empty:
        return ""
    more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
    return f"{path / empty[0]}{more}: empty; the engine regenerates those peers' keys"


# others


def check_present(_path: Path, _session_fd: int, _paired: bool) -> FilesReport:
    """For an engine whose files we have no rule for: something is there."""
    return FilesReport(SessionFiles.WHOLE)


def _read_if_there(path: Path, folder_fd: int, name: str) -> bytes | None:
    try:
        return read_plain_file(path, folder_fd, name)
    except VaultError as error:
        if error.code != "absent":
            raise
        return None


def _how_broken(raw: bytes, error: Exception) -> str:
    if not raw:
        return "it is empty: its writing was cut short"
    if not raw.strip(b"\0"):
        return "it holds zeros only: its writing was cut short"
    return f"it is no session file ({error})"


def _damaged(path: Path, cause: str) -> FilesReport:
    return FilesReport(SessionFiles.DAMAGED, f"cannot use {path}: {cause}")


_UNKNOWN = Format(check_present)

FORMATS: Mapping[str, Format] = {
    "sandbox": Format(check_sandbox),
    "web": Format(check_profile, left_out=_BROWSER),
    "baileys": Format(
        check_auth_folder, key_based=True, left_out=frozenset({"removed-keys", "baileys.json"})
    ),
    "whaticket": Format(check_auth_folder, key_based=True),
}
