"""The wa-js bundle: the one version that we know, checked before each use."""

import json
import sys
from pathlib import Path

from agent.engines.files import sha256
from agent.errors import ConfigError

VERSION = "4.6.0"
NAME = "@wppconnect/wa-js"
SHA256 = "5bfb88027f14a4d8c9e319374e8bb4083201906881cf8c74f75789b32e4106bd"
FETCH = "agent.engines.web.fetch"
"""The program that gets it; not imported here, or every worker would carry an HTTP client."""


def bundle_path(cache: Path) -> Path:
    return cache / "wa-js" / f"wppconnect-wa-{VERSION}.js"


def read_bundle(cache: Path) -> str:
    """The bundle's text; ConfigError when it is missing or not the one we know."""
    path = bundle_path(cache)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"cannot find the wa-js bundle {path}; fetch it: {fetch_command(cache)}",
            code="bundle_missing",
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", code="bundle_missing") from error
    if sha256(content) != SHA256:
        raise ConfigError(
            f"cannot use {path}: its checksum is not that of {NAME} {VERSION};"
            " remove the file and fetch it again",
            code="bundle_changed",
        )
    return content.decode()


def fetch_command(cache: Path) -> str:
    """What can be pasted: no other Python knows this program."""
    return f"{sys.executable} -m {FETCH} {cache}"


def page_config(device_name: str) -> str:
    """What the bundle reads before it starts; its telemetry is off."""
    return json.dumps({"disableGoogleAnalytics": True, "deviceName": device_name or False})
