"""A Config as a commented file: what `config init` writes and what the example is."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from agent.config.backends import hide_secrets
from agent.config.config import Config, Declaration
from agent.config.declaration import BackendDeclaration
from agent.config.wing_tables import ArrayTable, plain_tables, single_tables, wing_tables
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
    "evo", "evolution", "http://127.0.0.1:8080", key_file="/etc/wa-agent/evo.key"
)

TAIL = """\
# Instances that must exist: the agent creates missing ones and deletes none that are absent here.
# [[instance]]
# id = "sales"
# engine = "sandbox"
# enabled = true
# settings = {}"""


def render_config(config: Config, only_changed: bool = True) -> str:
    """Every key with its meaning; defaults are comments if `only_changed`."""
    parts, of_wings = [HEAD], wing_tables()
    for name, chosen in single_tables(config).items():
        parts += [of_wings[name].head] if name in of_wings else []
        parts += [f"[{name}]", *_keys(chosen, only_changed and plain_tables()[name])]
    parts += [_row("backend", row, only_changed) for row in config.backend] or [_examples()]
    for name, table in of_wings.items():
        if isinstance(table, ArrayTable):
            rows = config.of_wings.get(name, ())
            example = _example(table.head, table.example)
            parts += [_row(name, row, only_changed) for row in rows] or [example]
    parts += [_instance(row) for row in config.instance] or [TAIL]
    return "\n".join(parts) + "\n"


def _keys(chosen: Any, plain: Any) -> Iterator[str]:
    """Each key below its meaning; what is as in `plain` is a comment."""
    for setting, mark in settings_of(chosen):
        value = getattr(chosen, setting.name)
        comment = "# " if plain and value == getattr(plain, setting.name) else ""
        yield f"# {mark.meaning}{_range(mark)}\n{comment}{_line(setting.name, value)}\n"


def _range(mark: Setting) -> str:
    if mark.choices:
        return f" ({' | '.join(mark.choices)})"
    low = "any" if mark.low is None else f"{mark.low:.12g}"
    return "" if mark.high is None else f" ({low} to {mark.high:.12g})"


def _line(name: str, value: Any) -> str:
    if name == "reasons" and isinstance(value, tuple):
        return f"{name} = {show_reasons(value)}"
    if isinstance(value, tuple):
        # tomli_w writes a list over several lines, which a comment cannot hold.
        return f"{name} = [{', '.join(_line('x', its).removeprefix('x = ') for its in value)}]"
    # TOML has no null, which is one key's default.
    plain = False if value is None else str(value) if isinstance(value, Path) else value
    return tomli_w.dumps({name: plain}).rstrip("\n")


def _examples() -> str:
    """The settings of every backend, then those of each engine."""
    head = "# More settings of a backend of engine {}:\n"
    each = (
        _example(head.format(kind), backend_settings(kind)) for kind in sorted(remote_engines())
    )
    return "\n".join([_example(BACKENDS, EXAMPLE), *each])


def _example(head: str, example: Any) -> str:
    """Every key of the example as a comment; without the marks the table is valid."""
    return "\n".join([head, *_keys(example, example)]).rstrip("\n") + "\n"


def _row(name: str, values: Any, only_changed: bool) -> str:
    lines = [f"[[{name}]]"]
    for holder in (values, values.own) if isinstance(values, BackendDeclaration) else (values,):
        plain = type(holder)()
        for setting, _ in settings_of(holder):
            value = getattr(holder, setting.name)
            if value is not None and not (only_changed and value == getattr(plain, setting.name)):
                lines.append(_line(setting.name, value))
    return "\n".join(lines) + "\n"


def _instance(declared: Declaration) -> str:
    table = msgspec.structs.asdict(declared)
    settings = table.pop("settings")
    text = "[[instance]]\n" + tomli_w.dumps(table)
    # After [[instance]], this header means the settings of that instance.
    return text + (tomli_w.dumps({"instance": {"settings": settings}}) if settings else "")


def without_secrets(config: Config) -> Config:
    """The config to be shown: *** for keys and passwords, URLs without query, rows as their
    tables show them."""
    shown = dict(config.of_wings)
    for name, table in wing_tables().items():
        if isinstance(table, ArrayTable) and name in shown:
            shown[name] = tuple(map(table.hide, shown[name]))
    backends = tuple(hide_secrets(table) for table in config.backend)
    return replace(config, backend=backends, of_wings=shown)


def tables_of(config: Config) -> dict[str, Any]:
    """The settings as plain values, table by table; without what is derived from them."""
    tables: dict[str, Any] = {}
    for name, chosen in single_tables(config).items():
        tables[name] = {its.name: getattr(chosen, its.name) for its, _ in settings_of(chosen)}
    arrays = (name for name, its in wing_tables().items() if isinstance(its, ArrayTable))
    rows = {name: config.of_wings.get(name, ()) for name in arrays}
    tables |= {"backend": config.backend, **rows, "instance": config.instance}
    plain: dict[str, Any] = msgspec.to_builtins(tables, enc_hook=str)
    return plain
