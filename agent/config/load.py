"""From a file, the environment and the command line to one checked Config."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from agent.config.backends import BackendDeclaration
from agent.config.config import Config, Declaration, sections
from agent.config.environment import SECOND_LIMITS, parse_text, read_environment, read_for_backends
from agent.config.lines import find_lines
from agent.config.problem import Problem
from agent.config.rules import find_problem
from agent.config.source import Source, nearest, parse, read_text
from agent.config.wing_tables import ArrayTable, WingTable, wing_tables
from agent.core.model import parse_instance_id
from agent.core.setting import is_whole, read_value, settings_of
from agent.engines.catalog import backend_settings, remote_engines
from agent.errors import ConfigError, InvalidRequest

T = TypeVar("T")

PATHS = frozenset({"state_path", "session_storage_path", "cache_path", "socket"})


def load_config(
    path: Path | None,
    env: Mapping[str, str],
    *,
    overrides: Mapping[str, str] | None = None,
    more: Callable[[Config], Problem | None] = lambda _config: None,
) -> Config:
    """Defaults, then the file, then the environment, then `overrides` (dotted keys). A file that
    was named must exist. `more`: the rules that only a room above knows."""
    config = Config()
    origin: dict[str, Source] = {}
    if path is not None:
        text = read_text(path)
        tables = parse(text, path)
        source = Source(str(path), path.absolute().parent, find_lines(text))
        config = _apply_file(config, tables, source)
        origin[""] = source
    given = read_environment(env, config)
    for key, value in (overrides or {}).items():
        words = f"command line ({key})"
        given[key] = (parse_text(value, key, config, words), words)
    for low, high in SECOND_LIMITS:
        if low in given and high not in given and not _is_set(high, origin):
            given[high] = (max(given[low][0], _value_of(config, high)), given[low][1])
    for key, (value, words) in given.items():
        origin[key] = Source(words, Path.cwd(), {})
        section, _, name = key.partition(".")
        holder = getattr(config, section)
        config = replace(config, **{section: _apply(holder, section, {name: value}, origin[key])})
    for number, name, value, words in read_for_backends(env, config.backend):
        key = f"backend[{number}].{name}"
        origin[key] = Source(words, Path.cwd(), {})
        changed = _change(config.backend[number], f"backend[{number}]", {name: value}, origin[key])
        rest = (*config.backend[:number], changed, *config.backend[number + 1 :])
        config = replace(config, backend=rest)
    if _is_set("memory.total", origin) and not _is_set("memory.machine_share", origin):
        # machine_share is the limit of configurations without memory.total.
        config = replace(config, memory=replace(config.memory, machine_share=0.0))
    if problem := find_problem(config) or more(config):
        raise _blame(problem, origin)
    return config


def _value_of(config: Config, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def _is_set(key: str, origin: Mapping[str, Source]) -> bool:
    file = origin.get("")
    return key in origin or (file is not None and key in file.lines)


def _blame(problem: Problem, origin: Mapping[str, Source]) -> ConfigError:
    """Name the place where one of the keys of an impossible pair was set."""
    file = origin.get("")
    for key in problem.keys:
        if key in origin:
            return origin[key].refuse(key, problem.cause)
    for key in problem.keys:
        if file and key in file.lines:
            return file.refuse(key, problem.cause)
    source = file or Source("the defaults", Path(), {})
    return source.refuse(problem.keys[0], problem.cause)


def _apply_file(config: Config, tables: Mapping[str, Any], source: Source) -> Config:
    of_wings = wing_tables()
    tables = _apart(tables, of_wings)
    known = [*sections(), "backend", "instance", *of_wings]
    for name, table in tables.items():
        if name not in known:
            raise source.refuse(name, "there is no such table" + nearest(name, known))
        if name == "instance":
            config = replace(config, instance=_declarations(table, source))
        elif name == "backend":
            tables_of = _array(name, table, source)
            made = [_backend(field, f"{name}[{n}]", source) for n, field in enumerate(tables_of)]
            config = replace(config, backend=tuple(made))
        elif name in of_wings:
            rows = _rows_of_wing(of_wings[name], table, source)
            if rows:
                config = replace(config, of_wings={**config.of_wings, name: rows})
        elif isinstance(table, dict):
            config = replace(config, **{name: _apply(getattr(config, name), name, table, source)})
        else:
            raise source.refuse(name, f"it must be a table: [{name}]")
    return config


def _apart(tables: Mapping[str, Any], of_wings: Iterable[str]) -> Mapping[str, Any]:
    """With a wing's own tables inside tables, [messages.pace], by their whole names."""
    apart = dict(tables)
    for name in of_wings:
        outer, _, inner = name.rpartition(".")
        if isinstance(around := apart.get(outer), dict) and inner in around:
            apart[name] = around[inner]
            apart[outer] = {key: value for key, value in around.items() if key != inner}
    return apart


