"""`wa-agent fleet`: machines of the fleet, and what is not where it should be."""

from pathlib import Path

from agent.cli import command
from agent.errors import InvalidRequest, Refused

MACHINES = {
    **{"MACHINE": "name", "STATE": "state", "SESSIONS": "owned", "RUN": "used"},
    **{"ROOM FOR": "capacity", "RENEWED": "renewed_seconds", "ADDRESS": "address"},
    "VERSION": "version",
}
TROUBLES = {"MACHINE": "machine", "SESSION": "id", "NOT AS IT SHOULD BE": "cause"}


def add(commands: command.Commands) -> None:
    among = commands.group("fleet", "the machines of the fleet", "status")
    among.add("status", status)
    machines = {"MACHINE": ("each as NAME=ADDRESS", {"nargs": "+"})}
    among.add("plan", plan, "a=10.0.0.1 b=10.0.0.2 w=10.0.0.3", machines)
    among.add("accept", accept, "--without c")
    among.add("forget", forget, "c --yes")


def status(options: command.Options) -> int:
    """Show the fleet as this machine knows it; exit status 1 if this machine has no place in it, or
    a session is not where it should be."""
    found = options.ask("GET /api/fleet")
    lease, halt, troubles = found["lease_seconds"], found["halt"], found["troubles"]
    place = f"machine {found['machine']} of fleet {found['fleet']}: "
    place += f"its lease ends in {lease:.0f} s" if lease else "it has no lease"
    return options.print(
        found,
        command.clean(place),
        command.clean(f"halted by {halt['by']}: {halt['why']}") if halt else "",
        command.Table(found["machines"], MACHINES) if found["machines"] else "",
        command.Table(troubles, TROUBLES) if troubles else "",
        good=not troubles and not halt,
    )


def plan(options: command.Options) -> int:
    """Write for each machine a file with all that it needs to join.

    --fleet NAME: name of the fleet, default fleet
    --out FOLDER: where to write, default here
    """
    from agent.fleet import plan as plans  # with tarfile

    pairs = [pair.partition("=") for pair in options.machine]
    if wrong := [pair for pair, mark, _ in pairs if not mark]:
        raise InvalidRequest(f"cannot use {wrong[0]!r}: it must be NAME=ADDRESS", field="machine")
    folder = Path(options.out or ".")
    paths = plans.plan(options.fleet or "fleet", {name: it for name, _, it in pairs}, folder)
    last = "each holds the fleet's key: copy it to its machine only, then delete it here"
    return options.print([str(path) for path in paths], *map(str, paths), last)


def accept(options: command.Options) -> int:
    """End a halt: each session goes to the machine with its newest files.

    --without MACHINE…: it is off for good, and its files do not count; repeatable
    """
    found = options.ask("POST /api/fleet/accept", {"without": options.without})
    rows = [{"id": id, "machine": it} for id, it in found["sessions"].items()]
    table = command.Table(rows, {"SESSION": "id", "MACHINE": "machine"})
    return options.print(found, table if rows else "there is no halt to end")


def forget(options: command.Options) -> int:
    """Let others run the sessions of a machine that you have switched off.

    MACHINE: as `fleet status` shows it
    --yes: confirm that it is off: a session that runs twice loses its keys
    """
    if not options.yes:
        raise Refused(f"cannot forget {options.machine}: switch it off, then add --yes")
    found = options.ask(f"POST /api/fleet/machines/{options.machine}/forget")
    moved = [{"id": id, "machine": it or "-"} for id, it in found["sessions"].items()]
    table = command.Table(moved, {"SESSION": "id", "RUNS ON": "machine"})
    return options.print(found, f"{options.machine} is forgotten", table if moved else "")
