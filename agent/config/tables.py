"""The tables of agent.toml: the base's own, [[backend]], and those that other rooms bring."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from agent.config.config import Config, sections
from agent.config.declaration import BackendDeclaration, hide_secrets
from agent.core.model import Instance
from agent.core.setting import Fault
from agent.engines.catalog import backend_faults
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
    faults: Callable[[Any], Iterable[Fault]] = lambda _row: ()
    """What cannot be true together in a row."""
    hide: Callable[[Any], Any] = hide_secrets
    """The row as it may be shown."""
    engine: str = ""
    """Each session of this engine names one of the rows, by its setting of the table's name: its
    worker gets that row."""
    place: Callable[[Any], tuple[str, ...]] = lambda _row: ()
    """The path where the files of each session with this row lie; then that place itself, and what
    else tells sessions in it apart: two of which all of that is the same would be one session,
    twice. () = each has a place of its own."""


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
    """The row that a session names, by its engine's name; {} = its engine needs none, or the row is
    not there."""
    _, row = _named(config, instance)
    values = asdict(row).items() if row else ()
    # As the file beside the session reads back.
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in values}
    return {instance.engine: plain} if row else {}


def check_declared(config: Config, instance: Instance, others: Iterable[Instance] = ()) -> None:
    """InvalidRequest where it names a row that is not there; Refused where one of the others has
    its session at the same place."""
    table, row = _named(config, instance)
    if table is None:
        return
    field = f"settings.{table.name}"
    if row is None:
        names = ", ".join(it.name for it in rows_of(config, table)) or "none"
        named = str(instance.settings.get(table.name, ""))
        words = f"cannot use {table.name} {named!r:.60}: agent.toml has no such [[{table.name}]]"
        code = f"unknown_{table.name}"
        raise InvalidRequest(f"{words}; declared: {names}", field=field, code=code)
    place = _place(config, instance)
    twins = (its.id for its in others if its.id != instance.id and _place(config, its) == place)
    if place and (twin := min(twins, default="")):
        raise Refused(
            f"cannot run {instance.id} as {table.name} {row.name}: {twin} has its session at"
            f" the same place, {table.place(row)[0]}, and one session must not run twice; give"
            f" each a place of its own ([[{table.name}]] {row.name} in agent.toml)",
            field=field,
            code="session_shared",
        )


def shared_sessions(config: Config, instances: Iterable[Instance]) -> Iterator[tuple[str, str]]:
    """Each two instances of which agent.toml makes one session."""
    first: dict[tuple[str, ...], str] = {}
    for instance in sorted(instances, key=lambda its: its.id):
        if place := _place(config, instance):
            twin = first.setdefault(place, instance.id)
            if twin != instance.id:
                yield twin, instance.id


def _place(config: Config, instance: Instance) -> tuple[str, ...]:
    """What two sessions have alike that are one; () = no other is this one."""
    table, row = _named(config, instance)
    place = table.place(row) if table and row else ()
    return (instance.engine, *place[1:]) if place else ()


def _named(config: Config, instance: Instance) -> tuple[Table | None, Any]:
    """The table that sessions of its engine name a row of, and its row."""
    for table in all_tables().values():
        if table.engine == instance.engine:
            named, rows = instance.settings.get(table.name), rows_of(config, table)
            return table, next((row for row in rows if row.name == named), None)
    return None, None