def _apply(holder: Any, section: str, values: Mapping[str, Any], source: Source) -> Any:
    marks = {setting.name: mark for setting, mark in settings_of(holder)}
    changes = {}
    for name, value in values.items():
        key = f"{section}.{name}"
        if name not in marks:
            raise source.refuse(key, "there is no such key" + nearest(name, list(marks)))
        default = getattr(holder, name)
        try:
            changes[name] = read_value(value, default, marks[name])
        except ValueError as error:
            raise source.refuse(key, str(error)) from None
        if name in PATHS and value:
            changes[name] = type(default)(source.base / str(value))
    return replace(holder, **changes)


def _rows_of_wing(own: WingTable, table: Any, source: Source) -> tuple[Any, ...]:
    if isinstance(own, ArrayTable):
        return _each(own.plain, own.name, table, source)
    if not isinstance(table, dict):
        raise source.refuse(own.name, f"it must be a table: [{own.name}]")
    row = _apply(own.plain, own.name, table, source)
    return () if row == own.plain else (row,)


def _each(plain: T, name: str, tables: Any, source: Source) -> tuple[T, ...]:
    """What an array of tables says, each over the same defaults."""
    return tuple(
        _apply(plain, f"{name}[{number}]", table, source)
        for number, table in enumerate(_array(name, tables, source))
    )


def _array(name: str, tables: Any, source: Source) -> list[dict[str, Any]]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise source.refuse(name, f"it must be written as [[{name}]]")
    return tables


def _backend(table: Mapping[str, Any], section: str, source: Source) -> BackendDeclaration:
    engine = table.get("engine", "")
    own = backend_settings(engine) if isinstance(engine, str) else None
    if own is None:
        cause = f"it must be one of {', '.join(sorted(remote_engines()))}, not {engine!r:.80}"
        raise source.refuse(f"{section}.engine", cause if engine else "every [[backend]] needs it")
    for other in sorted(remote_engines() - {engine}):
        table = _without(table, other, section, source)
    return _change(BackendDeclaration(own=own), section, table, source)


def _without(
    table: Mapping[str, Any], other: str, section: str, source: Source
) -> Mapping[str, Any]:
    """The table without the defaults of another engine's keys; another value is a mistake."""
    foreign = backend_settings(other)
    known = {setting.name for setting, _ in settings_of(backend_settings(table["engine"]))}
    keys = {setting.name for setting, _ in settings_of(foreign)} - known
    for key in keys & set(table):
        default = getattr(foreign, key)
        if table[key] != (list(default) if isinstance(default, tuple) else default):
            cause = f"it is only for engine {other}, this one is {table['engine']}"
            raise source.refuse(f"{section}.{key}", cause)
    return {key: value for key, value in table.items() if key not in keys}


def _change(
    backend: BackendDeclaration, section: str, values: Mapping[str, Any], source: Source
) -> BackendDeclaration:
    """The backend with these settings, its engine's own among them."""
    known = {setting.name for setting, _ in settings_of(backend.own)}
    own = {key: value for key, value in values.items() if key in known}
    rest = {key: value for key, value in values.items() if key not in known}
    backend = _apply(backend, section, rest, source)
    changed: BackendDeclaration = replace(backend, own=_apply(backend.own, section, own, source))
    return changed


def _declarations(tables: Any, source: Source) -> tuple[Declaration, ...]:
    declared: dict[str, Declaration] = {}
    for number, table in enumerate(_array("instance", tables, source)):
        key = f"instance[{number}]"
        new = _declaration(table, key, source)
        if new.id in declared:
            raise source.refuse(f"{key}.id", f"{new.id} is declared twice")
        declared[new.id] = new
    return tuple(declared.values())


def _declaration(table: Mapping[str, Any], key: str, source: Source) -> Declaration:
    known = [field.name for field in fields(Declaration)]
    for name in table:
        if name not in known:
            raise source.refuse(f"{key}.{name}", "there is no such key" + nearest(name, known))
    for name in ("id", "engine"):
        if not table.get(name) or not isinstance(table[name], str):
            raise source.refuse(f"{key}.{name}", "every [[instance]] needs it, as a text")
    if not isinstance(table.get("enabled", True), bool):
        raise source.refuse(f"{key}.enabled", "it must be true or false")
    if not isinstance(table.get("settings", {}), dict):
        raise source.refuse(f"{key}.settings", "it must be a table")
    if bad := _not_json(table.get("settings", {})):
        raise source.refuse(f"{key}.settings.{bad}", "it must be text, number, true/false or list")
    try:
        parsed = parse_instance_id(table["id"])
    except InvalidRequest as error:
        raise source.refuse(f"{key}.id", str(error)) from None
    return Declaration(
        parsed, table["engine"], table.get("enabled", True), table.get("settings", {})
    )


def _not_json(table: Mapping[str, Any]) -> str:
    """The first setting that JSON cannot carry (TOML knows dates, JSON does not)."""
    for name, value in table.items():
        if isinstance(value, dict):
            if bad := _not_json(value):
                return f"{name}.{bad}"
        elif isinstance(value, list):
            if _not_json({str(number): item for number, item in enumerate(value)}):
                return name
        elif isinstance(value, float):
            if not math.isfinite(value):
                return name
        elif not (isinstance(value, str | bool) or is_whole(value)):
            return name
    return ""
