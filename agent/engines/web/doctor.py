"""Faults of this machine that keep the web engine from working, with cures. Changes nothing."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from agent.engines.surroundings import Finding
from agent.engines.web.browser.arguments import find_browser, find_setpriv
from agent.engines.web.browser.own_sandbox import sandbox_problem
from agent.engines.web.bundle import read_bundle
from agent.engines.web.settings import SHELL
from agent.errors import ConfigError

_SHM_NEEDED = 64 * 1024 * 1024
_FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts")


def examine(
    cache: Path, env: Mapping[str, str] | None = None, kinds: Iterable[str] = (SHELL,)
) -> list[Finding]:
    """Every finding; an empty list when the engine can run, with all these kinds of browsers."""
    named = (os.environ if env is None else env).get("WA_BROWSER", "")
    findings = [
        # One that is named is the only one, whatever an instance asks for.
        *(
            _of(partial(find_browser, kind, named))
            for kind in ([SHELL] if named else sorted(kinds))
        ),
        _of(lambda: read_bundle(cache)),
        _of(find_setpriv),
        _sandbox(),
        _shared_memory(),
        _fonts(),
    ]
    return [finding for finding in findings if finding is not None]


def _of(need: Callable[[], object]) -> Finding | None:
    try:
        need()
    except ConfigError as error:
        sentence, _, cure = str(error).partition(";")
        if not cure:
            sentence, _, cure = str(error).rpartition(": ")
        return Finding(error.code, sentence, cure.strip())
    return None


def _sandbox() -> Finding | None:
    if problem := sandbox_problem():
        sentence = f"the browser gets no sandbox: {problem.why}"
        return Finding("sandbox_not_possible", sentence, problem.cure)
    return None


def _shared_memory() -> Finding | None:
    size = 0
    with suppress(OSError):
        status = os.statvfs("/dev/shm")
        size = status.f_frsize * status.f_blocks
    if size >= _SHM_NEEDED:
        return None
    return Finding(
        "shared_memory_small",
        f"/dev/shm has {size} bytes, the browser writes to its temporary folder instead",
        "mount -o remount,size=256M /dev/shm",
        serious=False,
    )


def _fonts() -> Finding | None:
    if any(any(Path(folder).rglob("*.[to]tf")) for folder in _FONT_FOLDERS):
        return None
    return Finding(
        "fonts_missing",
        "no font is installed, pictures of the page show no text",
        "apt-get install fonts-liberation",
        serious=False,
    )
