"""From a file, the environment and the command line to one checked Config; rows that a command adds
to the file."""

import json
import os
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from agent.config.config import BackendDeclaration, Config, Declaration, all_tables, sections
from agent.core.memory import MemoryPolicy
from agent.core.setting import Fault, choice_fault, name_fault, nearest, read_value, settings_of
from agent.engines.catalog import backend_settings, check_settings, find_engine, remote_engines
from agent.errors import ConfigError, InvalidRequest, Refused

# Checks of pairs of settings, and the settings that a reload cannot change.


def changes_that_need_restart(old: Config, new: Config) -> list[str]:
    """Return the keys whose new value a running agent cannot take on."""
    changed = []
    for name, table in all_tables().items():
        for own, mark in settings_of(table.plain):
            values = {getattr(table.rows(it)[0], own.name) for it in (old, new) if mark.restart}
            changed += [f"{name}.{own.name}"] * (len(values) > 1)
    # A new backend needs no restart.
    return changed + sorted(f"[[backend]] {it.name}" for it in old.backend if it not in new.backend)


def find_faults(config: Config) -> Iterator[Fault]:
    """Yield pairs of values that cannot be true together."""
    if config.api.trust_loopback and not config.api.is_loopback:
        cause = f"trust_loopback is only for a loopback address, api.listen is {config.api.listen}"
        yield ("api.trust_loopback", "api.listen"), cause
    yield from _paths(config)
    for small, great in (
        ("reconnect.base", "reconnect.max"),
        ("health.timeout", "health.interval"),
        ("stop.save", "worker.stop_timeout"),
        ("memory.warn", "memory.critical"),
    ):
        less, more = attrgetter(small)(config), attrgetter(great)(config)
        if less > more:
            yield (small, great), f"{small} ({less:g}) is more than {great} ({more:g})"
    most, instance = config.worker.memory_max, config.memory.instance
    # The default of memory.instance yields to a lower memory_max; a set value must be possible.
    if 0 < most < instance != MemoryPolicy().instance:
        cause = f"memory.instance ({instance}) is more than worker.memory_max ({most}), above which"
        yield ("memory.instance", "worker.memory_max"), f"{cause} the worker is killed"
    for name, table in all_tables().items():
        for number, row in enumerate(table.rows(config)):
            for keys, cause in table.faults(row) if table.faults else ():
                yield tuple(f"{name}[{number}].{key}" for key in keys), cause
    yield from _declared_faults(config)


def _declared_faults(config: Config) -> Iterator[Fault]:
    """Yield what would keep a declared instance from ever running."""
    kinds = {backend.name: backend.engine for backend in config.backend}
    taken: dict[tuple[Any, Any], str] = {}
    for number, row in enumerate(config.instance):
        key = f"instance[{number}]"
        try:
            remote = find_engine(row.engine).remote
            check_settings(row.engine, row.settings)
        except ConfigError as error:
            inner = "" if error.field == "engine" else "settings."
            yield (f"{key}.{inner}{error.field}",), str(error)
            continue
        place = str(row.settings.get("backend", ""))
        session = place, row.settings.get("remote") or row.id
        if remote and kinds.get(place) != row.engine:
            known = ", ".join(name for name, kind in kinds.items() if kind == row.engine)
            cause = f"engine {row.engine} needs the name of a [[backend]] of its kind there"
            yield (f"{key}.settings.backend",), f"{cause}; declared: {known or 'none'}"
        if remote and (twin := taken.setdefault(session, row.id)) != row.id:
            yield (f"{key}.settings.remote",), f"{twin} already has that session of backend {place}"


def _paths(config: Config) -> Iterator[Fault]:
    cache, state = config.cache_root.absolute(), config.agent.state_path.absolute()
    sessions, backends = config.session_root.absolute(), state / "backends"
    place = "session_storage_path" if config.agent.session_storage_path else "state_path"
    for it in filter(os.path.isfile, (sessions, *sessions.parents)):
        yield (f"agent.{place}",), f"{it} is a file, not a folder"
    for key, one, other in (
        ("state_path", state, cache),
        ("session_storage_path", sessions, cache),
        ("session_storage_path", backends, sessions),
    ):
        if one.is_relative_to(other) or (one is not state and other.is_relative_to(one)):
            cause = f"{one} and {other} must be separate folders"
            yield ("agent.cache_path", f"agent.{key}", "agent.state_path"), cause


