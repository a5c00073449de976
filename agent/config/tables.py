"""The tables of agent.toml: the base's own, [[backend]], and those that other rooms bring; and a
Config as a commented file of them: what `config init` writes and what the example is."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from agent.config.config import Config, Declaration, sections
from agent.config.declaration import BackendDeclaration, hide_secrets
from agent.core.model import Instance
from agent.core.setting import Fault, Setting, settings_of
from agent.engines.catalog import backend_faults, backend_settings, remote_engines
from agent.errors import InvalidRequest, Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    name: str
    plain: Any
    """One row with its defaults."""
    head: str = ""
    """What the example file says above it."""
    worker: tuple[str, ...] = ()
    """The keys that each worker gets."""
    example: Any = None
    """A row that could be used, of a table that is written once for each thing of a kind:
    [[NAME]]. None: it is written once, [NAME], or not at all, which is as `plain`."""
    needed: tuple[str, ...] = ("name",)
    """The keys that each row must have."""
    faults: Callable[[Any], Iterable[Fault]] | None = None
    """What cannot be true together in a row."""
    hide: Callable[[Any], Any] = hide_secrets
    """The row as it may be shown."""


BACKEND = Table(
    name="backend",
    plain=BackendDeclaration(),
    head="""\
# Backends: servers of other programs whose sessions the agent watches and repairs. Each begins
# with [[backend]]. The environment variable BACKEND_URL sets the url of the first backend,
# REDIS_URL the redis_url of the first whaticket backend; without such a backend the agent ignores
# the variable and logs a warning.
# [[backend]]
""",
    example=BackendDeclaration(
        "evo", "evolution", "http://127.0.0.1:8080", key_file="/etc/wa-agent/evo.key"
    ),
    needed=("name", "engine", "url"),
    faults=backend_faults,
)


@cache
def all_tables() -> Mapping[str, Table]:
    """By name; those that are written once come first."""
    from agent.messages.settings import MESSAGES, PACE
    from agent.moving.programs import PROGRAMS
    from agent.webhooks.settings import WEBHOOKS

    own = (Table(name=name, plain=getattr(Config(), name)) for name in sections())
    return {it.name: it for it in (*own, MESSAGES, PACE, BACKEND, PROGRAMS, WEBHOOKS)}


def rows_of(config: Config, table: Table) -> tuple[Any, ...]:
    """Its rows; of a table that is written once, the one in force."""
    usual = () if table.example else (table.plain,)
    found = getattr(config, table.name, None) or config.of_wings.get(table.name, usual)
    return found if isinstance(found, tuple) else (found,)


def worker_settings(config: Config) -> Mapping[str, Any]:
    """What each worker gets, by its table's name; none where it is usual."""
    found: dict[str, Any] = {}
    for table in all_tables().values():
        for key in table.worker:
            if (value := getattr(rows_of(config, table)[0], key)) != getattr(table.plain, key):
                found.setdefault(table.name, {})[key] = value
    return found


def declared_for(config: Config, instance: Instance) -> Mapping[str, Any]:
    """The [[program]] that a session names; {} = its engine needs none, or it is not there."""
    if (row := _program(config, instance)) is None:
        return {}
    values = asdict(row).items()
    # As the file beside the session reads back.
    return {"program": {key: list(it) if isinstance(it, tuple) else it for key, it in values}}


def check_declared(config: Config, instance: Instance, others: Iterable[Instance] = ()) -> None:
    """InvalidRequest where it names a program that is not there; Refused where one of the others
    has its session at the same place."""
    if instance.engine != "program":
        return
    if (row := _program(config, instance)) is None:
        names = ", ".join(it.name for it in config.of_wings.get("program", ())) or "none"
        named = str(instance.settings.get("program", ""))
        words = f"cannot use program {named!r:.60}: agent.toml has no such [[program]]"
        cause = f"{words}; declared: {names}"
        raise InvalidRequest(cause, field="settings.program", code="unknown_program")
    place = _place(config, instance)
    others = (its for its in others if its.id != instance.id)
    twins = (its.id for its in others if _place(config, its)[1:] == place[1:])
    if place and (twin := min(twins, default="")):
        raise Refused(
            f"cannot run {instance.id} as program {row.name}: {twin} has its session at the same"
            f" place, {place[0]}, and one session must not run twice; give each a place of its own"
            f" ([[program]] {row.name} in agent.toml)",
            field="settings.program",
            code="session_shared",
        )


def shared_sessions(config: Config, instances: Iterable[Instance]) -> Iterator[tuple[str, str]]:
    """Each two instances of which agent.toml makes one session."""
    first: dict[tuple[str, ...], str] = {}
    for instance in sorted(instances, key=lambda its: its.id):
        if place := _place(config, instance):
            twin = first.setdefault(place[1:], instance.id)
            if twin != instance.id:
                yield twin, instance.id


def _place(config: Config, instance: Instance) -> tuple[str, ...]:
    """Where its program keeps the session; () = each has a place of its own."""
    from agent.moving.programs import place_of

    row = _program(config, instance)
    return place_of(row) if row is not None else ()


def _program(config: Config, instance: Instance) -> Any:
    rows = config.of_wings.get("program", ()) if instance.engine == "program" else ()
    return next((row for row in rows if row.name == instance.settings.get("program")), None)


# A Config as a commented file.


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
    import tomli_w  # for the commands that write a file

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
    import tomli_w

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
