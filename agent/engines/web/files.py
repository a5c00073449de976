"""The files of a web session: the browser's profile and the engine's note. Standard library only.
The pairing is in the profile's IndexedDB, which only WhatsApp can read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.core.words import SessionFiles
from agent.engines.files import FileRules, FilesReport, Linked, SessionFolder

PROFILE = "profile"
"""The folder, in the session's own, that is the browser's profile."""
NOTE = "web.json"
STORES = "Default/IndexedDB"
"""Below the profile: a folder for each site's databases."""
MADE_BY_BROWSER = frozenset(
    {
        *("Cache", "Code Cache", "GPUCache", "CacheStorage", "ScriptCache", "DawnCache"),
        *("DawnGraphiteCache", "DawnWebGPUCache", "GrShaderCache", "GraphiteDawnCache"),
        *("ShaderCache", "Crashpad", "Crash Reports", "BrowserMetrics", "DevToolsActivePort"),
        *("component_crx_cache", "extensions_crx_cache", "RunningChromeVersion"),
    }
)
"""Caches, and what belongs to one process: the next browser makes them again."""


def profile_path(session: Path) -> Path:
    return session / PROFILE


def has_pairing(profile: Path) -> bool:
    """Whether WhatsApp Web left something in it that can hold a pairing."""
    try:
        return any(entry.is_dir() for entry in (profile / STORES).iterdir())
    except OSError:
        return False


def lost_store(session: Path) -> str:
    """Why this folder cannot hold a pairing; "" where it may."""
    stores = profile_path(session) / STORES
    try:
        if any(entry.is_dir() for entry in stores.iterdir()):
            return ""
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError:
        return ""  # it is there
    return f"{stores} holds nothing of WhatsApp"


def check(folder: SessionFolder, paired: bool) -> FilesReport:
    if (report := check_profile(folder, PROFILE)).files is not SessionFiles.WHOLE:
        return report
    # A page that was only looked at leaves a store behind too. The engine's note knows of a
    # pairing that came about while no agent was there to record it.
    is_paired = paired or _note(folder).get("paired") is True
    return FilesReport(SessionFiles.WHOLE if is_paired else SessionFiles.UNPAIRED)


def check_profile(folder: SessionFolder, profile: str) -> FilesReport:
    """Of a browser's profile at this path in the folder, whose pairing another record tells."""
    names = folder.sizes(f"{profile}/{STORES}")
    stores = [f"{profile}/{STORES}/{name}" for name in names if name.endswith(".leveldb")]
    if not stores:
        return FilesReport(SessionFiles.UNPAIRED)
    for store in stores:
        if problem := _leveldb_problem(folder.path / store, folder.sizes(store)):
            return FilesReport(SessionFiles.DAMAGED, problem)
    return FilesReport(SessionFiles.WHOLE)


def linked(folder: SessionFolder) -> Linked:
    """The note names the device since its first connection with this version of the engine."""
    note = _note(folder)
    account, device = (note.get(name) for name in ("account", "device"))
    if note.get("paired") is not True or not isinstance(account, str):
        return Linked()
    return Linked(account, device) if isinstance(device, str) else Linked()


def _note(folder: SessionFolder) -> Mapping[str, Any]:
    try:
        note = json.loads(folder.read(NOTE) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def _leveldb_problem(store: Path, sizes: Mapping[str, int]) -> str:
    if not sizes:
        return f"cannot use {store}: it is empty"
    if not sizes.get("CURRENT"):
        state = "empty" if "CURRENT" in sizes else "missing"
        return f"cannot use {store / 'CURRENT'}: it is {state}"
    manifests = [name for name in sizes if name.startswith("MANIFEST-")]
    if not any(sizes[name] for name in manifests):
        state = "empty" if manifests else "missing"
        return f"cannot use {store / (manifests or ['MANIFEST'])[0]}: it is {state}"
    for name, size in sizes.items():
        if name.endswith(".ldb") and not size:
            return f"cannot use {store / name}: it is empty"
    return ""


RULES = FileRules(check, lost_store, left_out=MADE_BY_BROWSER | {"diagnostics"}, linked=linked)
