"""The engines by name. An engine's module is imported only when it is asked for."""

from dataclasses import dataclass
from importlib import import_module

from agent.engines.base import OpenEngine
from agent.errors import ConfigError


@dataclass(frozen=True, slots=True)
class EngineEntry:
    name: str
    line: str
    """What it is, for people."""
    module: str
    """Offers `open_engine`."""
    tls: bool = True
    """False where the worker may leave OpenSSL out of its memory."""
    forkable: bool = False
    """True where a worker may be forked from a warm process: no threads, no foreign runtime."""


CATALOG = {
    entry.name: entry
    for entry in (
        EngineEntry(
            "sandbox",
            "a session with a simulated phone and every fault on command; no WhatsApp behind it",
            "agent.engines.sandbox",
            tls=False,
            forkable=True,
        ),
        EngineEntry(
            "web",
            "WhatsApp Web in one headless browser per instance",
            "agent.engines.web",
            tls=False,
        ),
    )
}


def engine_names() -> list[str]:
    return sorted(CATALOG)


def find_engine(name: str) -> EngineEntry:
    """The entry of that name; ConfigError lists the known ones."""
    entry = CATALOG.get(name)
    if entry is None:
        known = "; ".join(f"{each.name} ({each.line})" for each in CATALOG.values())
        raise ConfigError(
            f"cannot use engine {name!r:.60}: unknown, known are: {known}",
            field="engine",
            code="unknown_engine",
        )
    return entry


def load_engine(name: str) -> OpenEngine:
    """Import the engine of that name."""
    entry = find_engine(name)
    try:
        open_engine: OpenEngine = import_module(entry.module).open_engine
    except ImportError as error:
        raise ConfigError(
            f"cannot load engine {name}: {error}", field="engine", code="engine_not_installed"
        ) from error
    return open_engine
