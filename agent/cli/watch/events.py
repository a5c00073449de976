"""The history of events; with -f also the new ones."""

import argparse
import json
import sys
import time
from typing import Any
from urllib.parse import urlencode

from agent.cli.client import Client
from agent.cli.command import Subparsers, add_command, client_of, instance_id, wants_json
from agent.cli.terminal.show import clean, colour, moment
from agent.cli.watch.websocket import Closed, listen
from agent.errors import AgentUnreachable

_RETRY_SECONDS = 1.0


def add(commands: Subparsers) -> None:
    summary = "show the history of instances and agent"
    parser = add_command(commands, "events", events, summary, "sales -f")
    parser.add_argument("id", metavar="ID", nargs="?", type=instance_id, help="only this instance")
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing new events")
    parser.add_argument("-n", "--limit", type=int, default=50, help="number of events, default 50")
    parser.add_argument("--kind", action="append", default=[], help="only this kind")


def events(options: argparse.Namespace) -> int:
    client = client_of(options)
    path = f"/api/instance/{options.id}/events" if options.id else "/api/events"
    query = {"limit": options.limit, **({"kind": options.kind} if options.kind else {})}
    newest_first = client.get(path, query)["events"]
    for event in reversed(newest_first):
        _print(event, options)
    if options.follow:
        _follow(client, options, int(newest_first[0]["cursor"]) if newest_first else 0)
    return 0


def _print(event: dict[str, Any], options: argparse.Namespace) -> None:
    if wants_json(options):
        print(json.dumps(event, ensure_ascii=False), flush=True)
        return
    where = event["instance"] or "-"
    print(
        f"{colour(moment(event['time']), 'soft')} [{clean(event['category'])}] [{clean(where)}]"
        f" {clean(event['kind'])}: {clean(event['sentence'])}",
        flush=True,
    )


def _follow(client: Client, options: argparse.Namespace, cursor: int) -> None:
    """Until interrupted. After a restart of the agent it goes on at the same cursor."""
    silent_since: float | None = None
    while True:
        query: dict[str, Any] = {"after": cursor}
        if options.id:
            query["instance"] = options.id
        if options.kind:
            query["kind"] = options.kind
        try:
            for message in listen(client, "/api/events?" + urlencode(query, doseq=True)):
                silent_since = None
                cursor = message.get("cursor") or cursor
                if message.get("type") == "event":
                    _print(message, options)
        except (AgentUnreachable, Closed) as error:
            if silent_since is None:
                silent_since = time.monotonic()
                print(f"wa-agent: {clean(error)}; waiting for the agent", file=sys.stderr)
        time.sleep(_RETRY_SECONDS)
