"""doctor's checks of a fleet: key, database, certificate, the other machines, room and copies."""

import asyncio
import os
import re
import shutil
import socket
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent.cli.client import Client
from agent.config import Config
from agent.core.fleet.figures import machine_state
from agent.errors import WaError
from agent.host.machine.findings import Finding, note, ok, wrong

_CERTIFICATE_DAYS = 14
_COPY_SECONDS = 60.0
_REACH_SECONDS = 2.0
_COPY_AGE = re.compile(r"^wa_fleet_copy_age_seconds (\S+)$", re.M)


def examine(config: Config, client: Client) -> Iterator[Finding]:
    """Nothing without [fleet]."""
    if not config.fleet.database:
        return
    # Root sees files that the agent's user may not read.
    from agent.cli.fleet.owner import as_owner_of

    with as_owner_of(config.agent.state_path):
        fingerprint = yield from _key(config)
        yield from _database(config, fingerprint)
        yield from _certificate(config)
        yield from _profiles(config)
    yield from _own_address(config)
    try:
        fleet = client.get("/api/fleet")
        yield from _machines(fleet)
        yield from _room(config, client, fleet)
        yield from _shared_backends(config, client, fleet["machine"])
        yield from _copies(client)
    except WaError as error:
        yield note(
            "fleet", f"cannot ask the agent for its machines: {error}", "see the check: agent"
        )


def _profiles(config: Config) -> Iterator[Finding]:
    check, file = "fleet profiles", config.fleet.profiles_env_file
    if not config.fleet.profiles:
        return
    from agent.fleet.copies.restic import read_env_file

    try:
        if file:
            read_env_file(Path(file))
    except WaError as error:
        yield wrong(check, str(error), f"the agent's user must own it: chmod 600 {file}")
        return
    if shutil.which("restic") is None:
        yield wrong(
            check, "restic is not installed: no browser profile moves", "apt install restic"
        )
    else:
        yield ok(check, "restic is installed")


def _key(config: Config) -> Generator[Finding, None, str]:
    from agent.fleet.key import FleetKey

    try:
        fingerprint = FleetKey.read(config.fleet_key).fingerprint
    except WaError as error:
        yield wrong("fleet key", str(error), "copy it from another machine: scp -p; mode 0600")
        return ""
    yield ok("fleet key", f"{config.fleet_key}, fingerprint {fingerprint}")
    return fingerprint


def _database(config: Config, fingerprint: str) -> Iterator[Finding]:
    from agent.cli.fleet.database import agents_address
    from agent.fleet.postgres.examine import examine as look

    check = "fleet database"
    try:
        facts = asyncio.run(look(agents_address(config)))
    except WaError as error:
        yield wrong(check, str(error), "wa-agent fleet database check tries it again")
        return
    yield ok(check, f"answers, tables of version {facts.version}, login {facts.role}")
    if facts.warning:
        yield note(check, facts.warning, "correct [fleet] database")
    if facts.powers:
        sentence = f"the login {facts.role} {', '.join(facts.powers)}"
        yield note(check, sentence, "give agents a login that is a member of wa_agent_machine only")
    if facts.refused:
        sentence = f"the login {facts.role} may not call {', '.join(facts.refused)}"
        yield wrong(check, sentence, "GRANT wa_agent_machine TO it; fleet database prepare")
    for sentence in facts.weak:
        yield note(check, sentence, "change it in postgresql.conf and restart the server")
    if fingerprint and facts.fingerprint not in ("", fingerprint):
        sentence = f"the fleet's machines have another key ({facts.fingerprint})"
        yield wrong("fleet key", sentence, "copy theirs here; stored sessions open with it alone")