T = TypeVar("T")
Row = dict[str, Any]
Given = tuple[str, Any, str]

PREFIX = "WA_AGENT_"
NOT_KEYS = {"WA_AGENT_CONFIG", "WA_AGENT_SOCKET", "WA_AGENT_URL", "WA_AGENT_KEY"}
"""Variables of the command line that begin like those of keys."""

OPTIONS = {"agent.state_path": "--state; else .state of the checkout", "api.listen": "--listen"}
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
_DECLARED = {".id": "a text", ".engine": "a text", ".enabled": "true or false"}
_WANTED = {bool: "true or false", int: "a whole number", float: "a number"}

PATHS = frozenset({"state_path", "session_storage_path", "cache_path", "socket"})


def load_config(
    path: Path | None,
    env: Mapping[str, str],
    *,
    text: str | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Config:
    """Defaults, then the file, then the environment, then `overrides` (dotted keys). A file that
    was named must exist. `text`: what will be in it."""
    source = Source() if path is None else _read_source(path, text)
    _name_tables(source)
    for key, value, words in _read_given(env, overrides or {}):
        table, _, name = key.rpartition(".")
        source.tables.setdefault(table, {})[name] = value
        source.given[key] = words
    warnings = _give_to_backends(env, source.tables.get("backend", []), source.given)
    if "total" in (memory := source.tables.get("memory", {})):
        # machine_share is the limit of configurations without memory.total.
        memory.setdefault("machine_share", 0.0)
    if isinstance(warn := memory.get("warn"), int | float):
        # A first limit above the second one's default raises that as well.
        memory.setdefault("critical", max(warn, all_tables()["memory"].plain.critical))
    config = _build(source)
    if faults := source.faults or [*map(source.blame, find_faults(config))]:
        raise ConfigError("; ".join(map(str, faults)), field=faults[0].field)
    return replace(config, warnings=(*warnings, *config.unmade))


@dataclass(frozen=True, slots=True)
class Source:
    """The file that the settings come from, and the keys that something else gave."""

    tables: dict[str, Any] = field(default_factory=dict)
    words: str = "the defaults"
    base: Path = Path()
    """A relative path in the file is relative to this folder."""
    lines: Mapping[str, int] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)
    """Key → the variable or the command line that gave it, in words."""
    faults: list[ConfigError] = field(default_factory=list)
    """Errors of single values: `load_config` raises one ConfigError for them all."""

    def refuse(self, key: str, cause: str) -> ConfigError:
        around = key
        while around and around not in self.lines:
            around = around.rpartition(".")[0]
        where = f"{self.words}, line {self.lines[around]}" if around else self.words
        return ConfigError(f"cannot use {key} in {self.given.get(key, where)}: {cause}", field=key)

    def check(self, name: str, table: str, known: Collection[str], what: str = "key") -> None:
        """Raise ConfigError with the nearest word if there is no such key in that table."""
        if name in known:
            return
        rows = all_tables().items()
        homes = [it for it, row in rows if name in {own.name for own, _ in settings_of(row.plain)}]
        advice = nearest(name, known) or f"known: {', '.join(known)}"
        advice = f"it is a key of [{'], ['.join(homes)}]" if homes else advice
        raise self.refuse(f"{table}{name}", f"there is no such {what}; {advice}")

    def blame(self, fault: Fault) -> ConfigError:
        """Return an error that names the place where a key of an impossible pair was set."""
        keys, cause = fault
        places: tuple[Collection[str], ...] = (self.given, self.lines, keys)
        return self.refuse(next(key for place in places for key in keys if key in place), cause)


def _read_given(env: Mapping[str, str], overrides: Mapping[str, str]) -> Iterator[Given]:
    """Key, value, and the words that say where it came from, of all that stands outside the file;
    the last one of a key wins. A key's own name (WA_AGENT_SECTION__KEY) wins over a name
    that users know, and the command line over both."""
    for name, (key, unit) in NAMED.items():
        if text := env.get(name):
            if name == "LOG_LEVEL":
                text = text.lower().removesuffix("ing")  # "warning" is warn
            yield _from_text(text, key, f"environment variable {name}{unit}", unit)
    for name in sorted(env):
        if name.startswith(PREFIX) and name not in NOT_KEYS:
            key = name[len(PREFIX) :].lower().replace("__", ".", 1)
            yield _from_text(env[name], key, f"environment variable {name}")
    for key, text in overrides.items():
        yield _from_text(text, key, f"the command line ({OPTIONS.get(key, key)})")


