"""`wa-agent fleet`: machines of the fleet, and what is not where it should be."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from agent.cli import client, command
from agent.config.config import Config, is_loopback, split_address
from agent.errors import InvalidRequest, Refused, TryLater, WaError
from agent.fleet.settings import fleet_of

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
    config = {"--config FILE": "agent.toml of an agent that is no service of this machine"}
    among.add("join", join, "plan-b.tar", config)
    store = among.group("store", "this machine's member of etcd", "install plan-w.tar")
    store.add("install", install, "plan-w.tar")
    new = ("the machine that gets one", {"metavar": "NEW=ADDRESS"})
    own = ("its new name, and its IP address", {"metavar": "NEW=ADDRESS"})
    among.add("rename", rename, "c=10.0.0.4 --yes", {"NEW": own, **config})
    store.add("replace", replace, "a d=10.0.0.4", {"OLD": "the machine that loses it", "NEW": new})
    among.add("why", why, "sales")
    among.add("move", move, "sales b")
    among.add("drain", drain)
    among.add("undrain", undrain)
    among.add("accept", accept, "--without c")
    among.add("forget", forget, "c --yes")


def status(options: command.Options) -> int:
    """Show the fleet as this machine knows it; exit status 1 if this machine has no place in it, or
    a session is not where it should be."""
    found = options.ask("GET /api/fleet")
    lease, halt, troubles = found["lease_seconds"], found["halt"], found["troubles"]
    ends = f"its lease ends in {lease:.0f} s" if lease else "it has no lease"
    return options.print(
        found,
        command.clean(f"machine {found['machine']} of fleet {found['fleet']}: {ends}"),
        command.clean(f"halted by {halt['by']}: {halt['why']}") if halt else "",
        command.Table(found["machines"], MACHINES) if found["machines"] else "",
        command.Table(troubles, TROUBLES) if troubles else "",
        *map(command.clean, found["notes"]),
        good=not troubles and not halt,
    )


def examine(here: client.Installation) -> Iterator[client.Finding]:
    """Check for the doctor this machine's certificates, and what its agent knows of the fleet."""
    from agent.fleet.plan import KEYS

    own, folder = fleet_of(here.config), here.state / "fleet"
    if not own.store:
        return
    with suppress(OSError):  # root may look
        for path in (folder / name for name in KEYS[:3]):
            if own.address and not (path.exists() or is_loopback(split_address(own.address)[0])):
                cure = "sudo wa-agent fleet join plan-MACHINE.tar; then restart the agent"
                yield client.wrong(f"{path} is missing: no copies are made", cure)
            elif path.suffix == ".key" and path.stat().st_mode & 0o077:
                yield client.wrong(f"{path} is open to others", f"chmod 600 {path}")
    with suppress(WaError):  # the check of the agent tells why
        found = here.client.get("/api/fleet")
        troubles = [f"{it['machine']}: {it['cause']}" for it in found["troubles"] if not it["id"]]
        yield from (*map(client.wrong, troubles), *map(client.note, found["notes"]))
        if not troubles:
            yield client.ok(f"machine {found['machine']} has its place in fleet {found['fleet']}")


def plan(options: command.Options) -> int:
    """Plan a fleet: write plan-MACHINE.tar for each machine, and ca.key.

    --out FOLDER: where they are written; the working folder otherwise
    --name FLEET: name of the fleet; "fleet" otherwise
    """
    from agent.fleet.plan import machine_of, plan

    machines = dict(map(machine_of, options.machines))
    if not 1 < len({*machines.values()}) == len(options.machines):
        words = "name two machines or more, each with a name and an address of its own"
        raise InvalidRequest(f"cannot plan a fleet: {words}")
    files = [*map(str, plan(options.name or "fleet", machines, Path(options.out or ".")))]
    return options.print(
        {"files": files},
        *map(command.clean, files),
        "Give each machine its own file alone, and none of them ca.key: it signs machines. Then:",
        "  sudo apt install etcd-server && sudo wa-agent fleet join plan-MACHINE.tar",
        "  sudo systemctl restart wa-agent && wa-agent fleet status",
        "On a witness instead: sudo wa-agent fleet store install plan-MACHINE.tar",
        "Two members of etcd stop when one is away: plan a witness." if len(files) < 4 else "",
    )


def join(options: command.Options) -> int:
    """Join a fleet with this machine's plan.

    FILE: plan-MACHINE.tar
    --no-store: without a member of etcd here
    """
    from agent.fleet.join import join

    path, installed, config = _changed(options)
    state = config.agent.state_path
    name = join(_content(options.file), path, state, member=installed and not options.no_store)
    restart = "sudo systemctl restart wa-agent" if installed else "restart its agent"
    return options.print({"machine": name}, f"this is {name}: {restart}; wa-agent fleet status")


