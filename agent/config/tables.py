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