def _from_text(text: str, key: str, words: str, unit: str = "") -> Given:
    """Return the text as the type of the key's default."""
    section, _, name = key.partition(".")
    table = all_tables().get(section)
    if table is None or table.example or all(name != it.name for it, _ in settings_of(table.plain)):
        raise ConfigError(f"cannot use {words}: there is no key {key}", field=key)
    kind = type(getattr(table.plain, name))
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


_LINE = re.compile(r"""(\[{0,2})([\w."'\s-]+)[\]=]""")


def find_lines(text: str) -> dict[str, int]:
    """Line numbers (from 1) of tables and keys, which tomllib does not tell. The second
    [[instance]] counts as instance[1]."""
    lines: dict[str, int] = {}
    counts: Counter[str] = Counter()
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not (found := _LINE.match(line.lstrip())):
            continue
        name = re.sub(r"[\s\"']", "", found[2])
        head, dot, rest = name.partition(".")
        if found[1] == "[[":
            lines.setdefault(name, number)
            table = name = f"{name}[{counts[name]}]"
            counts[head] += 1
        elif found[1]:
            table = name = f"{head}[{counts[head] - 1}]{dot}{rest}" if head in counts else name
        elif table:
            name = f"{table}.{name}"
        lines.setdefault(name, number)
    return lines


def _read_source(path: Path, text: str | None) -> Source:
    try:
        if text is None:
            if path.exists() and not path.is_file():  # a pipe would be waited for
                raise OSError("it is no plain file")
            text = path.read_bytes().decode("utf-8-sig")  # some editors put a mark in front
        return Source(tomllib.loads(text), str(path), path.absolute().parent, find_lines(text))
    except OSError as error:
        cause = error.strerror or str(error)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        cause = f"it is not UTF-8 at line {line}"
    except (ValueError, RecursionError) as error:
        cause = str(error).replace("Invalid value", "no value is there, or a text without quotes")
        cause = f"it is no TOML that can be read: {cause.partition('; use sys.')[0]}"
    raise ConfigError(f"cannot read {path}: {cause}")


def _name_tables(source: Source) -> None:
    """Each table of the file by its whole name, as [messages.pace], and of a shape that can be
    read."""
    tables, known = source.tables, all_tables()
    for name in known:
        outer, _, inner = name.rpartition(".")
        if isinstance(around := tables.get(outer), dict) and inner in around:
            tables[name] = around.pop(inner)
    for name, table in tables.items():
        source.check(name, "", [*known, "instance"], "table")
        if name in known and not known[name].example:
            if not isinstance(table, dict):
                raise source.refuse(name, f"it must be a table: [{name}]")
        elif not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
            raise source.refuse(name, f"it must be written as [[{name}]]")


def _give_to_backends(
    env: Mapping[str, str], backends: list[Row], given: dict[str, str]
) -> tuple[str, ...]:
    """Set the keys that variables give; return a sentence for each that no backend takes."""
    unused = []
    for name, (key, engine) in OF_BACKENDS.items():
        fitting = [n for n, it in enumerate(backends) if not engine or it.get("engine") == engine]
        if env.get(name) and fitting:
            backends[fitting[0]][key] = env[name]
            given[f"backend[{fitting[0]}].{key}"] = f"environment variable {name}"
        elif env.get(name):
            wanted = f"[[backend]]{engine and f' of engine {engine}'}"
            cause = f"there is no {wanted} whose {key} it could be"
            unused.append(f"the environment variable {name} is not used: {cause}")
    return tuple(unused)


