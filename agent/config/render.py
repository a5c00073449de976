"""A Config as a commented file: what `config init` writes and what the example is."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from agent.config.config import Config, Declaration
from agent.config.declaration import hide_secrets
from agent.config.tables import arrays, brought, plain_tables, rows_of, single_tables
from agent.core.reasons.delays import show_reasons
from agent.core.setting import Setting, settings_of
from agent.engines.catalog import backend_settings, remote_engines

HEAD = """\
# Settings of wa-agent. A line that begins with "# key =" shows a default.
# Durations are seconds, sizes are bytes. `wa-agent config check` reads this file.
"""

TAIL = """\
# Instances that must exist: the agent creates missing ones and deletes none that are absent here.
# [[instance]]
# id = "sales"
# engine = "sandbox"
# enabled = true
# settings = {}"""


def render_config(config: Config, only_changed: bool = True) -> str:
    """Every key with its meaning; defaults are comments if `only_changed`."""
    parts = [HEAD]
    for name, chosen in single_tables(config).items():
        parts += [brought()[name].head] if name in brought() else []
        parts += [f"[{name}]", *_keys(chosen, only_changed and plain_tables()[name])]
    for name, table in arrays().items():
        examples = {table.head: table.example}
        if name == "backend":
            head = "# More settings of a backend of engine {}:\n"
            kinds = sorted(remote_engines())
            examples |= {head.format(kind): backend_settings(kind) for kind in kinds}
        parts += [_row(name, row, only_changed) for row in rows_of(config, name)] or [
            "\n".join([head, *_keys(example, example)]).rstrip("\n") + "\n"
            for head, example in examples.items()
        ]
    parts += [_instance(row) for row in config.instance] or [TAIL]
    return "\n".join(parts) + "\n"


def _keys(chosen: Any, plain: Any) -> Iterator[str]:
    """Each key below its meaning; what is as in `plain` is a comment."""
    for its, mark in settings_of(chosen):
        value = getattr(chosen, its.name)
        comment = "# " if plain and value == getattr(plain, its.name) else ""
        yield f"# {mark.meaning}{_range(mark)}\n{comment}{_line(its.name, value)}\n"


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


def _row(name: str, row: Any, only_changed: bool) -> str:
    lines = [f"[[{name}]]"]
    for holder in (row, getattr(row, "own", ())):
        for its, _ in settings_of(holder) if holder else ():
            value = getattr(holder, its.name)
            if value is not None and not (only_changed and value == its.default):
                lines.append(_line(its.name, value))
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
    for name in shown.keys() & arrays().keys():
        shown[name] = tuple(map(arrays()[name].hide, shown[name]))
    return replace(config, backend=tuple(map(hide_secrets, config.backend)), of_wings=shown)


def tables_of(config: Config) -> dict[str, Any]:
    """The settings as plain values, table by table; without what is derived from them."""
    tables: dict[str, Any] = {
        name: {its.name: getattr(chosen, its.name) for its, _ in settings_of(chosen)}
        for name, chosen in single_tables(config).items()
    }
    tables |= {name: rows_of(config, name) for name in arrays()} | {"instance": config.instance}
    plain: dict[str, Any] = msgspec.to_builtins(tables, enc_hook=str)
    return plain
