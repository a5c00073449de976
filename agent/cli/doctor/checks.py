"""The doctor's checks, in their order, each with the cure of what it finds."""

import math
import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent import VERSION
from agent.backends.declared import ADVICE as ONE_SERVER
from agent.cli.doctor import backends, engines, machine
from agent.cli.doctor.check import Check, Finding, Installation, note, ok, wrong
from agent.core.words import BEHIND
from agent.daemon.state_folder import state_is_missing, used_mark
from agent.errors import AgentUnreachable, WaError
from agent.files import open_plain
from agent.host.units import INSTANCES
from agent.moving import program_commands
from agent.webhooks import commands as webhooks


def _state_is_away(here: Installation) -> Iterator[Finding]:
    used = used_mark(os.environ, installed=here.installed)
    if used is not None and state_is_missing(here.state, here.config.session_root):
        sentence = f"{here.state} is empty, but {used} says that an agent used a state here before"
        advice = f"mount or put back the state folder; to begin with an empty one: rm {used}"
        yield wrong(sentence, advice)


def _unit_memory(here: Installation) -> Iterator[Finding]:
    """Sessions that the kernel ends before the memory is used that their settings grant."""
    client = here.client
    try:
        local = {it["id"] for it in client.instances() if not it["backend"]}
        report = client.get("/api/memory/report")["instances"]
    except WaError:
        return  # the check `agent` reports it
    wanted = {id: row["memoryLimit"] for id, row in report.items() if id in local}
    if here.config.memory.instance:  # so a session without a limit has `memory_limit = 0`
        wanted = {id: limit or math.inf for id, limit in wanted.items()}
    granted = _granted_memory(wanted)
    low = {id: most for id, most in granted.items() if (wanted[id] or 0) > most}
    for id, most in low.items():
        limit = "infinity" if math.isinf(wanted[id]) else int(wanted[id] * BEHIND)
        yield wrong(
            f"{id} may use {wanted[id]} bytes of memory, but the kernel ends it at the MemoryMax="
            f" of its unit, {most:.0f}",
            f"create /etc/systemd/system/{INSTANCES.unit(id)}.d/memory.conf with the lines"
            f" [Service] and MemoryMax={limit}; then systemctl daemon-reload",
        )
    if granted and not low:
        yield ok(f"{len(granted)} units grant what their sessions may use")


def _granted_memory(ids: Collection[str]) -> dict[str, float]:
    """MemoryMax= of each session's unit; inf = no limit. Empty where no systemd answers."""
    names, found = {INSTANCES.unit(id): id for id in ids}, {}
    for row in machine.show_units("Id,MemoryMax", names) if names else ():
        most = row.get("MemoryMax", "")
        if row.get("Id") in names and (most.isdigit() or most == "infinity"):
            found[names[row["Id"]]] = float(most)
    return found


def _agent(here: Installation) -> Iterator[Finding]:
    """The running agent's answers about itself."""
    client, state = here.client, here.state
    try:
        health = client.get("/api/health")
    except AgentUnreachable as error:
        cause = str(error).rpartition("; ")[0]
        if process := _holding_process(state):
            advice = "systemctl restart wa-agent: sessions stay connected; keep its log for us"
            yield wrong(f"{cause}; {process}", advice)
        else:
            advice = "start it: systemctl start wa-agent; then journalctl -u wa-agent"
            yield wrong(cause, advice)
        return
    except WaError as error:
        yield wrong(str(error))
        return
    agent = health["agent"]
    yield _status(agent, health)
    its_state = agent.get("places", {}).get("state", str(state))
    if its_state != str(state):
        words = f"that agent runs on {its_state}; these findings are about {state}"
        yield note(words, "run doctor on its machine, or name --state")
    for cause in agent.get("not_listening", {}).values():
        yield wrong(cause, "the agent tries again by itself; sessions run meanwhile", check="port")
    if agent["dbus_connected"] is False:
        yield wrong("the agent lost D-Bus", "systemctl status dbus", check="dbus")


