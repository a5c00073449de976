"""The engines by name. An engine's module is imported only when it is asked for."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.core.setting import Fault, nearest, settings_of
from agent.core.words import ADOPTED, AGENT_SETTINGS, LEAST_MEMORY, MOST_MEMORY, Address
from agent.engines.base import NO_RULES, FileRules, OpenEngine
from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.config.config import BackendDeclaration


class EngineEntry(NamedTuple):
    name: str
    line: str
    """For people: what the engine is. The module `rules` in the package of a local engine imports
    the standard library only, and `engine` opens it."""
    module: str = ""
    """Module with the settings of a remote engine; "" = it has none."""
    memory: int = 0
    """The most bytes that a session of the engine needs; 0 = as much as [memory] says."""
    remote: bool = False
    """True where the sessions live on a server of another program: agent/backends watches it, and
    hears of no message that came or went."""
    packable: bool = False
    """True if one worker may hold several sessions."""
    finds_records: bool = False
    """True if the engine finds a session's damaged records by reading them."""
    sends: frozenset[str] = frozenset()
    """The types of messages that it sends, what they may have (quote, mentions), and what else it
    tells chats (mark_read, typing)."""
    repeats: bool = False
    """True where it derives WhatsApp's id of a message from the message's `key`: sent again it is
    the same message, which phones show once."""
    alike_by: str = "backend"
    """The setting by which sessions with the same value may fail for one cause."""


PLAIN = frozenset({"text", "media", "location", "contact", "reaction"})
ALL = PLAIN | {"quote", "mentions", "edit", "delete", "mark_read", "typing"}

_ENGINES = (
    EngineEntry(
        "web", "WhatsApp Web in one headless browser per instance", sends=ALL, repeats=True
    ),
    EngineEntry(
        "baileys",
        "WhatsApp without a browser: the npm package baileys in one Node process per instance",
        packable=True,
        sends=ALL,
        repeats=True,
    ),
    EngineEntry(
        "program",
        "your own bot, unchanged: a program that [[program]] in agent.toml names",
        alike_by="program",
    ),
    EngineEntry(
        "sandbox",
        "a session with a simulated phone and every fault on command; no WhatsApp behind it",
        memory=64 << 20,
        sends=ALL,
        repeats=True,
    ),
    EngineEntry("evolution", "sessions on an Evolution API server", remote=True),
    EngineEntry(
        "whaticket",
        "sessions on a whaticket-like (Baileys) server",
        "agent.backends.whaticket.contract",
        remote=True,
        finds_records=True,
    ),
)
CATALOG = {entry.name: entry for entry in _ENGINES}

PLACE, LONGEST_PLACE = ("backend", "remote"), 200
"""The settings of a session on a backend: which backend, and its name there."""


def engine_names() -> list[str]:
    return sorted(CATALOG)


def find_engine(name: str) -> EngineEntry:
    """Return the entry of that name; ConfigError lists the known ones."""
    if (entry := CATALOG.get(name)) is None:
        engines = [f"{each.name} ({each.line})" for each in CATALOG.values()]
        known = "; ".join(filter(None, [*engines, nearest(name, CATALOG)]))
        words = f"cannot use engine {name!r:.60}: unknown, known are: {known}"
        raise ConfigError(words, field="engine", code="unknown_engine")
    return entry


def entry_of(name: str) -> EngineEntry:
    """Return the entry; for an engine that is gone, one without capabilities."""
    return CATALOG.get(name) or EngineEntry(name, "")


def remote_engines() -> frozenset[str]:
    return frozenset(entry.name for entry in CATALOG.values() if entry.remote)


def backend_settings(name: str) -> Any:
    """Return the default settings that only backends of this engine have."""
    from agent.config.config import NoSettings

    module = CATALOG[name].module
    return import_module(module).BackendSettings() if module else NoSettings()


def backend_faults(backend: "BackendDeclaration") -> Iterator[Fault]:
    """Yield the faults of a backend, by the rules that all share and by its engine's own."""
    from agent.config.config import shared_faults  # no worker needs them

    yield from shared_faults(backend)
    if module := CATALOG[backend.engine].module:
        yield from import_module(module).find_faults(backend)


def describe_engine(name: str) -> dict[str, Any]:
    """Return an engine's words for people, and its settings: those of an instance, or (remote) of a
    backend."""
    entry = find_engine(name)
    table = backend_settings(name) if entry.remote else _rules(entry).read_settings({})
    rows: list[tuple[Any, ...]] = [
        (field.name, mark.meaning, getattr(table, field.name), [*mark.choices])
        for field, mark in settings_of(table)
    ]
    if not entry.remote:  # of every session on this machine; the agent reads it, not the engine
        limit = "bytes of memory that it may use, instead of [memory] instance; 0 = no limit"
        rows.append(("memory_limit", limit, None, []))
    keys = ("name", "meaning", "default", "choices")
    settings = [dict(zip(keys, row, strict=True)) for row in rows]
    about = {"name": name, "about": entry.line, "remote": entry.remote}
    return {**about, "sends": sorted(entry.sends), "settings": settings}


def check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings with which no worker of that engine could start; ConfigError names one."""
    entry = find_engine(name)
    limit = settings.get("memory_limit", 0)
    if type(limit) is not int or not (limit == 0 or LEAST_MEMORY <= limit <= MOST_MEMORY):
        raise ConfigError(
            "cannot use setting 'memory_limit': it is a whole number of bytes,"
            f" at least {LEAST_MEMORY} (no worker runs with less), or 0 = no limit",
            field="memory_limit",
        )
    own = {key: value for key, value in settings.items() if key not in AGENT_SETTINGS}
    if not entry.remote:
        _rules(entry).read_settings(own)
        return
    for key, value in own.items():
        good, cause = isinstance(value, bool), "it must be true or false"
        if key != ADOPTED:
            line = isinstance(value, str) and value.isprintable() and len(value) <= LONGEST_PLACE
            cause = f"known are {', '.join(PLACE)}, each a line of at most {LONGEST_PLACE} signs"
            good = line and key in PLACE
        if not good:
            raise ConfigError(f"cannot use setting {key!r:.60}: {cause}", field=key)


def needed_address(name: str, settings: Mapping[str, Any], folder: Path) -> Address | None:
    """The address that a session must reach to log in; `folder` is the engine's own. None: the
    engine refuses these settings, or the worker of its backend asks the server."""
    if (entry := CATALOG.get(name)) is None or entry.remote:
        return None
    rules = _rules(entry)
    own = {key: value for key, value in settings.items() if key not in AGENT_SETTINGS}
    try:
        address: Address | None = rules.needed_address(rules.read_settings(own), folder)
    except ConfigError:
        return None
    return address


def file_rules(name: str) -> FileRules:
    """Return the rules of that engine's session files; a backend's sessions have none here."""
    if (entry := CATALOG.get(name)) is None or entry.remote:
        return NO_RULES
    files: FileRules = _rules(entry).RULES
    return files


def load_engine(name: str) -> OpenEngine:
    if find_engine(name).remote:
        words = f"cannot run a session of engine {name} by itself: its sessions live on a backend"
        raise ConfigError(words, field="engine", code="engine_is_remote")
    try:
        open_engine: OpenEngine = import_module(f"agent.engines.{name}.engine").open_engine
    except ImportError as error:
        why = f"cannot load engine {name}: {error}"
        raise ConfigError(why, field="engine", code="engine_not_installed") from error
    return open_engine


def _rules(entry: EngineEntry) -> Any:
    return import_module(f"agent.engines.{entry.name}.rules")
