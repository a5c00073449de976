"""The doctor's checks of the engines that need programs of their own: a browser, or Node."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from agent.cli.doctor.check import Finding, Installation, note, ok, wrong
from agent.cli.doctor.machine import unit_words
from agent.config.config import Config
from agent.engines.baileys import doctor as baileys
from agent.engines.web import doctor as web
from agent.engines.web.browser.process import BINARIES
from agent.engines.web.settings import SHELL
from agent.errors import WaError
from agent.host.units import INSTANCES, PACKS
from agent.vault.identity import scan


def _environment(here: Installation) -> Mapping[str, str]:
    """A unit's worker has its unit's environment, not the doctor's."""
    if not here.installed:
        return os.environ
    words = unit_words("Environment", INSTANCES.unit("x"))
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _settings_of(config: Config, engine: str) -> list[Mapping[str, Any]]:
    """The settings of each instance of that engine that is declared or has a folder."""
    settings: list[Mapping[str, Any]] = [
        declared.settings for declared in config.instance if declared.engine == engine
    ]
    with suppress(OSError, WaError):
        for folder in scan(config.session_root):
            if folder.identity and folder.identity.instance.engine == engine:
                settings.append(folder.identity.instance.settings)
    return settings


def browser(here: Installation) -> Iterator[Finding]:
    """Without a web instance it is checked once a browser or the bundle is installed."""
    config = here.config
    named = {str(settings.get("browser", SHELL)) for settings in _settings_of(config, "web")}
    kinds = named & set(BINARIES)  # as far as known without an agent
    wanted = bool(here.running["web"] or kinds)
    problems = web.examine(config.cache_root, _environment(here), kinds or {SHELL})
    missing = {problem.code for problem in problems}
    if not wanted and {"browser_missing", "bundle_missing"} <= missing:
        yield ok("no web instance and no part of the web engine: not checked")
        return
    for problem in problems:
        make = wrong if problem.serious and wanted else note
        yield make(problem.sentence, problem.cure)
    if not problems:
        yield ok("the web engine can run")


def node(here: Installation) -> Iterator[Finding]:
    """Without a baileys instance it is checked once all its parts are installed."""
    config = here.config
    wanted = bool(here.running["baileys"] or _settings_of(config, "baileys"))
    env = _environment(here)
    problems = baileys.examine(config.cache_root, env, installed=here.installed)
    if problems and not wanted:
        yield ok("no baileys instance, and parts of its engine are missing: not checked")
        return
    for problem in problems:
        yield wrong(problem.sentence, problem.cure)
    if not problems:
        yield ok("the baileys engine can run")


def packs(here: Installation) -> Iterator[Finding]:
    """The sessions that each pack's worker holds."""
    config = here.config
    sizes: Counter[str] = Counter()
    for root in (PACKS.runtime, config.agent.state_path / "run-packs"):
        with suppress(OSError):
            for folder in root.iterdir():
                sizes[folder.name] += len(list((folder / "members").glob("*/link.sock")))
    sizes = +sizes
    if sizes:
        words = ", ".join(f"{name}: {count} sessions" for name, count in sorted(sizes.items()))
        yield ok(f"{words}; one worker and its Node read the keys of all sessions of a pack")
    full = [name for name, count in sorted(sizes.items()) if count > config.worker.pack]
    if full:
        words = f"more sessions than [worker] pack = {config.worker.pack}: {', '.join(full)}"
        yield note(words)
