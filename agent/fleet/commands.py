"""`wa-agent fleet`: machines of the fleet, and what is not where it should be."""

from agent.cli import command

MACHINES = {
    **{"MACHINE": "name", "STATE": "state", "SESSIONS": "owned", "RUN": "used"},
    **{"ROOM FOR": "capacity", "RENEWED": "renewed_seconds", "ADDRESS": "address"},
    "VERSION": "version",
}
TROUBLES = {"MACHINE": "machine", "SESSION": "id", "NOT AS IT SHOULD BE": "cause"}


def add(commands: command.Commands) -> None:
    among = commands.group("fleet", "the machines of the fleet", "status")
    among.add("status", status)


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
