"""The tables of agent.toml that rooms bring."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from agent.config.config import Config, sections
from agent.config.problem import Problem
from agent.core.model import Instance
from agent.errors import InvalidRequest, Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayTable:
    """A table that is written once for each thing of a kind: [[NAME]]."""

    name: str
    plain: Any
    """One row with its defaults."""
    find_problem: Callable[[Sequence[Any]], Problem | None]
    hide: Callable[[Any], Any]
    """The row as it may be shown."""
    head: str
    """What the example file says above it."""
    example: Any
    """A row that could be used."""
    engine: str = ""
    """Each session of this engine names one of the rows, by its setting of the table's name: its
    worker gets that row."""
    place: Callable[[Any], tuple[str, ...]] = lambda _row: ()
    """The path where the files of each session with this row lie; then that place itself, and what
    else tells sessions in it apart: two of which all of that is the same would be one session,
    twice. () = each has a place of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTable:
    """A table that is written once: [NAME]. A config has one row of it, or none, which is as
    `plain`."""

    name: str
    plain: Any
    head: str
    """What the example file says above it."""
    worker: tuple[str, ...] = ()
    """The keys that each worker gets."""


WingTable = ArrayTable | OwnTable


@cache
def wing_tables() -> Mapping[str, WingTable]:
    """By name."""
    from agent.messages.settings import MESSAGES, PACE
    from agent.moving.programs import PROGRAMS
    from agent.webhooks.settings import WEBHOOKS

    return {table.name: table for table in (PROGRAMS, MESSAGES, PACE, WEBHOOKS)}


def single_tables(config: Config) -> Mapping[str, Any]:
    """Each table that is written once, those of rooms after the others."""
    owned = wing_tables().items()
    own = {name: own_row(config, its) for name, its in owned if isinstance(its, OwnTable)}
    return {name: getattr(config, name) for name in sections()} | own


@cache
def plain_tables() -> Mapping[str, Any]:
    return single_tables(Config())


def own_row(config: Config, table: OwnTable) -> Any:
    """The settings in force."""
    return next(iter(config.of_wings.get(table.name, ())), table.plain)


def worker_settings(config: Config) -> Mapping[str, Any]:
    """What each worker gets, by the table's name; none where it is usual."""
    found: dict[str, Any] = {}
    for name, table in wing_tables().items():
        if isinstance(table, OwnTable):
            row = own_row(config, table)
            for key in table.worker:
                if (value := getattr(row, key)) != getattr(table.plain, key):
                    found.setdefault(name, {})[key] = value
    return found


def declared_for(config: Config, instance: Instance) -> Mapping[str, Any]:
    """The row that a session names, by its engine's name; {} = its engine needs none, or the row is
    not there."""
    table, row = _named(config, instance)
    if table is None or row is None:
        return {}
    values = asdict(row)
    # As the file beside the session reads back.
    return {table.engine: {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}}


def check_declared(config: Config, instance: Instance, others: Iterable[Instance] = ()) -> None:
    """InvalidRequest where it names a row that is not there; Refused where one of the others has
    its session at the same place."""
    table, row = _named(config, instance)
    if table is None:
        return
    if row is not None:
        if twin := _twin(config, instance, others):
            raise Refused(
                f"cannot run {instance.id} as {table.name} {row.name}: {twin} has its session at"
                f" the same place, {table.place(row)[0]}, and one session must not run twice; give"
                f" each a place of its own ([[{table.name}]] {row.name} in agent.toml)",
                field=f"settings.{table.name}",
                code="session_shared",
            )
        return
    names = ", ".join(its.name for its in config.of_wings.get(table.name, ())) or "none"
    named = str(instance.settings.get(table.name, ""))
    words = f"cannot use {table.name} {named!r:.60}: agent.toml has no such [[{table.name}]]"
    field, code = f"settings.{table.name}", f"unknown_{table.name}"
    raise InvalidRequest(f"{words}; declared: {names}", field=field, code=code)


def _twin(config: Config, instance: Instance, others: Iterable[Instance]) -> str:
    """Another one whose session is at the same place; "" = there is none."""
    place = session_place(config, instance)
    rest = (its for its in others if its.id != instance.id and its.engine == instance.engine)
    same = (its.id for its in rest if session_place(config, its)[1:] == place[1:])
    return next(same, "") if place else ""


def shared_sessions(config: Config, instances: Iterable[Instance]) -> Iterator[tuple[str, str]]:
    """Each two instances of which agent.toml makes one session."""
    first: dict[tuple[str, ...], str] = {}
    for instance in sorted(instances, key=lambda its: its.id):
        if place := session_place(config, instance):
            twin = first.setdefault((instance.engine, *place[1:]), instance.id)
            if twin != instance.id:
                yield twin, instance.id


def session_place(config: Config, instance: Instance) -> tuple[str, ...]:
    """As its table's `place` says."""
    table, row = _named(config, instance)
    return () if table is None or row is None else table.place(row)


def _named(config: Config, instance: Instance) -> tuple[ArrayTable | None, Any]:
    """The table that sessions of its engine name a row of, and its row."""
    for table in wing_tables().values():
        if isinstance(table, ArrayTable) and table.engine == instance.engine:
            named, rows = instance.settings.get(table.name), config.of_wings.get(table.name, ())
            return table, next((row for row in rows if row.name == named), None)
    return None, None
