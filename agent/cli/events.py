"""`events`: the history of instances and agent. `logs`: what a session's worker prints, and its
program. With -f also what comes."""

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from agent.cli.client import AgentSaidNo, Client
from agent.cli.command import Subparsers, Words, add_command, add_instance_command, client_of
from agent.cli.terminal import clean, moment, soft
from agent.core.model import parse_instance_id
from agent.errors import AgentUnreachable, Refused
from agent.host.units import INSTANCES_SLICE

LAST = 60
"""Lines of the journal."""
_EVERY = 1.0
_AGAIN = ("not_running", "slow", "stopping")
"""Codes of a session whose worker is expected back."""
_MOST = 1000


def add(commands: Subparsers) -> None:
    words: Words = {
        "[ID]": ("only this instance", {"type": parse_instance_id}),
        "-f/--follow": "keep printing new events",
        "-n/--limit N": ("number of events, default 50", {"type": int, "default": 50}),
        "--kind KIND": ("only this kind", {"action": "append", "default": []}),
    }
    add_command(commands, "events", events, example="sales -f", words=words)
    words = {"-f/--follow": "keep printing new lines"}
    add_instance_command(commands, "logs", logs, example="-f", words=words)


def events(options: argparse.Namespace) -> int:
    """Show the history of instances and agent."""
    client = client_of(options)
    path = f"/api/instance/{options.id}/events" if options.id else "/api/events"
    newest_first = client.get(path, {"kind": options.kind, "limit": options.limit})["events"]
    found, cursor = newest_first[::-1], 0
    while True:
        for event in found:
            _print_event(event, options)
            cursor = event["cursor"]
        if not options.follow:
            return 0
        time.sleep(_EVERY)
        query = {"kind": options.kind, "limit": _MOST, "after": cursor}
        found = ask_again(client, path, query)["events"]


def _print_event(event: dict[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(event, ensure_ascii=False), flush=True)
        return
    where = event["instance"] or "-"
    print(
        f"{soft(moment(event['time']))} [{clean(event['category'])}] [{clean(where)}]"
        f" {clean(event['kind'])}: {clean(event['sentence'])}",
        flush=True,
    )


def ask_again(client: Client, path: str, query: dict[str, Any]) -> dict[str, Any]:
    """A restart of the agent or of the session's worker only delays it."""
    said = ""
    while True:
        try:
            return client.get(path, query)
        except (AgentUnreachable, AgentSaidNo) as error:
            if isinstance(error, AgentSaidNo) and error.code not in _AGAIN:
                raise
            if said != str(error):
                said = str(error)
                print(f"wa-agent: {clean(said)}; waiting", file=sys.stderr)
            time.sleep(_EVERY)


def logs(options: argparse.Namespace) -> int:
    """Print the last lines of a session's worker, and of the program that it runs."""
    client = client_of(options)
    path = f"/api/instance/{options.id}/worker-lines"
    if backend := client.get(f"/api/instance/{options.id}").get("backend"):
        words = f"it is a session of the server {backend}; see that one's log, and the journal"
        raise Refused(f"cannot print lines of {options.id}: {words}", code="not_supported")
    found = client.get(path)
    if found["lines"] is None:
        return _from_journal(client, options)
    while True:
        if found["cut"]:
            print("wa-agent: the log was shortened; lines may be missing here", file=sys.stderr)
        for line in found["lines"]:
            shown = json.dumps({"line": line}, ensure_ascii=False)
            print(shown if options.json else clean(line), flush=True)
        if not options.follow:
            return 0
        time.sleep(_EVERY)
        found = ask_again(client, path, {"after": found["next"]})


def _from_journal(client: Client, options: argparse.Namespace) -> int:
    """As the caller: the agent's own user may not read the journal."""
    unit = f"wa-instance@{options.id}.service"
    command = ["journalctl", "--no-pager", "-q", *(["-f"] if options.follow else [])]
    command += ["-n", str(LAST), "-o", "json" if options.json else "short-iso"]
    # Of its own worker, the manager's about that one, and of a pack's worker about this session.
    command += [f"_SYSTEMD_UNIT={unit}", "+", "_PID=1", f"UNIT={unit}"]
    command += ["+", f"_SYSTEMD_SLICE={INSTANCES_SLICE}", f"WA_INSTANCE={options.id}"]
    if client.url:
        words = f"on the machine that it runs on: {' '.join(command)}"
        raise Refused(f"cannot print lines of {options.id}: {words}", code="not_supported")
    return subprocess.run(command, check=False).returncode
