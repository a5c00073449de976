"""The doctor's checks of the agent: its state folder, its database, and its answers."""

import math
import os
import subprocess
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent import VERSION
from agent.cli.client import Client
from agent.cli.doctor import machine
from agent.cli.doctor.check import Check, Finding, Installation, note, ok, wrong
from agent.cli.doctor.database import check_unused, lock_of
from agent.config.sections import INSTALLED_STATE
from agent.core.words import BEHIND
from agent.daemon.state_folder import StatePlaces, state_is_missing, used_mark, was_used
from agent.errors import AgentUnreachable, WaError
from agent.files import open_plain
from agent.host.units import INSTANCES


def checks(here: Installation) -> Iterator[Check]:
    config = here.config
    state = config.agent.state_path
    yield Check("python", lambda _: machine.check_python())
    yield Check("clock", lambda _: machine.check_clock())
    yield Check("disk", lambda _: machine.check_disk(state if state.is_dir() else Path("/")))
    yield Check("state", _missing_state)
    folders = state, config.session_root, config.api_socket
    yield Check("state", lambda _: machine.check_permissions(*folders))
    yield Check("systemd", lambda _: machine.check_systemd())
    if state == INSTALLED_STATE:
        yield Check("units", lambda _: machine.check_installation(), machine.AGAIN)
        yield Check("memory limits", check_unit_memory)
        yield Check("users", lambda _: machine.check_users(), machine.AGAIN)
    yield Check("agent", _agent, "journalctl -u wa-agent says more")
    repaired = "restart the agent: it rebuilds the database from the readable rows"
    yield Check("database", _database, repaired)
    yield Check("troubles", _troubles)


def instances_by_engine(client: Client) -> Counter[str]:
    """Empty where no agent answers: the check `agent` reports it."""
    try:
        return Counter(instance["engine"] for instance in client.instances())
    except WaError:
        return Counter()


def check_unit_memory(here: Installation) -> Iterator[Finding]:
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
    """MemoryMax= of each session's unit, its drop-ins included; inf = no limit. Empty where no
    systemd answers."""
    units = {INSTANCES.unit(id): id for id in ids}
    command = ["systemctl", "show", "--no-pager", "-p", "Id,MemoryMax", "--", *units]
    said = ""
    with suppress(OSError, subprocess.SubprocessError):
        said = machine.run(command).stdout
    found = {}
    for block in said.split("\n\n") if units else ():
        row = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        most = row.get("MemoryMax", "")
        if row.get("Id") in units and (most.isdigit() or most == "infinity"):
            found[units[row["Id"]]] = float(most)
    return found


def _missing_state(here: Installation) -> Iterator[Finding]:
    config = here.config
    state = config.agent.state_path
    used = used_mark(os.environ, installed=state == INSTALLED_STATE)
    places = StatePlaces(state, config.session_root, config.cache_root, used)
    if was_used(places) and state_is_missing(places):
        sentence = f"{state} is empty, but {used} says that an agent used a state here before"
        advice = f"mount or put back the state folder; to begin with an empty one: rm {used}"
        yield wrong(sentence, advice)


def _agent(here: Installation) -> Iterator[Finding]:
    """The running agent's answers about itself."""
    client, state = here.client, here.config.agent.state_path
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


_PID_BYTES = 20
_STATES = {
    "T": "is stopped by a signal",
    "t": "is stopped by a debugger",
    "D": "waits for a disk",
    "R": "is busy",
    "S": "waits for something",
    "Z": "has ended and is not reaped",
}


def _holding_process(state: Path) -> str:
    """The process that holds the state directory, with its state; "" without one."""
    pid = lock_holder(state)
    if pid is None:
        return ""
    try:
        word = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
    return f"its process {pid} {_STATES.get(word, f'is in state {word}')}"


def lock_holder(state: Path) -> int | None:
    """The agent's process, which writes its number into the lock of the state directory."""
    try:
        with open_plain(state / "lock") as file:
            return int(file.read(_PID_BYTES).strip())
    except (OSError, ValueError):
        return None


def _database(here: Installation) -> Finding:
    path = here.config.agent.state_path / "agent.db"
    if not path.exists():
        return note(f"{path} is not there", "the agent creates it at its first start")
    try:
        with lock_of(path.parent) as free:
            answer = None if free else here.client.post("/api/database/check")
            result = check_unused(path) if answer is None else str(answer["found"])
    except AgentUnreachable:
        return note("an agent holds it and does not answer", "see the check: agent")
    except WaError as error:
        return wrong(str(error))
    if result != "ok":
        return wrong(result)
    return ok("whole")


def _troubles(here: Installation) -> Iterator[Finding]:
    try:
        troubles = here.client.get("/api/troubles")["troubles"]
    except WaError:
        return  # the check `agent` reports it
    if troubles:
        names = ", ".join(sorted({trouble["kind"] for trouble in troubles}))
        yield note(f"{len(troubles)} at present: {names}", "wa-agent list --trouble")
    else:
        yield ok("none at present")
