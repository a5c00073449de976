"""A Config as a commented file: what `config init` writes and what the example is."""

from collections.abc import Iterator
from dataclasses import asdict, is_dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import tomli_w

from agent.config.backends import BackendDeclaration, hide_secrets
from agent.config.config import Config, Declaration, sections
from agent.config.wing_tables import ArrayTable, OwnTable, own_row, wing_tables
from agent.core.reasons.delays import show_reasons
from agent.core.setting import Setting, settings_of
from agent.engines.catalog import backend_settings, remote_engines

HEAD = """\
# Settings of wa-agent. A line that begins with "# key =" shows a default.
# Durations are seconds, sizes are bytes. `wa-agent config check` reads this file.
"""

BACKENDS = """\
# Backends: servers of other programs whose sessions the agent watches and repairs. Each begins
# with [[backend]]. The environment variable BACKEND_URL sets the url of the first backend,
# REDIS_URL the redis_url of the first whaticket backend; without such a backend the agent ignores
# the variable and logs a warning.
# [[backend]]
"""

EXAMPLE = BackendDeclaration(
    name="evo",
    engine="evolution",
    url="http://127.0.0.1:8080",
    key_file="/etc/wa-agent/evo.key",
)

TAIL = """\
# Instances that must exist: the agent creates missing ones and deletes none that are absent here.
# [[instance]]
# id = "sales"
# engine = "sandbox"
# enabled = true
# settings = {}
"""


def render_config(config: Config, only_changed: bool = True) -> str:
    """Every key with its meaning; defaults are comments if `only_changed`."""
    default = Config()
    parts = [HEAD]
    for section in sections():
        chosen, plain = getattr(config, section), getattr(default, section)
        parts += _section(section, chosen, plain, only_changed)
    for name, table in wing_tables().items():
        if isinstance(table, OwnTable):
            own = own_row(config, table)
            parts += [table.head, *_section(name, own, table.plain, only_changed)]
    backends = [_table("backend", row, only_changed) for row in config.backend]
    parts += backends or [_example_backend()]
    for name, table in wing_tables().items():
        if isinstance(table, OwnTable):
            continue
        rows = config.of_wings.get(name, ())
        parts += [_table(name, row, only_changed) for row in rows] or [
            _example(table.head, table.example)
        ]
    parts += [_declaration(row) for row in config.instance] or [TAIL.rstrip("\n")]
    return "\n".join(parts) + "\n"


def _section(name: str, chosen: Any, plain: Any, only_changed: bool) -> Iterator[str]:
    yield f"[{name}]"
    for row, mark in settings_of(chosen):
        value = getattr(chosen, row.name)
        live = not only_changed or value != getattr(plain, row.name)
        yield f"# {mark.meaning}{_range(mark)}"
        yield ("" if live else "# ") + _line(row.name, value) + "\n"


def _range(mark: Setting) -> str:
    if mark.choices:
        return f" ({' | '.join(mark.choices)})"
    if mark.high is not None:
        return f" ({_number(mark.low)} to {_number(mark.high)})"
    return ""


def _number(bound: float | None) -> str:
    return "any" if bound is None else repr(int(bound) if bound == int(bound) else bound)


def _line(name: str, value: Any) -> str:
    plain = str(value) if isinstance(value, Path) else value
    if name == "reasons" and isinstance(plain, tuple):
        return f"{name} = {show_reasons(plain)}"
    if isinstance(plain, tuple):
        # tomli_w writes a list over several lines, which a comment cannot hold.
        parts = (_line("x", item).removeprefix("x = ") for item in plain)
        return f"{name} = [{', '.join(parts)}]"
    return tomli_w.dumps({name: plain}).rstrip("\n")


def _example_backend() -> str:
    """The settings of every backend, then those of each engine."""
    parts = [_example(BACKENDS, EXAMPLE)]
    for engine in sorted(remote_engines()):
        head = f"# More settings of a backend of engine {engine}:\n"
        parts.append(_example(head, backend_settings(engine)))
    return "\n".join(parts)


def _example(head: str, example: Any) -> str:
    """Every key of the example as a comment; without the marks the table is valid."""
    lines = [head]
    for setting, mark in settings_of(example):
        value = getattr(example, setting.name)
        # TOML has no null, which is this key's default.
        line = f"{setting.name} = false" if value is None else _line(setting.name, value)
        lines += [f"# {mark.meaning}{_range(mark)}", f"# {line}\n"]
    return "\n".join(lines).rstrip("\n") + "\n"


def _table(name: str, values: Any, only_changed: bool) -> str:
    lines = [f"[[{name}]]"]
    holders = [values, values.own] if isinstance(values, BackendDeclaration) else [values]
    for holder in holders:
        plain = type(holder)()
        for setting, _ in settings_of(holder):
            value, default = getattr(holder, setting.name), getattr(plain, setting.name)
            if value is not None and not (only_changed and value == default):
                lines.append(_line(setting.name, value))
    return "\n".join(lines) + "\n"


def _declaration(declared: Declaration) -> str:
    table: dict[str, Any] = {
        "id": str(declared.id),
        "engine": declared.engine,
        "enabled": declared.enabled,
    }
    text = "[[instance]]\n" + tomli_w.dumps(table)
    if declared.settings:
        # After [[instance]], this header means the settings of that instance.
        text += tomli_w.dumps({"instance": {"settings": dict(declared.settings)}})
    return text


def without_secrets(config: Config) -> Config:
    """The config to be shown: *** for keys and passwords, URLs without query, the rows of wings as
    each wing shows them."""
    return replace(
        config,
        backend=tuple(hide_secrets(table) for table in config.backend),
        of_wings={
            name: tuple(map(table.hide, rows)) if isinstance(table, ArrayTable) else rows
            for name, rows in config.of_wings.items()
            for table in (wing_tables()[name],)
        },
    )


def tables_of(config: Config) -> dict[str, Any]:
    """The settings as plain values, table by table; without what is derived from them."""
    tables: dict[str, Any] = {}
    for section in sections():
        chosen = getattr(config, section)
        names = (row.name for row, _ in settings_of(chosen))
        tables[section] = {name: _plain(getattr(chosen, name)) for name in names}
    of_wings = {}
    for name, table in wing_tables().items():
        if isinstance(table, OwnTable):
            tables[name] = _plain(asdict(own_row(config, table)))
        else:
            of_wings[name] = config.of_wings.get(name, ())
    for name, rows in {"backend": config.backend, **of_wings, "instance": config.instance}.items():
        tables[name] = [_plain(asdict(row)) for row in rows]
    return tables


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path | StrEnum) else value
