"""doctor's checks of a fleet: key, database, certificate, the other machines, room and copies."""

import asyncio
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.cli.client import Client
from agent.cli.doctor.check import Check, Found, Installation
from agent.cli.doctor.findings import Finding, note, ok, wrong
from agent.config import Config
from agent.core.fleet.figures import machine_state
from agent.errors import WaError

_CERTIFICATE_DAYS = 14
_COPY_SECONDS = 60.0
_REACH_SECONDS = 2.0
_COPY_AGE = re.compile(r"^wa_fleet_copy_age_seconds (\S+)$", re.M)


def checks(here: Installation) -> Iterator[Check]:
    """Nothing without [fleet]."""
    if not here.config.fleet.database:
        return
    renew = "put a new one into the files of [fleet], then systemctl reload wa-agent"
    yield Check("fleet key", _as_owner(_key), "copy it from another machine: scp -p; mode 0600")
    again = "wa-agent fleet database check tries it again"
    yield Check("fleet database", _as_owner(_database), again)
    yield Check("fleet certificate", _as_owner(_certificate), renew)
    yield Check("fleet profiles", _as_owner(_profiles))
    yield Check("fleet address", _own_address)
    yield Check("fleet", _agents_answers)


def _as_owner(look: Callable[[Config], Iterator[Finding]]) -> Callable[[Installation], Found]:
    """Root sees files that the agent's user may not read."""

    def run(here: Installation) -> Found:
        from agent.cli.fleet.owner import as_owner_of

        with as_owner_of(here.config.agent.state_path):
            return list(look(here.config))

    return run


def _agents_answers(here: Installation) -> Iterator[Finding]:
    config, client = here.config, here.client
    try:
        fleet = client.get("/api/fleet")
        yield from _machines(fleet)
        yield from _room(config, client, fleet)
        yield from _shared_backends(config, client, fleet["machine"])
        yield from _copies(client)
    except WaError as error:
        yield note(f"cannot ask the agent for its machines: {error}", "see the check: agent")


def _profiles(config: Config) -> Iterator[Finding]:
    file = config.fleet.profiles_env_file
    if not config.fleet.profiles:
        return
    from agent.fleet.copies.env_file import read_env_file

    try:
        if file:
            read_env_file(Path(file))
    except WaError as error:
        yield wrong(str(error), f"the agent's user must own it: chmod 600 {file}")
        return
    if shutil.which("restic") is None:
        yield wrong("restic is not installed: no browser profile moves", "apt install restic")
    else:
        yield ok("restic is installed")


def _key(config: Config) -> Iterator[Finding]:
    from agent.fleet.key import FleetKey

    try:
        fingerprint = FleetKey.read(config.fleet_key).fingerprint
    except WaError as error:
        yield wrong(str(error))
    else:
        yield ok(f"{config.fleet_key}, fingerprint {fingerprint}")


def _database(config: Config) -> Iterator[Finding]:
    from agent.cli.fleet.database import agents_address
    from agent.fleet.key import FleetKey
    from agent.fleet.postgres.examine import examine as look

    try:
        facts = asyncio.run(look(agents_address(config)))
    except WaError as error:
        yield wrong(str(error))
        return
    yield ok(f"answers, tables of version {facts.version}, login {facts.role}")
    if facts.warning:
        yield note(facts.warning, "correct [fleet] database")
    if facts.powers:
        sentence = f"the login {facts.role} {', '.join(facts.powers)}"
        yield note(sentence, "give agents a login that is a member of wa_agent_machine only")
    if facts.refused:
        sentence = f"the login {facts.role} may not call {', '.join(facts.refused)}"
        yield wrong(sentence, "GRANT wa_agent_machine TO it; fleet database prepare")
    for sentence in facts.weak:
        yield note(sentence, "change it in postgresql.conf and restart the server")
    try:
        own = FleetKey.read(config.fleet_key).fingerprint
    except WaError:
        return  # the check of the key tells why
    if facts.fingerprint not in ("", own):
        sentence = f"the fleet's machines have another key ({facts.fingerprint})"
        advice = "copy theirs here; stored sessions open with it alone"
        yield wrong(sentence, advice, check="fleet key")