def install(options: command.Options) -> int:
    """Make this machine a witness: a member of etcd, no agent.

    FILE: plan-MACHINE.tar
    """
    from agent.fleet.join import install_member, own_plan

    if os.geteuid() != 0:
        raise Refused("cannot install a member of etcd: run it with sudo")
    install_member(own_plan(_content(options.file)))
    return options.print({"installed": True}, "etcd starts here; it waits for the other members")


def replace(options: command.Options) -> int:
    """Replace a member of etcd that is off for good, from the folder of the plan.

    --plans FOLDER: where ca.key and the plans are; the working folder otherwise
    """
    from agent.fleet.plan import machine_of, replace

    (name, address), folder = machine_of(options.new), Path(options.plans or ".")
    store = asyncio.run(replace(folder, options.old, name, address))
    return options.print(
        {"file": str(folder / f"plan-{name}.tar"), "store": store},
        f"etcd has {name} instead of {options.old}; on {name}: sudo wa-agent fleet join, or store"
        f" install, plan-{name}.tar",
        f"in agent.toml of the others: [fleet] store = {store}; then restart their agents",
    )


def rename(options: command.Options) -> int:
    """Make a cloned machine an empty one: its sessions are the original's, and go to the trash.

    --yes: confirm that this machine is the clone
    """
    from agent.fleet.join import rename
    from agent.fleet.plan import machine_of

    if not options.yes:
        raise Refused("cannot rename this machine: its sessions go to the trash; add --yes")
    path, _, config = _changed(options)
    new = rename(*machine_of(options.new), path, config)
    member = "if it was cloned with a member of etcd: sudo systemctl disable --now etcd"
    return options.print({"machine": new}, f"this machine is {new}, and empty", member)


def _changed(options: command.Options) -> tuple[Path, bool, Config]:
    """Return agent.toml, if it is the service's, and its settings."""
    from agent.config.load import load_config

    if (path := client.config_path(options.config, os.environ)) is None:
        raise Refused(client.NO_CONFIG)
    if (installed := path == client.INSTALLED_CONFIG) and os.geteuid() != 0:
        raise Refused("cannot change the service: it is root's; run it with sudo")
    return path, installed, load_config(path, os.environ)


def _content(path: Path) -> bytes:
    with client.open_source(path, "file") as file:
        return file.read(2 << 20)


def why(options: command.Options) -> int:
    """Show which machine has a session, since when, its copies, and why it does not run.

    ID: the session
    """
    found = options.ask(f"GET /api/fleet/sessions/{options.id}")
    return options.print(found, {**found, "copies": ", ".join(found["copies"]) or "none"})


def move(options: command.Options) -> int:
    """Move a session to another machine; it stops here only until it runs there.

    ID: the session
    MACHINE: as `fleet status` shows it
    """
    asked, body = f"POST /api/fleet/sessions/{options.id}/move", {"machine": options.machine}
    return options.do(asked, "{id} is {machine}'s now", body)


def drain(options: command.Options) -> int:
    """Move all sessions away from this machine, which takes none from now on; exit status 1 if some
    stay, as no other machine can take them; 75 if none can be moved now."""
    found = options.ask("POST /api/fleet/drain", {"on": True})
    said = "no session comes; each of this machine's goes until `fleet status` shows 0 SESSIONS"
    if problem := command.clean(found["problem"]):
        said = f"this order is kept, but no session moves yet: {problem}"
    status = options.print(found, said, _table(found, "STAYS"), good=not found["sessions"])
    return TryLater.exit_status if problem else status


def undrain(options: command.Options) -> int:
    """Let this machine take sessions again."""
    return options.do("POST /api/fleet/drain", "this machine takes sessions again", {"on": False})


def accept(options: command.Options) -> int:
    """End a halt: each session goes to the machine with its newest files.

    --without MACHINE…: it is off for good, and its files do not count; repeatable
    """
    found = options.ask("POST /api/fleet/accept", {"without": options.without})
    return options.print(found, _table(found, "MACHINE") or "there is no halt, or no session")


def forget(options: command.Options) -> int:
    """Miss a machine no more that you have switched off for good.

    MACHINE: as `fleet status` shows it
    --yes: confirm that it is off: a session that runs twice loses its keys
    """
    if not options.yes:
        raise Refused(f"cannot forget {options.machine}: switch it off, then add --yes")
    found = options.ask(f"POST /api/fleet/machines/{options.machine}/forget")
    return options.print(found, f"{options.machine} is forgotten", _table(found, "RUNS ON"))


def _table(found: dict[str, dict[str, str]], what: str) -> command.Table | str:
    rows = [{"id": id, "is": it or "-"} for id, it in found["sessions"].items()]
    return command.Table(rows, {"SESSION": "id", what: "is"}) if rows else ""
