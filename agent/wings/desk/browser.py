"""The browser of a desktop, with a window."""

import os
from collections.abc import Mapping
from pathlib import Path

from agent.engines.web.browser.arguments import BINARIES, Program, in_path
from agent.engines.web.settings import CHROMIUM
from agent.errors import ConfigError

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def find_visible_browser(named: str = "") -> Program:
    """The named one, else the first that the machine has; ConfigError says what to install."""
    if named:
        if in_path(named) is None and not os.access(named, os.X_OK):
            raise ConfigError(
                f"cannot find the browser {named!r:.200}", field="browser", code="browser_missing"
            )
        return _visible(Path(in_path(named) or named).absolute())
    for path in map(Path, BINARIES[CHROMIUM]):
        if path.is_file():
            return _visible(path)
    for name in _NAMES:
        if (program := in_path(name)) is not None:
            return _visible(Path(program))
    raise ConfigError(
        "cannot find Chromium or Chrome; install it: sudo apt install chromium (Debian),"
        " sudo dnf install chromium (Fedora), sudo pacman -S chromium (Arch),"
        " https://www.google.com/chrome/ (Ubuntu: its snap cannot be used); or name it: --browser"
        " PROGRAM",
        field="browser",
        code="browser_missing",
    )


def _visible(path: Path) -> Program:
    return Program(CHROMIUM, path, visible=True)


def need_display(env: Mapping[str, str]) -> None:
    if not (env.get("DISPLAY") or env.get("WAYLAND_DISPLAY")):
        raise ConfigError(
            "cannot open a window: neither DISPLAY nor WAYLAND_DISPLAY is set; run this in a"
            " desktop's terminal",
            code="no_display",
        )