def _certificate(config: Config) -> Iterator[Finding]:
    from agent.fleet.certificate import ends_at, why_refused

    section, check = config.fleet, "fleet certificate"
    if not section.certificate:
        return
    files = section.certificate, section.certificate_key
    renew = "put a new one into the files of [fleet], then systemctl reload wa-agent"
    try:
        days = (ends_at(*files) - time.time()) / 86400
        host = urlsplit(section.reached_at).hostname or ""
        refusal = why_refused(*files, section.ca, host)
    except WaError as error:
        yield wrong(check, str(error), renew)
        return
    if refusal:
        yield wrong(check, f"other machines refuse it for {host}: {refusal}", renew)
    elif days < _CERTIFICATE_DAYS:
        yield note(check, f"it ends in {days:.0f} days", renew)
    else:
        yield ok(check, f"good for {host}, {days:.0f} days left")


def _own_address(config: Config) -> Iterator[Finding]:
    address = config.fleet.reached_at
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), _REACH_SECONDS).close()
    except OSError as error:
        sentence = f"cannot reach {address} from this machine: {error.strerror or error}"
        yield wrong("fleet address", sentence, "correct [fleet] address, or start the agent")
    else:
        yield ok("fleet address", f"{address} is reached from this machine")


def _machines(fleet: dict[str, Any]) -> Iterator[Finding]:
    others = [it for it in fleet["machines"] if it["name"] != fleet["machine"]]
    states = {it["name"]: machine_state(alive=it["alive"], drained=it["drained"]) for it in others}
    if lost := [name for name, state in states.items() if state == "lost"]:
        sentence = f"machines that no longer renew their lease: {', '.join(lost)}"
        yield wrong(
            "fleet", sentence, "wa-agent fleet status; wa-agent alerts explain WaFleetMachineLost"
        )
    silent = [it["name"] for it in others if it["alive"] and it["reachable"] is False]
    if silent:
        sentence = f"machines that are alive and do not answer this one: {', '.join(silent)}"
        advice = "check the network between them: requests and promises do not pass"
        yield wrong("fleet", sentence, advice)
    if fleet["halted"]:
        yield wrong(
            "fleet",
            f"no session changes its machine: {fleet['halted']}",
            "wa-agent alerts explain WaFleetHalted",
        )
    if waiting := fleet["waiting"]:
        names = ", ".join(it["id"] for it in waiting[:10])
        yield note(
            "fleet",
            f"{len(waiting)} sessions wait for a machine: {names}",
            "wa-agent fleet status says why",
        )
    if not lost and not silent and not fleet["halted"]:
        yield ok("fleet", f"{len(others)} other machines, none lost")


def _room(config: Config, client: Client, fleet: dict[str, Any]) -> Iterator[Finding]:
    """Whether the memory holds as many sessions as other machines may send here."""
    here = fleet["machine"]
    if any(it["name"] == here and it["capacity"] == 0 for it in fleet["machines"]):
        sentence = "its disk is nearly full: the fleet gives this machine no session"
        yield wrong("fleet capacity", sentence, "see the check: disk")
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
        yield note("fleet capacity", sentence, f"set [fleet] capacity = {fits}")
    else:
        yield ok("fleet capacity", f"{capacity}; the memory holds about {fits} such sessions")


def _shared_backends(config: Config, client: Client, here: str) -> Iterator[Finding]:
    """Two machines that watch one server would repair the same sessions."""
    for backend in config.backend:
        others = {it["machine"] for it in client.instances(backend=backend.name)} - {here}
        if others:
            yield note(
                f"backend {backend.name}",
                f"a backend of this name has sessions on {', '.join(sorted(others))} too",
                "if it is the same server, declare it on one machine only; else rename it",
            )


def _copies(client: Client) -> Iterator[Finding]:
    age = _COPY_AGE.search(client.request("GET", "/metrics").body.decode())
    if age is not None and float(age[1]) > _COPY_SECONDS:
        sentence = f"no stored copy holds a change of {float(age[1]):.0f} s ago"
        yield note("fleet copies", sentence, "wa-agent alerts explain WaFleetCopiesBehind")
    elif age is not None:
        yield ok("fleet copies", "every change is stored")
