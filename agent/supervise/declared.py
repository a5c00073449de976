"""What [[instance]] declares, held against the engines: only they know their settings."""

from agent.config import Config, Declaration, Problem
from agent.engines.catalog import check_settings, find_engine
from agent.errors import ConfigError


def find_declared_problem(config: Config) -> Problem | None:
    """What would keep a declared instance from ever running."""
    kinds = {one.name: one.engine for one in config.backend}
    for number, one in enumerate(config.instance):
        key = f"instance[{number}]"
        try:
            entry = find_engine(one.engine)
        except ConfigError as error:
            return Problem((f"{key}.engine",), str(error))
        try:
            check_settings(one.engine, one.settings)
        except ConfigError as error:
            named = f"{key}.settings.{error.field}"
            return Problem((named, f"{key}.settings", key), str(error))
        if entry.remote and (cause := _misplaced(one, kinds)):
            return Problem((f"{key}.settings.backend", f"{key}.settings", key), cause)
    return None


def _misplaced(one: Declaration, kinds: dict[str, str]) -> str:
    backend = str(one.settings.get("backend", ""))
    if backend not in kinds:
        known = ", ".join(kinds) or "none"
        return f"engine {one.engine} needs the name of a [[backend]] there; declared: {known}"
    if kinds[backend] != one.engine:
        return f"backend {backend} is of engine {kinds[backend]}, not {one.engine}"
    return ""