def _status(agent: dict[str, Any], health: dict[str, Any]) -> Finding:
    if agent["version"] != VERSION:
        words = f"version {agent['version']} runs, {VERSION} is installed"
        return note(words, "systemctl restart wa-agent; sessions stay connected")
    if health["status"] == "sessions_in_trouble":
        names = ", ".join(health["in_trouble"][:10])
        words = f"it runs; {len(health['in_trouble'])} sessions are in trouble: {names}"
        return note(words, "wa-agent why ID, for each of them")
    if health["status"] != "ok":
        words = "it runs and is not ready" if agent["alive"] else "it runs and its loop hangs"
        return note(words, "wa-agent list --trouble; journalctl -u wa-agent")
    return ok(f"version {VERSION} runs, {health['instances']['total']} instances")


def _holding_process(state: Path) -> str:
    """The process that holds the state directory, with its state; "" without one. The agent wrote
    its number into the lock."""
    with suppress(OSError, ValueError), open_plain(state / "lock") as file:
        pid = int(file.read(20).strip())
        found = re.search(r"^State:\t(.*)", Path(f"/proc/{pid}/status").read_text(), re.M)
        return f"its process {pid} is in state {found[1]}" if found else ""
    return ""


def _database(here: Installation) -> Finding:
    try:
        found = str(here.client.post("/api/database/check")["found"])
    except AgentUnreachable:
        return note("not checked: an agent checks it, and none answers", "see the check: agent")
    except WaError as error:
        return wrong(str(error))
    return ok("whole") if found == "ok" else wrong(found)


def _troubles(here: Installation) -> Iterator[Finding]:
    try:
        troubles = here.client.get("/api/troubles")["troubles"]
    except WaError:
        return  # the check `agent` reports it
    if troubles:
        names = ", ".join(sorted({trouble["kind"] for trouble in troubles}))
        yield note(f"{len(troubles)} at present: {names}")
    else:
        yield ok("none at present")


AGAIN = "run scripts/install again"
CHECKS = (
    Check("clock", machine.clock, "run timedatectl set-ntp true, or install chrony"),
    Check(
        "disk",
        machine.disk,
        "remove unneeded files there; wa-agent trash list shows retired sessions",
    ),
    Check("state", _state_is_away),
    Check(
        "state", machine.rights, "remove the right: chmod o-rwx, and find out which program gave it"
    ),
    Check(
        "socket",
        machine.api_socket,
        "chmod 660: clients of the socket need no key ([api] trust_socket)",
    ),
    Check(
        "systemd",
        machine.systemd,
        'workers are plain children of the agent ([agent] host = "process")',
    ),
    Check(
        "memory",
        machine.counted_memory,
        "boot with systemd.unified_cgroup_hierarchy=1 and without cgroup_disable=memory;"
        " in a container, have the controller delegated",
    ),
    Check(
        "firewall",
        machine.firewall,
        "a worker can reach a cloud's metadata: deny 169.254.0.0/16 to wa-agent and wa-worker in"
        " nftables, or boot with systemd.unified_cgroup_hierarchy=1",
    ),
    Check("units", machine.unit_files, AGAIN, installed=True),
    Check("polkit", machine.polkit, AGAIN, installed=True),
    Check("memory limits", _unit_memory, installed=True),
    Check("users", machine.users, AGAIN, installed=True),
    Check("agent", _agent, "journalctl -u wa-agent says more"),
    Check("database", _database, "systemctl restart wa-agent: it rebuilds it from readable rows"),
    Check("troubles", _troubles, "wa-agent list --trouble"),
    Check("browser", engines.browser),
    Check("baileys", engines.node),
    Check("packs", engines.packs, "`wa-agent restart ID` moves a session"),
    Check("config", backends.open_file),
    Check("config", backends.one_server_twice, ONE_SERVER),
    Check("backend", backends.servers),
    Check("backend", backends.surroundings),
    Check("program", program_commands.examine),
    Check("webhook", webhooks.examine),
)


def examine(here: Installation) -> Iterator[Finding]:
    for check in CHECKS:
        yield from check.findings(here)
