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
    each = ("a machine and its IP address", {"nargs": "+", "metavar": "NAME=ADDRESS"})
    among.add("plan", plan, "a=10.0.0.1 b=10.0.0.2 w=10.0.0.3", {"MACHINES": each})
    among.add("accept", accept, "--without c")
    among.add("forget", forget, "c --yes")
    among.add("move", move, "shop b")
    among.add("drain", drain, "")
    among.add("undrain", undrain, "")


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
    """Plan a fleet: write plan-MACHINE.tar for each machine, and ca.key.

    --out FOLDER: where they are written; the working folder otherwise
    --name FLEET: name of the fleet; "fleet" otherwise
    """
    from agent.fleet.plan import plan

    addresses = dict(map(_named, options.machines))
    if len(addresses) < len(options.machines):
        raise InvalidRequest("cannot plan a fleet: each machine needs a name of its own")
    files = [*map(str, plan(options.name or "fleet", addresses, Path(options.out or ".")))]
    return options.print(
        {"files": files},
        *map(command.clean, files),
        "Each machine gets its own file, and no other machine. Keep ca.key off them all: it makes"
        " machines of this fleet. Then:",
        "  on each machine:   sudo apt install etcd-server",
        "                     sudo wa-agent fleet join plan-MACHINE.tar",
        "                     sudo systemctl restart wa-agent",
        "  a witness:         sudo wa-agent fleet store install plan-MACHINE.tar",
        "  then on one:       wa-agent fleet status && sudo wa-agent doctor",
        "Two members of etcd stop when one is away: let a third machine be a witness."
        if len(files) < 4
        else "",
    )


def _named(text: str) -> tuple[str, str]:
    name, _, address = text.partition("=")
    if not (name and address):
        raise InvalidRequest(f"cannot use {text!r:.80}: a machine is named as NAME=ADDRESS")
    return name, address


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


def move(options: command.Options) -> int:
    """Let another machine go on with a session of this one.

    ID: the session
    MACHINE: as `fleet status` shows it
    """
    path = f"POST /api/fleet/sessions/{options.id}/move"
    found = options.ask(path, {"machine": options.machine})
    return options.print(found, f"{options.id} is a session of machine {options.machine} now")


def drain(options: command.Options) -> int:
    """Give all sessions of this machine away, one after the other, and take none."""
    found = options.ask("POST /api/fleet/drain", {"on": True})
    return options.print(
        found, "its sessions go to other machines; `fleet status` shows which stay"
    )


def undrain(options: command.Options) -> int:
    """Let this machine take sessions again."""
    found = options.ask("POST /api/fleet/drain", {"on": False})
    return options.print(found, "this machine takes sessions again")
