"""The settings of an instance with the web engine. Standard library only."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.setting import setting
from agent.core.words import Address
from agent.engines.settings import (
    address_of,
    device_name_fault,
    proxy_fault,
    read_table,
    server_fault,
)

WHATSAPP = "https://web.whatsapp.com/"
SHELL, CHROMIUM = "headless-shell", "chromium"
LIVE, KNOWN_GOOD = "live", "known_good"
_VERSION = re.compile(r"[0-9][0-9A-Za-z.-]{0,39}")


def _url_fault(url: str) -> str:
    return server_fault(url, "https", "http")


def _page_fault(page: str) -> str:
    if page in (LIVE, KNOWN_GOOD) or _VERSION.fullmatch(page):
        return ""
    return f"neither {LIVE} nor {KNOWN_GOOD} nor a version"


def _proxy_fault(proxy: str) -> str:
    fault = proxy_fault(proxy)
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
        check=_url_fault,
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
        "", "name in the phone's list of linked devices; \"\" = WhatsApp's", check=device_name_fault
    )
    browser_starts: int = 3
    """Starts of a browser that died, in ten minutes, before the worker ends."""


def read_settings(raw: Mapping[str, Any]) -> WebSettings:
    """ConfigError names the setting that cannot be used."""
    return read_table(WebSettings, raw, "web setting")


def needed_address(settings: WebSettings, _folder: Path) -> Address:
    """The site's own address, on the way that the browser takes."""
    return address_of(settings.url, settings.proxy)
