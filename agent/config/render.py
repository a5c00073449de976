"""A Config as a commented file: what `config init` writes and what the example is."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from agent.config.config import Config, Declaration
from agent.config.declaration import hide_secrets
from agent.config.tables import all_tables, rows_of
from agent.core.setting import Setting, settings_of
from agent.engines.catalog import backend_settings, remote_engines

HEAD = """\
# Settings of wa-agent. A line that begins with "# key =" shows a default.
# Durations are seconds, sizes are bytes. `wa-agent config check` reads this file.
# The twenty settings that matter come first, then the line, then all others.
"""
LINE = """\
# ------------------------------------------------------------------------------------------------
# All other settings. One below "More of [table]" goes up to the others of that table.
"""
FIRST = {
    *("agent.state_path", "agent.session_storage_path", "agent.log_level", "log.folder"),
    *("api.listen", "api.trust_loopback", "api.allowed_hosts", "start.parallel", "start.stagger"),
    *("health.interval", "reconnect.max", "reconnect.attempts", "recovery.unpair"),
    *("memory.instance", "memory.total", "worker.pack", "sessions.on_logout"),
    *("sessions.snapshots", "messages.keep", "messages.hours"),
}

TAIL = """\
# Instances that must exist: the agent creates missing ones and deletes none that are absent here.
# [[instance]]
# id = "sales"
# engine = "sandbox"
# enabled = true
# settings = {}"""


def render_config(config: Config, only_changed: bool = True) -> str:
    """Every key with its meaning; defaults are comments if `only_changed`."""
    first, others = [HEAD], [LINE]
    for name, table in all_tables().items():
        rows = rows_of(config, table)
        if not table.example:
            plain = only_changed and table.plain
            above, below = (list(_keys(rows[0], plain, name, it)) for it in (True, False))
            head = [*([table.head] if table.head else []), f"[{name}]"]
            first += [*head, *above] if above else []
            others += [*([f"# More of [{name}]:\n"] if above else head), *below] if below else []
            continue
        examples = {table.head: table.example}
        if name == "backend":
            head_of = "# More settings of a backend of engine {}:\n".format
            examples |= {head_of(kind): backend_settings(kind) for kind in sorted(remote_engines())}
        others += [_row(name, row, only_changed) for row in rows] or [
            "\n".join([head, *_keys(row, row)]).rstrip("\n") + "\n"
            for head, row in examples.items()
        ]
    return "\n".join([*first, *others, *([*map(_instance, config.instance)] or [TAIL])]) + "\n"


def _keys(chosen: Any, plain: Any, table: str = "", first: bool | None = None) -> Iterator[str]:
    """Each key below its meaning; what is as in `plain` is a comment. `first`: only those that
    stand above the line in `table`, or only the others."""
    for its, mark in settings_of(chosen):
        value = getattr(chosen, its.name)
        comment = "# " if plain and value == getattr(plain, its.name) else ""
        if first is None or first is (not comment or f"{table}.{its.name}" in FIRST):
            yield f"# {mark.meaning}{_range(mark)}\n{comment}{_line(its.name, value)}\n"


def _range(mark: Setting) -> str:
    if mark.choices:
        return f" ({' | '.join(mark.choices)})"
    return "" if mark.high is None else f" ({mark.low:.12g} to {mark.high:.12g})"


def _line(name: str, value: Any) -> str:
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
    known, of_wings = all_tables(), config.of_wings.items()
    shown = {name: tuple(map(known[name].hide, rows)) for name, rows in of_wings}
    return replace(config, backend=tuple(map(hide_secrets, config.backend)), of_wings=shown)


def tables_of(config: Config) -> dict[str, Any]:
    """The settings as plain values, table by table; without what is derived from them."""
    tables: dict[str, Any] = {}
    for name, table in all_tables().items():
        rows = rows_of(config, table)
        keys = [] if table.example else [its.name for its, _ in settings_of(table.plain)]
        tables[name] = {key: getattr(rows[0], key) for key in keys} if keys else rows
    tables["instance"] = config.instance
    plain: dict[str, Any] = msgspec.to_builtins(tables, enc_hook=str)
    return plain
