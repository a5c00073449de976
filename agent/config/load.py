"""From a file, the environment and the command line to one checked Config."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from agent.config.config import Config, Declaration
from agent.config.declaration import BackendDeclaration
from agent.config.environment import parse_text, read_environment, read_for_backends
from agent.config.lines import find_lines
from agent.config.problem import Problem
from agent.config.rules import find_problem
from agent.config.told import Told, parse, read_text
from agent.config.wing_tables import ArrayTable, plain_tables, wing_tables
from agent.core.model import parse_instance_id
from agent.core.setting import read_value, settings_of
from agent.engines.catalog import backend_settings, remote_engines
from agent.errors import InvalidRequest

T = TypeVar("T")
Tables = dict[str, Any]

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
    tables: Tables = {}
    told = Told()
    if path is not None:
        text = read_text(path)
        tables = parse(text, path)
        told = Told(str(path), path.absolute().parent, find_lines(text))
    tables = _by_name(tables, told)
    for key, value, words in _given(env, overrides or {}, tables):
        table, _, name = key.rpartition(".")
        holder = tables.setdefault(table, {}) if "[" not in table else _row(tables, table)
        holder[name], told.given[key] = value, words
    memory = tables.get("memory", {})
    if "total" in memory:
        # machine_share is the limit of configurations without memory.total.
        memory.setdefault("machine_share", 0.0)
    config = _build(tables, told)
    if problem := find_problem(config) or more(config):
        raise told.blame(problem)
    return config


def _by_name(tables: Tables, told: Told) -> Tables:
    """The tables of the file, of a shape that can be read: each by its whole name, as
    [messages.pace]."""
    for name in wing_tables():
        outer, _, inner = name.rpartition(".")
        if isinstance(around := tables.get(outer), dict) and inner in around:
            tables[name] = around.pop(inner)
    single = plain_tables()
    known = [*single, "backend", "instance", *wing_tables()]
    for name, table in tables.items():
        told.check(name, "", known, "table")
        if name in single:
            if not isinstance(table, dict):
                raise told.refuse(name, f"it must be a table: [{name}]")
        elif not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
            raise told.refuse(name, f"it must be written as [[{name}]]")
    return tables


def _given(
    env: Mapping[str, str], overrides: Mapping[str, str], tables: Tables
) -> Iterator[tuple[str, Any, str]]:
    """Key, value and where it came from, of all that stands outside the file."""
    plain = plain_tables()
    given = {key: (value, words) for key, value, words in read_environment(env, plain)}
    for key, text in overrides.items():
        words = f"command line ({key})"
        given[key] = parse_text(text, key, plain, words), words
    if (warn := given.get("memory.warn")) and "critical" not in tables.get("memory", {}):
        # A first limit above the second one's default raises that as well.
        given.setdefault("memory.critical", (max(warn[0], plain["memory"].critical), warn[1]))
    for key, (value, words) in given.items():
        yield key, value, words
    engines = [table.get("engine") for table in tables.get("backend", [])]
    for name, taker, key, _ in read_for_backends(env, engines):
        if taker is not None:
            yield f"backend[{taker}].{key}", env[name], f"environment variable {name}"


def _row(tables: Tables, name: str) -> Tables:
    head, _, number = name.removesuffix("]").partition("[")
    row: Tables = tables[head][int(number)]
    return row


def _build(tables: Tables, told: Told) -> Config:
    def rows(name: str, read: Callable[[Tables, str, Told], T]) -> tuple[T, ...]:
        return tuple(
            read(table, f"{name}[{number}]", told)
            for number, table in enumerate(tables.get(name, []))
        )

    read = {
        name: _read(plain, tables.get(name, {}), name, told)
        for name, plain in plain_tables().items()
    }
    of_wings: dict[str, tuple[Any, ...]] = {}
    for name, table in wing_tables().items():
        if isinstance(table, ArrayTable):
            made = rows(name, partial(_read, table.plain))
        else:
            own = read.pop(name)
            made = () if own == table.plain else (own,)
        if made:
            of_wings[name] = made
    instances = rows("instance", _declaration)
    for number, its in enumerate(instances):
        if its.id in {other.id for other in instances[:number]}:
            raise told.refuse(f"instance[{number}].id", f"{its.id} is declared twice")
    return Config(**read, backend=rows("backend", _backend), instance=instances, of_wings=of_wings)


def _read(plain: T, table: Tables, key: str, told: Told) -> T:
    marks = {setting.name: mark for setting, mark in settings_of(plain)}
    changes = {}
    for name, value in table.items():
        at = f"{key}.{name}"
        told.check(name, f"{key}.", marks)
        default = getattr(plain, name)
        try:
            changes[name] = read_value(value, default, marks[name])
        except ValueError as error:
            raise told.refuse(at, str(error)) from None
        if name in PATHS and value:
            changes[name] = type(default)(told.path(at, str(value)))
    changed: T = replace(plain, **changes)  # type: ignore[type-var]
    return changed


def _backend(table: Tables, key: str, told: Told) -> BackendDeclaration:
    engine = table.get("engine", "")
    own = backend_settings(engine) if isinstance(engine, str) else None
    if own is None:
        cause = f"it must be one of {', '.join(sorted(remote_engines()))}, not {engine!r:.80}"
        raise told.refuse(f"{key}.engine", cause if engine else "every [[backend]] needs it")
    known = _names(own)
    for other in sorted(remote_engines()):
        if foreign := set(table) & _names(backend_settings(other)) - known:
            cause = f"it is only for engine {other}, this one is {engine}"
            raise told.refuse(f"{key}.{min(foreign)}", cause)
    rest = {name: value for name, value in table.items() if name not in known}
    mine = {name: value for name, value in table.items() if name in known}
    return _read(BackendDeclaration(own=_read(own, mine, key, told)), rest, key, told)


def _names(plain: Any) -> set[str]:
    return {setting.name for setting, _ in settings_of(plain)}


def _declaration(table: Tables, key: str, told: Told) -> Declaration:
    for name in table:
        told.check(name, f"{key}.", Declaration.__struct_fields__)
    for name in ("id", "engine"):
        if not table.get(name):
            raise told.refuse(f"{key}.{name}", "every [[instance]] needs it, as a text")
    try:
        made = msgspec.convert(table, Declaration)
        parse_instance_id(made.id)
        json.dumps(made.settings, allow_nan=False)
    except InvalidRequest as error:
        raise told.refuse(f"{key}.id", str(error)) from None
    except msgspec.ValidationError as error:
        cause, _, where = str(error).replace("[...]", "").partition(" - at `$")
        raise told.refuse(f"{key}{where.rstrip('`')}", cause) from None
    except (TypeError, ValueError):
        cause = "it must hold texts, numbers, true/false, lists and tables"
        raise told.refuse(f"{key}.settings", cause) from None
    return made


def unused_variables(
    env: Mapping[str, str], backends: tuple[BackendDeclaration, ...]
) -> Iterator[str]:
    """A sentence for each variable that no backend takes. That is no error: on a machine it may
    well be meant for another program."""
    for name, taker, key, engine in read_for_backends(env, [its.engine for its in backends]):
        if taker is None:
            wanted = f"[[backend]] of engine {engine}" if engine else "[[backend]]"
            yield (
                f"the environment variable {name} is not used:"
                f" there is no {wanted} whose {key} it could be"
            )