def _build(source: Source) -> Config:
    def rows(name: str, read: Callable[[Row, str], T], needed: Sequence[str]) -> tuple[T, ...]:
        made, names = [], set()
        for number, row in enumerate(source.tables.get(name, [])):
            key = f"{name}[{number}]"
            made.append(read(row, key))
            for one in needed:
                if not row.get(one):
                    raise source.refuse(f"{key}.{one}", f"every [[{name}]] needs it")
            if (own := row[needed[0]]) in names:
                raise source.refuse(f"{key}.{needed[0]}", f"{own} is declared twice")
            names.add(own)
        return tuple(made)

    made: dict[str, tuple[Any, ...]] = {}
    for name, table in all_tables().items():
        read = partial(_read, source, table.plain)
        if table.example:
            read = partial(_backend, source) if name == "backend" else read
            made[name] = rows(name, read, table.needed)
        elif (own := read(source.tables.get(name, {}), name)) != table.plain:
            made[name] = (own,)
    return Config(
        **{name: made.pop(name)[0] for name in sections() if name in made},
        backend=made.pop("backend"),
        instance=rows("instance", partial(_declaration, source), ("id", "engine")),
        rows={name: own for name, own in made.items() if own},
    )


def _read(source: Source, plain: T, table: Row, key: str) -> T:
    marks = {own.name: mark for own, mark in settings_of(plain)}
    changes = {}
    for name, value in table.items():
        at = f"{key}.{name}"
        try:
            source.check(name, f"{key}.", marks)
            if name in PATHS | {"folder"} and str(value).startswith("~"):
                raise ValueError("only a shell reads ~ as the home: write the whole path")
            changes[name] = read_value(value, getattr(plain, name), marks[name])
        except ConfigError as unknown:
            source.faults.append(unknown)
        except ValueError as fault:
            source.faults.append(source.refuse(at, str(fault)))
        else:
            if name in PATHS and value:
                base = Path.cwd() if at in source.given else source.base
                changes[name] = type(changes[name])(base / str(value))
    return replace(plain, **changes)  # type: ignore[type-var]


def _backend(source: Source, table: Row, key: str) -> BackendDeclaration:
    engine, kinds = table.get("engine", ""), sorted(remote_engines())
    if engine not in kinds:
        cause = choice_fault(engine, kinds) if engine else "every [[backend]] needs it"
        raise source.refuse(f"{key}.engine", cause)
    known = {kind: {own.name for own, _ in settings_of(backend_settings(kind))} for kind in kinds}
    for kind in kinds:
        if foreign := set(table) & known[kind] - known[engine]:
            cause = f"it is only for engine {kind}, this one is {engine}"
            raise source.refuse(f"{key}.{min(foreign)}", cause)
    mine = {name: table.pop(name) for name in [*table] if name in known[engine]}
    own = _read(source, backend_settings(engine), mine, key)
    return _read(source, BackendDeclaration(own=own), table, key)


def _declaration(source: Source, table: Row, key: str) -> Declaration:
    for name in table:
        source.check(name, f"{key}.", Declaration.__struct_fields__)
    try:
        made = msgspec.convert(table, Declaration)
        json.dumps(made.settings, allow_nan=False)
    except msgspec.ValidationError as error:
        cause, _, where = str(error).replace("[...]", "").rstrip("`").partition(" - at `$")
        cause = f"it must be {_DECLARED[where]}" if where in _DECLARED else cause
        raise source.refuse(f"{key}{where}", cause) from None
    except (TypeError, ValueError):
        cause = "it must hold texts, numbers, true/false, lists and tables"
        raise source.refuse(f"{key}.settings", cause) from None
    if made.id and (fault := name_fault("the word all" if made.id == "all" else made.id)):
        raise source.refuse(f"{key}.id", fault)
    return made


def add_rows(path: Path, lines: str, *, env: Mapping[str, str], what: str) -> None:
    """For the person who gave the command: the agent itself never writes that file. Adds `lines`,
    which begin with a [[table]], at the end; every other line stays, and what an editor writes
    meanwhile is not lost. `what` is for errors. The file stays as it is where the agent could not
    use the old or the new one."""
    doing = f"cannot {what} {path}"
    try:
        load_config(path, env)  # says what is wrong with a file that is no text, too
        text = path.read_text(encoding="utf-8-sig")
        more = ("" if text.endswith("\n") else "\n") + f"\n{lines}"
        load_config(path, env, text=text + more)
        size = path.stat().st_size
        try:
            with path.open("ab") as file:
                file.write(more.encode())
        except OSError:
            os.truncate(path, size)  # a full disk took half of it
            raise
    except ConfigError as error:
        raise InvalidRequest(f"{doing}: {error}", field=error.field) from None
    except OSError as error:
        cure = "a person who may write it does so, with sudo for one"
        raise Refused(f"{doing}: {error.strerror}; {cure}", code="config_not_writable") from error
