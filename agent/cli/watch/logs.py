"""What a session's worker prints, and its program; with -f also what comes."""

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from agent.cli.client import Client
from agent.cli.command import Subparsers, add_instance_command, client_of, wants_json
from agent.cli.terminal.show import clean
from agent.errors import AgentUnreachable, Refused
from agent.host.units import INSTANCES_SLICE

LAST = 60
_EVERY = 1.0


def add(commands: Subparsers) -> None:
    summary = "print the last lines of a session's worker, and of the program that it runs"
    parser = add_instance_command(commands, "logs", logs, summary, "-f")
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing new lines")


def logs(options: argparse.Namespace) -> int:
    client = client_of(options)
    path = f"/api/instance/{options.id}/worker-lines"
    if backend := client.get(f"/api/instance/{options.id}").get("backend"):
        raise Refused(
            f"cannot print lines of {options.id}: it is a session of the server {backend}, which"
            " has a log of its own; the agent's lines of it: journalctl -u wa-agent",
            code="not_supported",
        )
    found = client.get(path)
    if found["lines"] is None:
        return _from_journal(client, options)
    _print(found, options)
    while options.follow:
        time.sleep(_EVERY)
        found = _more(client, path, found["next"], options)
    return 0


def _more(client: Client, path: str, after: int, options: argparse.Namespace) -> dict[str, Any]:
    """A restart of the agent only delays it."""
    try:
        found = client.get(path, {"after": after})
    except AgentUnreachable:
        return {"next": after}
    if found["cut"]:
        print("wa-agent: the log was shortened; lines may be missing here", file=sys.stderr)
    _print(found, options)
    return found


def _print(found: dict[str, Any], options: argparse.Namespace) -> None:
    for line in found["lines"]:
        text = json.dumps({"line": line}, ensure_ascii=False) if wants_json(options) else line
        print(text if wants_json(options) else clean(text), flush=True)


def _from_journal(client: Client, options: argparse.Namespace) -> int:
    """As the caller: the agent's own user may not read the journal."""
    unit = f"wa-instance@{options.id}.service"
    words = ["journalctl", "--no-pager", "-q", *(["-f"] if options.follow else [])]
    words += ["-n", str(LAST)]
    words += ["-o", "json" if wants_json(options) else "short-iso"]
    # Of its own worker, the manager's about that one, and of a pack's worker about this session.
    words += [f"_SYSTEMD_UNIT={unit}", "+", "_PID=1", f"UNIT={unit}"]
    words += ["+", f"_SYSTEMD_SLICE={INSTANCES_SLICE}", f"WA_INSTANCE={options.id}"]
    if client.url:
        raise Refused(
            f"cannot print lines of {options.id} from here: they are in the journal of the machine"
            f" that it runs on: {' '.join(words)}",
            code="not_supported",
        )
    sys.stdout.flush()
    try:
        return subprocess.run(words, check=False).returncode
    except FileNotFoundError:
        words_of = "journalctl is not there, and its unit writes to the journal"
        raise Refused(f"cannot print lines of {options.id}: {words_of}") from None
