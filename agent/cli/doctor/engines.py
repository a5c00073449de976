"""The doctor's checks of the engines that need programs of their own: a browser, or Node."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from agent.cli.doctor.check import Finding, Installation, note, ok, wrong
from agent.cli.doctor.installation import unit_words
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


def _settings_of(here: Installation, engine: str) -> Iterator[Mapping[str, Any]]:
    """The settings of each instance of that engine that is declared or has a folder."""
    yield from (its.settings for its in here.config.instance if its.engine == engine)
    with suppress(OSError, WaError):
        kept = [it.identity.instance for it in scan(here.config.session_root) if it.identity]
        yield from (instance.settings for instance in kept if instance.engine == engine)


def browser(here: Installation) -> Iterator[Finding]:
    """Without a web instance it is checked once a browser or the bundle is installed."""
    named = {str(settings.get("browser", SHELL)) for settings in _settings_of(here, "web")}
    kinds = named & set(BINARIES)  # as far as known without an agent
    wanted = bool(here.running["web"] or kinds)
    problems = web.examine(here.config.cache_root, _environment(here), kinds or {SHELL})
    if not wanted and {"browser_missing", "bundle_missing"} <= {its.code for its in problems}:
        yield ok("no web instance and no part of the web engine: not checked")
        return
    for problem in problems:
        make = wrong if problem.serious and wanted else note
        yield make(problem.sentence, problem.cure)
    if not problems:
        yield ok("the web engine can run")


def node(here: Installation) -> Iterator[Finding]:
    """Without a baileys instance it is checked once all its parts are installed."""
    wanted = bool(here.running["baileys"] or [*_settings_of(here, "baileys")])
    env = _environment(here)
    problems = baileys.examine(here.config.cache_root, env, installed=here.installed)
    if problems and wanted:
        yield from (wrong(problem.sentence, problem.cure) for problem in problems)
    elif problems:
        yield ok("no baileys instance, and parts of its engine are missing: not checked")
    else:
        yield ok("the baileys engine can run")


def packs(here: Installation) -> Iterator[Finding]:
    """The sessions that each pack's worker holds."""
    sizes: Counter[str] = Counter()
    for root in (PACKS.runtime, here.state / "run-packs"):
        for link in root.glob("*/members/*/link.sock"):
            sizes[link.parts[-4]] += 1
    for name, count in sorted(sizes.items()):
        most = here.config.worker.pack
        words = f"{name}: {count} sessions, whose keys its worker and its Node read"
        more = f"{words}; more than [worker] pack = {most}"
        yield ok(words) if count <= most else note(more)