def _certificate(config: Config) -> Iterator[Finding]:
    from agent.fleet.certificate import ends_at, why_refused

    section = config.fleet
    if not section.certificate:
        return
    files = section.certificate, section.certificate_key
    try:
        days = (ends_at(*files) - time.time()) / 86400
        host = urlsplit(section.reached_at).hostname or ""
        refusal = why_refused(*files, section.ca, host)
    except WaError as error:
        yield wrong(str(error))
        return
    if refusal:
        yield wrong(f"other machines refuse it for {host}: {refusal}")
    elif days < _CERTIFICATE_DAYS:
        yield note(f"it ends in {days:.0f} days")
    else:
        yield ok(f"good for {host}, {days:.0f} days left")


def _own_address(here: Installation) -> Iterator[Finding]:
    address = here.config.fleet.reached_at
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), _REACH_SECONDS).close()
    except OSError as error:
        sentence = f"cannot reach {address} from this machine: {error.strerror or error}"
        yield wrong(sentence, "correct [fleet] address, or start the agent")
    else:
        yield ok(f"{address} is reached from this machine")


def _machines(fleet: dict[str, Any]) -> Iterator[Finding]:
    others = [it for it in fleet["machines"] if it["name"] != fleet["machine"]]
    states = {it["name"]: machine_state(alive=it["alive"], drained=it["drained"]) for it in others}
    if lost := [name for name, state in states.items() if state == "lost"]:
        sentence = f"machines that no longer renew their lease: {', '.join(lost)}"
        yield wrong(sentence, "wa-agent fleet status; wa-agent alerts explain WaFleetMachineLost")
    silent = [it["name"] for it in others if it["alive"] and it["reachable"] is False]
    if silent:
        sentence = f"machines that are alive and do not answer this one: {', '.join(silent)}"
        advice = "check the network between them: requests and promises do not pass"
        yield wrong(sentence, advice)
    if fleet["halted"]:
        yield wrong(
            f"no session changes its machine: {fleet['halted']}",
            "wa-agent alerts explain WaFleetHalted",
        )
    if waiting := fleet["waiting"]:
        names = ", ".join(it["id"] for it in waiting[:10])
        yield note(
            f"{len(waiting)} sessions wait for a machine: {names}", "wa-agent fleet status says why"
        )
    if not lost and not silent and not fleet["halted"]:
        yield ok(f"{len(others)} other machines, none lost")


def _room(config: Config, client: Client, fleet: dict[str, Any]) -> Iterator[Finding]:
    """Whether the memory holds as many sessions as other machines may send here."""
    here = fleet["machine"]
    if any(it["name"] == here and it["capacity"] == 0 for it in fleet["machines"]):
        sentence = "its disk is nearly full: the fleet gives this machine no session"
        yield wrong(sentence, "see the check: disk", check="fleet capacity")
        return
    sizes = [
        it["memory_bytes"]
        for it in client.instances(machine=here)
        if it["memory_bytes"] is not None
    ]
    if not sizes:
        return
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    budget = config.memory.total or machine * (config.memory.machine_share or 1.0)
    fits = int(budget / max(sum(sizes) / len(sizes), 1.0))
    capacity = config.fleet.capacity
    if fits < capacity:
        sentence = f"capacity is {capacity}, and the memory holds about {fits} such sessions"
        yield note(sentence, f"set [fleet] capacity = {fits}", check="fleet capacity")
    else:
        yield ok(f"{capacity}; the memory holds about {fits} such sessions", check="fleet capacity")


def _shared_backends(config: Config, client: Client, here: str) -> Iterator[Finding]:
    """Two machines that watch one server would repair the same sessions."""
    for backend in config.backend:
        others = {it["machine"] for it in client.instances(backend=backend.name)} - {here}
        if others:
            yield note(
                f"a backend of this name has sessions on {', '.join(sorted(others))} too",
                "if it is the same server, declare it on one machine only; else rename it",
                check=f"backend {backend.name}",
            )


def _copies(client: Client) -> Iterator[Finding]:
    age = _COPY_AGE.search(client.request("GET", "/metrics").body.decode())
    if age is not None and float(age[1]) > _COPY_SECONDS:
        sentence = f"no stored copy holds a change of {float(age[1]):.0f} s ago"
        yield note(sentence, "wa-agent alerts explain WaFleetCopiesBehind", check="fleet copies")
    elif age is not None:
        yield ok("every change is stored", check="fleet copies")
