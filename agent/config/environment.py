"""Which environment variables stand for which keys, and how their text becomes a value."""

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from enum import StrEnum
from typing import Any

from agent.config.backends import BackendDeclaration, variables
from agent.core.setting import settings_of
from agent.errors import ConfigError

PREFIX = "WA_AGENT_"

NOT_KEYS = frozenset(
    {"WA_AGENT_CONFIG", "WA_AGENT_SOCKET", "WA_AGENT_URL", "WA_AGENT_KEY"},
)
"""Variables of the command line that begin like ours."""


class Unit(StrEnum):
    """How a named variable counts, where its key counts otherwise."""

    SAME = ""
    MILLISECONDS = "milliseconds"
    PERCENT = "percent, or a share up to 1"


NAMED = {
    "SESSION_STORAGE_PATH": (("agent.session_storage_path",), Unit.SAME),
    "CACHE_PATH": (("agent.cache_path",), Unit.SAME),
    "LOG_LEVEL": (("agent.log_level",), Unit.SAME),
    "WHATSAPP_RECONNECTION_MAX_RETRIES": (("reconnect.attempts",), Unit.SAME),
    "WHATSAPP_RECONNECTION_BASE_DELAY": (("reconnect.base",), Unit.MILLISECONDS),
    "WHATSAPP_RECONNECTION_MAX_DELAY": (("reconnect.max",), Unit.MILLISECONDS),
    "WHATSAPP_CIRCUIT_BREAKER_THRESHOLD": (("reconnect.breaker_failures",), Unit.SAME),
    "WHATSAPP_CIRCUIT_BREAKER_TIMEOUT": (("reconnect.breaker_pause",), Unit.MILLISECONDS),
    "WHATSAPP_HEALTH_CHECK_INTERVAL": (("health.interval",), Unit.MILLISECONDS),
    "WHATSAPP_PERFORMANCE_MONITORING": (("memory.measure",), Unit.SAME),
    "WHATSAPP_MEMORY_THRESHOLD": (("memory.warn",), Unit.PERCENT),
    "WHATSAPP_CPU_THRESHOLD": (("troubles.cpu",), Unit.PERCENT),
    "WHATSAPP_ERROR_RATE_THRESHOLD": (("health.error_rate",), Unit.PERCENT),
    "WHATSAPP_RESPONSE_TIME_THRESHOLD": (("health.slow",), Unit.MILLISECONDS),
}
"""Name → keys and how the variable counts."""

SECOND_LIMITS = (("memory.warn", "memory.critical"),)
"""A variable that sets the first above the second's default raises that as well."""

_WORDS = {"true": True, "yes": True, "on": True, "1": True}
_WORDS |= {"false": False, "no": False, "off": False, "0": False}


def read_environment(env: Mapping[str, str], config: Any) -> dict[str, tuple[Any, str]]:
    """Values by dotted key, each with the words that say where it came from. A key's own name
    (WA_AGENT_SECTION__KEY) wins over an alias."""
    values: dict[str, tuple[Any, str]] = {}
    for name, (keys, unit) in NAMED.items():
        if env.get(name):
            source = f"environment variable {name}"
            if unit:
                source += f" ({unit})"
            text = env[name].lower() if name == "LOG_LEVEL" else env[name]
            text = "warn" if name == "LOG_LEVEL" and text == "warning" else text
            for key in keys:
                values[key] = (parse_text(text, key, config, source, unit), source)
    for name in sorted(env):
        if not name.startswith(PREFIX) or name in NOT_KEYS:
            continue
        section, _, key = name[len(PREFIX) :].lower().partition("__")
        source = f"environment variable {name}"
        values[f"{section}.{key}"] = (
            parse_text(env[name], f"{section}.{key}", config, source),
            source,
        )
    return values


def read_for_backends(
    env: Mapping[str, str], backends: tuple[BackendDeclaration, ...]
) -> Iterator[tuple[int, str, str, str]]:
    """For each variable that is set: which backend, which key, the value, where it came from."""
    for name, (key, engine) in variables().items():
        if env.get(name) and (fitting := _fitting(engine, backends)):
            yield fitting[0], key, env[name], f"environment variable {name}"


def unused_variables(
    env: Mapping[str, str], backends: tuple[BackendDeclaration, ...]
) -> Iterator[str]:
    """A sentence for each variable that no backend takes. That is no error: on a machine it may
    well be meant for another program."""
    for name, (key, engine) in variables().items():
        if env.get(name) and not _fitting(engine, backends):
            wanted = f"[[backend]] of engine {engine}" if engine else "[[backend]]"
            yield (
                f"the environment variable {name} is not used:"
                f" there is no {wanted} whose {key} it could be"
            )


def _fitting(engine: str, backends: tuple[BackendDeclaration, ...]) -> list[int]:
    return [n for n, backend in enumerate(backends) if not engine or backend.engine == engine]


def parse_text(text: str, key: str, config: Any, source: str, unit: Unit = Unit.SAME) -> Any:
    """Read a text as the type of the key's default."""
    section, _, name = key.partition(".")
    holder = getattr(config, section, None)
    marked = {setting.name for setting, _ in settings_of(holder)} if is_dataclass(holder) else set()
    if name not in marked:
        raise ConfigError(f"cannot use {source}: there is no key {key}", field=key)
    default = getattr(holder, name)
    try:
        if isinstance(default, bool):
            return _WORDS[text.strip().lower()]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return _in_unit(float(text), unit)
    except (KeyError, ValueError):
        wanted = {"bool": "true or false", "int": "a whole number", "float": "a number"}
        shown = wanted[type(default).__name__]
        raise ConfigError(
            f"cannot use {source}: {key} must be {shown}, not {text[:80]!r}", field=key
        ) from None
    if isinstance(default, tuple):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _in_unit(number: float, unit: Unit) -> float:
    if unit is Unit.MILLISECONDS:
        return number / 1000
    return number / 100 if unit is Unit.PERCENT and number > 1 else number
