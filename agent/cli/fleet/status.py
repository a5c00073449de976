"""`fleet status`: this machine's lease, the database, every machine, what waits and what moves."""

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from agent.cli.command import client_of
from agent.cli.terminal.answer import print_answer
from agent.cli.terminal.show import colour, columns_of, duration, pair_lines, table_lines
from agent.core.fleet.figures import machine_state

Machine = dict[str, Any]

_COLUMNS = ("MACHINE", "STATE", "SESSIONS", "RENEWED", "REACHED", "VERSION", "ENGINES", "ADDRESS")
_STATE_COLOURS = {"alive": "good", "lost": "bad", "drained": "warn", "away": "soft"}
_MANY = 1000
"""Columns of a pipe: it breaks no line."""


def status(options: argparse.Namespace) -> int:
    fleet = client_of(options).get("/api/fleet")
    lines = [
        *pair_lines(dict(_about(fleet))),
        "",
        *machine_lines(fleet["machines"], _width()),
        *_listed("waiting for a machine", ("ID", "MACHINE", "WHY"), fleet["waiting"]),
        *_listed("moving", ("ID", "TO"), fleet["moving"]),
    ]
    return print_answer(options, fleet, *lines, good=_is_good(fleet))


def _is_good(fleet: dict[str, Any]) -> bool:
    """All run where they should, and would without the database."""
    lost = [it["name"] for it in fleet["machines"] if state_of(it) == "lost"]
    amiss = lost or fleet["halted"] or fleet["waiting"] or _apart(fleet) or fleet.get("elsewhere")
    able = fleet["database"]["reachable"] and not fleet.get("memory_error")
    return able and fleet["lease"]["holds"] and not amiss


def _apart(fleet: dict[str, Any]) -> dict[str, str]:
    """By name, why a machine that lives would not promise to wait for this one."""
    silent = [it["name"] for it in fleet["machines"] if it["alive"] and it["reachable"] is False]
    known = {it["machine"]: it["why"] for it in fleet.get("apart", ())}
    return dict.fromkeys(silent, "it does not answer at its address") | known


def _width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _MANY


def _about(fleet: dict[str, Any]) -> Iterator[tuple[str, str]]:
    database, lease = fleet["database"], fleet["lease"]
    yield "this machine", fleet["machine"]
    if not lease["holds"]:
        yield "lease", "has ended: its sessions are stopped until it renews"
    elif lease["by"] == "promises":
        left = duration(lease["seconds_left"])
        yield "lease", f"holds for {left}, because every other machine promised to wait"
    else:
        yield "lease", f"holds for {duration(lease['seconds_left'])}"
    since = f" for {duration(database['since_seconds'])}"
    if database["reachable"]:
        yield "database", f"answers{since}"
    else:
        yield "database", f"has not answered{since}: {database['error']}"
    if why := fleet.get("memory_error"):
        yield "disk", f"{why}: this machine renews no lease, and its sessions go to other ones"
    if old := fleet.get("machines_as_of_seconds"):
        yield "machines", f"below as they were {duration(old)} ago, and what waits as well"
    if fleet["halted"]:
        yield "halted", f"{fleet['halted']} (wa-agent fleet accept)"
    elif not fleet["settled"] and database["reachable"]:
        yield "database", "started a moment ago; no session changes its machine yet"
    if names := fleet.get("elsewhere"):
        yield (
            "databases",
            f"{', '.join(names)} renew in another database than this machine: two of them take"
            " writes, and no session changes its machine; stop the one that is not to go on",
        )
    if apart := _apart(fleet):
        reasons = "; ".join(f"{name}: {why}" for name, why in apart.items())
        yield "apart", f"without the database the sessions would stop, because of {reasons}"


def state_of(machine: Machine) -> str:
    return machine_state(alive=machine["alive"], drained=machine["drained"])


def machine_lines(machines: Sequence[Machine], width: int) -> list[str]:
    """The table, without its last columns where the terminal is too narrow for them."""
    rows = [_cells(machine) for machine in machines]
    count = next((n for n in range(len(_COLUMNS), 3, -1) if _columns(n, rows) <= width), 3)
    head, *lines = table_lines(_COLUMNS[:count], [row[:count] for row in rows])
    return [head, *map(_tinted, lines, map(state_of, machines))]


def _columns(count: int, rows: Sequence[Sequence[str]]) -> int:
    """How wide a table of the first columns is."""
    columns = zip(_COLUMNS[:count], *(row[:count] for row in rows), strict=True)
    return sum(max(map(columns_of, column)) for column in columns) + 2 * (count - 1)


def _tinted(line: str, state: str) -> str:
    return line.replace(state, colour(state, _STATE_COLOURS[state]), 1)


def _cells(machine: Machine) -> tuple[str, ...]:
    seen = machine["seconds_since_renewal"]
    labels = ", ".join(f"{name}={value}" for name, value in machine["labels"].items())
    return (
        machine["name"] + (f" ({labels})" if labels else ""),
        state_of(machine),
        f"{machine['sessions']} of {machine['capacity']}",
        "never" if seen is None else f"{duration(seen)} ago",
        {True: "yes", False: "no", None: "-"}[machine["reachable"]],
        machine["version"] or "-",
        ", ".join(machine["engines"]) or "-",
        machine["address"] or "-",
    )


def _listed(what: str, heads: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    keys = [head.lower() for head in heads]
    table = table_lines(heads, [[row.get(key) or "-" for key in keys] for row in rows])
    return ["", f"{len(rows)} {what}:", *table]
