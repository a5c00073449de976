"""The settings of an instance with the baileys engine. Standard library only."""

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

WHATSAPP = "wss://web.whatsapp.com/ws/chat"
KNOWN_GOOD = "known_good"
_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,6}\.[0-9]{1,12}")


def _url_fault(url: str) -> str:
    return server_fault(url, "wss", "ws")


def _media_fault(url: str) -> str:
    return server_fault(url, "https", "http") if url else ""


def _version_fault(version: str) -> str:
    if version in ("", KNOWN_GOOD) or _VERSION.fullmatch(version):
        return ""
    return f"neither {KNOWN_GOOD} nor a version as 2.3000.1043857760"


@dataclass(frozen=True, slots=True)
class BaileysSettings:
    url: str = setting(
        WHATSAPP,
        "address of WhatsApp; for tests another wss address, or ws on loopback",
        check=_url_fault,
    )
    media_url: str = setting(
        "",
        'address of a server that gives files in tests, https or http on loopback; "" = WhatsApp',
        check=_media_fault,
    )
    version: str = setting(
        "",
        '"" = the version of the library; known_good = the last version that connected;'
        " or a version as 2.3000.1043857760",
        check=_version_fault,
    )
    proxy: str = setting(
        "", "http://, https:// or socks5://HOST:PORT for all traffic", check=proxy_fault
    )
    device_name: str = setting(
        "",
        "name in the phone's list of linked devices; \"\" = the library's",
        check=device_name_fault,
    )
    client_starts: int = setting(
        5, "starts of a client that ended, in ten minutes, before the worker ends", low=0, high=100
    )


def read_settings(raw: Mapping[str, Any]) -> BaileysSettings:
    """ConfigError names the setting that cannot be used."""
    return read_table(BaileysSettings, raw, "baileys setting")


def needed_address(settings: BaileysSettings, _folder: Path) -> Address:
    """WhatsApp's address, on the way that the client takes."""
    return address_of(settings.url, settings.proxy)
