"""`events`: the history of instances and agent. `logs`: what a session's worker prints, and its
program. With -f also what comes."""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from urllib.parse import urlencode

from agent.cli.client import AgentSaidNo, Client
from agent.cli.command import (
    Subparsers,
    Words,
    add_command,
    add_instance_command,
    client_of,
    instance_id,
    wants_json,
)
from agent.cli.terminal import clean, moment, soft
from agent.errors import AgentUnreachable, Refused
from agent.files import short_path
from agent.host.units import INSTANCES_SLICE

LAST = 60
"""Lines of the journal."""
_EVERY = 1.0
_SILENCE = 60.0


def add(commands: Subparsers) -> None:
    summary = "show the history of instances and agent"
    words: Words = {
        "[ID]": ("only this instance", {"type": instance_id}),
        "-f/--follow": "keep printing new events",
        "-n/--limit N": ("number of events, default 50", {"type": int, "default": 50}),
        "--kind KIND": ("only this kind", {"action": "append", "default": []}),
    }
    add_command(commands, "events", events, summary, "sales -f", words=words)
    summary = "print the last lines of a session's worker, and of the program that it runs"
    words = {"-f/--follow": "keep printing new lines"}
    add_instance_command(commands, "logs", logs, summary, "-f", words=words)


def events(options: argparse.Namespace) -> int:
    client = client_of(options)
    path = f"/api/instance/{options.id}/events" if options.id else "/api/events"
    query = {"limit": options.limit, **({"kind": options.kind} if options.kind else {})}
    newest_first = client.get(path, query)["events"]
    for event in reversed(newest_first):
        _print_event(event, options)
    if options.follow:
        _follow(client, options, int(newest_first[0]["cursor"]) if newest_first else 0)
    return 0


def _print_event(event: dict[str, Any], options: argparse.Namespace) -> None:
    if wants_json(options):
        print(json.dumps(event, ensure_ascii=False), flush=True)
        return
    where = event["instance"] or "-"
    print(
        f"{soft(moment(event['time']))} [{clean(event['category'])}] [{clean(where)}]"
        f" {clean(event['kind'])}: {clean(event['sentence'])}",
        flush=True,
    )


def _follow(client: Client, options: argparse.Namespace, cursor: int) -> None:
    """Until interrupted. After a restart of the agent it goes on at the same cursor."""
    waiting = False

    def take(message: dict[str, Any]) -> None:
        nonlocal cursor, waiting
        cursor, waiting = message.get("cursor") or cursor, False
        if message.get("type") == "event":
            _print_event(message, options)

    while True:
        query = {"instance": options.id, "kind": options.kind}
        given = {"after": cursor, **{name: value for name, value in query.items() if value}}
        try:
            path = "/api/events?" + urlencode(given, doseq=True)
            ended = asyncio.run(listen(client, path, take))
        except AgentUnreachable as error:
            ended = str(error)
        if not waiting:
            print(f"wa-agent: {clean(ended)}; waiting for the agent", file=sys.stderr)
        waiting = True
        time.sleep(_EVERY)


async def listen(client: Client, path: str, take: Callable[[dict[str, Any]], None]) -> str:
    """Each JSON message of a WebSocket; returns why the agent closed it."""
    import aiohttp  # every other command starts without it

    url, headers = f"http://{client.host()}{path}", client.authorization()
    silence = aiohttp.ClientWSTimeout(ws_receive=_SILENCE)
    try:
        with nullcontext() if client.url else short_path(client.socket_path()) as place:
            connector = aiohttp.UnixConnector(place) if place else None
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.ws_connect(url, headers=headers, timeout=silence) as live,
            ):
                while (message := await live.receive()).type is aiohttp.WSMsgType.TEXT:
                    take(json.loads(message.data))
    except aiohttp.WSServerHandshakeError as error:
        raise AgentSaidNo(error.status, b"") from error
    except (OSError, aiohttp.ClientError) as error:
        raise AgentUnreachable(f"cannot listen to the agent any more: {error}") from error
    return str(message.extra or "the agent closed the connection")


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
    _print_lines(found, options)
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
    _print_lines(found, options)
    return found


def _print_lines(found: dict[str, Any], options: argparse.Namespace) -> None:
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
