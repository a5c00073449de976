"""Environment variables that stand for keys, and how a text becomes a value."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

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

OF_BACKENDS = {"BACKEND_URL": ("url", ""), "REDIS_URL": ("redis_url", "whaticket")}
"""Names that users know, for the first [[backend]] of that engine ("" = any): its key."""

_WORDS = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_WANTED = {bool: "true or false", int: "a whole number", float: "a number"}

Given = Iterator[tuple[str, Any, str]]
"""Key, value, and the words that say where it came from; the last one of a key wins."""


def read_given(
    env: Mapping[str, str], overrides: Mapping[str, str], tables: Mapping[str, Any]
) -> Given:
    """All that stands outside the file. A key's own name (WA_AGENT_SECTION__KEY) wins over a name
    that users know, and the command line over both."""
    for name, (key, unit) in NAMED.items():
        if text := env.get(name):
            if name == "LOG_LEVEL":
                text = "warn" if text.lower() == "warning" else text.lower()
            yield _read(text, key, tables, f"environment variable {name}{unit}", unit)
    for name in sorted(env):
        if name.startswith(PREFIX) and name not in NOT_KEYS:
            key = name[len(PREFIX) :].lower().replace("__", ".", 1)
            yield _read(env[name], key, tables, f"environment variable {name}")
    for key, text in overrides.items():
        yield _read(text, key, tables, f"command line ({key})")


def _read(
    text: str, key: str, tables: Mapping[str, Any], words: str, unit: str = ""
) -> tuple[str, Any, str]:
    """The text as the type of the key's default."""
    section, _, name = key.partition(".")
    plain = tables.get(section)
    if plain is None or all(name != it.name for it, _ in settings_of(plain)):
        raise ConfigError(f"cannot use {words}: there is no key {key}", field=key)
    kind = type(getattr(plain, name))
    if kind is tuple:
        return key, [part.strip() for part in text.split(",") if part.strip()], words
    if kind not in _WANTED:
        return key, text, words
    try:
        plain_text = text.strip().lower()
        value = msgspec.convert(_WORDS.get(plain_text, plain_text), kind, strict=False)
    except msgspec.ValidationError:
        cause = f"{key} must be {_WANTED[kind]}, not {text[:80]!r}"
        raise ConfigError(f"cannot use {words}: {cause}", field=key) from None
    if unit == MILLISECONDS:
        value = value / 1000
    return key, value / 100 if unit == PERCENT and value > 1 else value, words
