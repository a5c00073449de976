"""The web engine's settings of an instance, and the files of a session: the browser's profile and
the engine's note. The pairing is in the profile's IndexedDB, which only WhatsApp can read. Standard
library only."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.core.setting import setting
from agent.core.words import Address, SessionFiles
from agent.engines import base

WHATSAPP = "https://web.whatsapp.com/"
SHELL, CHROMIUM = "headless-shell", "chromium"
LIVE, KNOWN_GOOD = "live", "known_good"
VERSION = re.compile(r"[0-9][0-9A-Za-z.-]{0,39}")


def _page_fault(page: str) -> str:
    if page in (LIVE, KNOWN_GOOD) or VERSION.fullmatch(page):
        return ""
    return f"neither {LIVE} nor {KNOWN_GOOD} nor a version"


def _proxy_fault(proxy: str) -> str:
    fault = base.proxy_fault(proxy)
    return fault or ("the browser takes no user name or password there" if "@" in proxy else "")


@dataclass(frozen=True, slots=True)
class WebSettings:
    browser: str = setting(
        SHELL,
        "headless-shell needs a third of the memory of chromium, the full browser",
        choices=(SHELL, CHROMIUM),
    )
    url: str = setting(
        WHATSAPP,
        "address of WhatsApp Web; for tests another https address, or http on loopback",
        check=lambda url: base.server_fault(url, "https", "http"),
    )
    page: str = setting(
        LIVE,
        "live = the page that WhatsApp serves; known_good = the last page that connected;"
        " or a version",
        check=_page_fault,
    )
    proxy: str = setting(
        "", "http://, https:// or socks5://HOST:PORT of the browser's proxy", check=_proxy_fault
    )
    device_name: str = setting(
        "",
        "name in the phone's list of linked devices; \"\" = WhatsApp's",
        check=base.device_name_fault,
    )
    browser_starts: int = 3
    """Starts of a browser that died, in ten minutes, before the worker ends."""


def read_settings(raw: Mapping[str, object]) -> WebSettings:
    return base.read_table(WebSettings, raw, "web setting")


def needed_address(settings: WebSettings, _folder: Path) -> Address:
    """Return the site's own address, on the way that the browser takes."""
    return base.address_of(settings.url, settings.proxy)


PROFILE = "profile"
"""The folder, in the session's own, that is the browser's profile."""
NOTE = "web.json"
STORES = "Default/IndexedDB"
"""Folder below the profile with a folder for each site's databases."""
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
    """True if WhatsApp Web left something in the profile that can hold a pairing, or what it left
    cannot be looked at."""
    try:
        return any(entry.is_dir() for entry in (profile / STORES).iterdir())
    except OSError as error:
        return not isinstance(error, FileNotFoundError | NotADirectoryError)


def lost_store(session: Path) -> str:
    profile = profile_path(session)
    return "" if has_pairing(profile) else f"{profile / STORES} holds nothing of WhatsApp"


def check(folder: base.SessionFolder, paired: bool) -> base.FilesReport:
    if (report := check_profile(folder, PROFILE)).files is not SessionFiles.WHOLE:
        return report
    # A page that was only looked at leaves a store behind too. The engine's note knows of a
    # pairing that came about while no agent was there to record it.
    is_paired = paired or base.object_of(folder.read(NOTE)).get("paired") is True
    return base.FilesReport(SessionFiles.WHOLE if is_paired else SessionFiles.UNPAIRED)


def check_profile(folder: base.SessionFolder, profile: str) -> base.FilesReport:
    """Inspect a browser's profile at this path in the folder; another record says whether it is
    paired."""
    names = folder.sizes(f"{profile}/{STORES}")
    stores = [f"{profile}/{STORES}/{name}" for name in names if name.endswith(".leveldb")]
    if not stores:
        return base.FilesReport(SessionFiles.UNPAIRED)
    for store in stores:
        if problem := _leveldb_problem(folder.path / store, folder.sizes(store)):
            return base.FilesReport(SessionFiles.DAMAGED, problem)
    return base.FilesReport(SessionFiles.WHOLE)


def linked(folder: base.SessionFolder) -> base.Linked:
    """Return the device, which the note names since its first connection with this engine."""
    note = base.object_of(folder.read(NOTE))
    account, device = (note.get(name) for name in ("account", "device"))
    known = note.get("paired") is True and isinstance(account, str) and isinstance(device, str)
    return base.Linked(str(account), str(device)) if known else base.Linked()


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


def check_login(session: Path, account: str) -> None:
    """Refuse another account's pairing: programs would take it for this account."""
    try:
        note = base.object_of((session / NOTE).read_bytes())
    except OSError:
        return
    base.refuse_other(session / NOTE, note.get("account"), account)


LEFT_OUT = MADE_BY_BROWSER | {"diagnostics"}
RULES = base.FileRules(check, lost_store, left_out=LEFT_OUT, linked=linked, check_login=check_login)
