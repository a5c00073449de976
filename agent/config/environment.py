"""Environment variables that stand for keys, and how a text becomes a value."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.config.backends import variables
from agent.core.setting import settings_of
from agent.errors import ConfigError

PREFIX = "WA_AGENT_"
NOT_KEYS = {"WA_AGENT_CONFIG", "WA_AGENT_SOCKET", "WA_AGENT_URL", "WA_AGENT_KEY"}
"""Variables of the command line that begin like ours."""

MILLISECONDS, PERCENT = " (milliseconds)", " (percent, or a share up to 1)"
NAMED = {
    "SESSION_STORAGE_PATH": ("agent.session_storage_path", ""),
    "CACHE_PATH": ("agent.cache_path", ""),
    "LOG_LEVEL": ("agent.log_level", ""),
    "WHATSAPP_RECONNECTION_MAX_RETRIES": ("reconnect.attempts", ""),
    "WHATSAPP_RECONNECTION_BASE_DELAY": ("reconnect.base", MILLISECONDS),
    "WHATSAPP_RECONNECTION_MAX_DELAY": ("reconnect.max", MILLISECONDS),
    "WHATSAPP_CIRCUIT_BREAKER_THRESHOLD": ("reconnect.breaker_failures", ""),
    "WHATSAPP_CIRCUIT_BREAKER_TIMEOUT": ("reconnect.breaker_pause", MILLISECONDS),
    "WHATSAPP_HEALTH_CHECK_INTERVAL": ("health.interval", MILLISECONDS),
    "WHATSAPP_PERFORMANCE_MONITORING": ("memory.measure", ""),
    "WHATSAPP_MEMORY_THRESHOLD": ("memory.warn", PERCENT),
    "WHATSAPP_CPU_THRESHOLD": ("troubles.cpu", PERCENT),
    "WHATSAPP_ERROR_RATE_THRESHOLD": ("health.error_rate", PERCENT),
    "WHATSAPP_RESPONSE_TIME_THRESHOLD": ("health.slow", MILLISECONDS),
}
"""Names that users know: the key, and how the variable counts."""

_WORDS = {"true": True, "yes": True, "on": True, "1": True}
_WORDS |= {"false": False, "no": False, "off": False, "0": False}
_WANTED = {bool: "true or false", int: "a whole number", float: "a number"}


def read_environment(
    env: Mapping[str, str], tables: Mapping[str, Any]
) -> Iterator[tuple[str, Any, str]]:
    """Key, value, and the words that say where it came from. A key's own name
    (WA_AGENT_SECTION__KEY) comes after, so it wins over a name that users know."""
    for name, (key, unit) in NAMED.items():
        if text := env.get(name):
            if name == "LOG_LEVEL":
                text = "warn" if text.lower() == "warning" else text.lower()
            words = f"environment variable {name}{unit}"
            yield key, parse_text(text, key, tables, words, unit), words
    for name in sorted(env):
        if name.startswith(PREFIX) and name not in NOT_KEYS:
            key = name[len(PREFIX) :].lower().replace("__", ".", 1)
            words = f"environment variable {name}"
            yield key, parse_text(env[name], key, tables, words), words


def read_for_backends(
    env: Mapping[str, str], engines: Sequence[Any]
) -> Iterator[tuple[str, int | None, str, str]]:
    """For each variable that is set: it, the number of the backend that takes it, the key, and the
    engine that it is for ("" = any)."""
    for name, (key, engine) in variables().items():
        if env.get(name):
            fitting = (n for n, its in enumerate(engines) if not engine or its == engine)
            yield name, next(fitting, None), key, engine


def parse_text(text: str, key: str, tables: Mapping[str, Any], words: str, unit: str = "") -> Any:
    """The text as the type of the key's default."""
    section, _, name = key.partition(".")
    plain = tables.get(section)
    if plain is None or all(name != setting.name for setting, _ in settings_of(plain)):
        raise ConfigError(f"cannot use {words}: there is no key {key}", field=key)
    default = getattr(plain, name)
    try:
        if isinstance(default, bool):
            return _WORDS[text.strip().lower()]
        if isinstance(default, int | float):
            number = type(default)(text)
            if unit == MILLISECONDS:
                return number / 1000
            return number / 100 if unit == PERCENT and number > 1 else number
    except (KeyError, ValueError):
        raise ConfigError(
            f"cannot use {words}: {key} must be {_WANTED[type(default)]}, not {text[:80]!r}",
            field=key,
        ) from None
    if isinstance(default, tuple):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text
