"""Which environment variables stand for which keys, and how their text becomes a value."""

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

from agent.config.backends import WHATICKET, BackendDeclaration
from agent.config.setting import settings_of
from agent.errors import ConfigError

PREFIX = "WA_AGENT_"

NOT_KEYS = frozenset(
    {"WA_AGENT_CONFIG", "WA_AGENT_SOCKET", "WA_AGENT_URL", "WA_AGENT_KEY"},
)
"""Variables of the command line that begin like ours."""

NAMED = {
    "SESSION_STORAGE_PATH": ("agent.session_storage_path", 1.0),
    "CACHE_PATH": ("agent.cache_path", 1.0),
    "LOG_LEVEL": ("agent.log_level", 1.0),
    "WHATSAPP_RECONNECTION_MAX_RETRIES": ("reconnect.attempts", 1.0),
    "WHATSAPP_RECONNECTION_BASE_DELAY": ("reconnect.base", 0.001),
    "WHATSAPP_RECONNECTION_MAX_DELAY": ("reconnect.max", 0.001),
    "WHATSAPP_CIRCUIT_BREAKER_THRESHOLD": ("reconnect.breaker_failures", 1.0),
    "WHATSAPP_CIRCUIT_BREAKER_TIMEOUT": ("reconnect.breaker_pause", 0.001),
    "WHATSAPP_HEALTH_CHECK_INTERVAL": ("health.interval", 0.001),
}
"""Name → key and the unit of the variable in seconds (0.001: it is given in milliseconds)."""

OF_BACKENDS = {"BACKEND_URL": ("url", ""), "REDIS_URL": ("redis_url", WHATICKET)}
"""Name → the key of the first [[backend]] of that engine ("" = any) that it overrides."""

_WORDS = {"true": True, "yes": True, "on": True, "1": True}
_WORDS |= {"false": False, "no": False, "off": False, "0": False}


def read_environment(env: Mapping[str, str], config: Any) -> dict[str, tuple[Any, str]]:
    """Values by dotted key, each with the words that say where it came from.

    A key's own name (WA_AGENT_SECTION__KEY) wins over an alias.
    """
    found: dict[str, tuple[Any, str]] = {}
    for name, (key, unit) in NAMED.items():
        if env.get(name):
            source = f"environment variable {name}"
            if unit != 1.0:
                source += " (milliseconds)"
            text = env[name].lower() if name == "LOG_LEVEL" else env[name]
            text = "warn" if name == "LOG_LEVEL" and text == "warning" else text
            found[key] = (parse_text(text, key, config, source, unit), source)
    for name in sorted(env):
        if not name.startswith(PREFIX) or name in NOT_KEYS:
            continue
        section, _, key = name[len(PREFIX) :].lower().partition("__")
        source = f"environment variable {name}"
        found[f"{section}.{key}"] = (
            parse_text(env[name], f"{section}.{key}", config, source),
            source,
        )
    return found


def read_for_backends(
    env: Mapping[str, str], backends: tuple[BackendDeclaration, ...]
) -> Iterator[tuple[int, str, str, str]]:
    """For each variable that is set: which backend, which key, the value, where it came from."""
    for name, (key, _) in OF_BACKENDS.items():
        if env.get(name) and (fitting := _fitting(name, backends)):
            yield fitting[0], key, env[name], f"environment variable {name}"


def unused_variables(
    env: Mapping[str, str], backends: tuple[BackendDeclaration, ...]
) -> Iterator[str]:
    """A sentence for each variable that no backend takes.

    That is no error: on a machine it may well be meant for another program.
    """
    for name, (key, engine) in OF_BACKENDS.items():
        if env.get(name) and not _fitting(name, backends):
            wanted = f"[[backend]] of engine {engine}" if engine else "[[backend]]"
            yield (
                f"the environment variable {name} is not used:"
                f" there is no {wanted} whose {key} it could be"
            )


def _fitting(variable: str, backends: tuple[BackendDeclaration, ...]) -> list[int]:
    engine = OF_BACKENDS[variable][1]
    return [n for n, one in enumerate(backends) if not engine or one.engine == engine]


def parse_text(text: str, key: str, config: Any, source: str, unit: float = 1.0) -> Any:
    """Read a text as the type of the key's default."""
    section, _, name = key.partition(".")
    holder = getattr(config, section, None)
    marked = {one.name for one, _ in settings_of(holder)} if is_dataclass(holder) else set()
    if name not in marked:
        raise ConfigError(f"cannot use {source}: there is no key {key}", field=key)
    default = getattr(holder, name)
    try:
        if isinstance(default, bool):
            return _WORDS[text.strip().lower()]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text) * unit
    except (KeyError, ValueError):
        wanted = {"bool": "true or false", "int": "a whole number", "float": "a number"}
        shown = wanted[type(default).__name__]
        raise ConfigError(
            f"cannot use {source}: {key} must be {shown}, not {text[:80]!r}", field=key
        ) from None
    if isinstance(default, tuple):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text
