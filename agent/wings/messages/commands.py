"""What arrived in a session, printed: the one command that shows texts."""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from agent.cli.client import AgentSaidNo, Client
from agent.cli.command import Subparsers, add_instance_command, client_of, wants_json
from agent.cli.terminal.show import clean, colour
from agent.errors import AgentUnreachable

_LIMIT = 200
_WAIT = 30
_RETRY_SECONDS = 1.0
_AGAIN = ("not_running", "slow", "stopping")
"""Codes of a session whose worker is expected back."""


def add(commands: Subparsers) -> None:
    summary = "print what arrived in a session, from the oldest record that is kept"
    parser = add_instance_command(commands, "messages", messages, summary, "-f")
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing what arrives")
    parser.add_argument(
        "--after", metavar="CURSOR", default="0", help="begin behind this cursor, or: newest"
    )
    parser.add_argument("--media", metavar="ID", help="fetch the file of this record instead")
    parser.add_argument(
        "--chat", metavar="JID", help="then ID is WhatsApp's id of a message of this chat"
    )
    parser.add_argument("--out", metavar="FILE", help="where the file goes")
    parser.add_argument("--force", action="store_true", help="replace a FILE that is there")


def messages(options: argparse.Namespace) -> int:
    if options.media:
        from agent.wings.messages.fetch import fetch  # hashlib: not for each command

        return fetch(options)
    client, after = client_of(options), options.after
    while True:
        page = _page(client, options, {"after": after, "limit": _LIMIT})
        for record in page["records"]:
            _print(record, options)
        after = page["next"]
        if not page["more"]:
            break
    if options.follow:
        _follow(client, options, after)
    return 0


def _page(client: Client, options: argparse.Namespace, query: Mapping[str, Any]) -> dict[str, Any]:
    return client.get(f"/api/instance/{options.id}/messages", query)


def _follow(client: Client, options: argparse.Namespace, after: int) -> None:
    """Until interrupted; a restart of the agent or of the session's worker only delays it."""
    said = ""
    while True:
        try:
            page = _page(client, options, {"after": after, "limit": _LIMIT, "wait": _WAIT})
        except (AgentUnreachable, AgentSaidNo) as error:
            if isinstance(error, AgentSaidNo) and error.code not in _AGAIN:
                raise
            if said != str(error):
                said = str(error)
                print(f"wa-agent: {clean(said)}; waiting", file=sys.stderr)
            time.sleep(_RETRY_SECONDS)
            continue
        said, after = "", page["next"]
        for record in page["records"]:
            _print(record, options)


def _print(record: Mapping[str, Any], options: argparse.Namespace) -> None:
    if wants_json(options):
        print(json.dumps(record, ensure_ascii=False), flush=True)
        return
    at = record.get("at") or record.get("kept")
    moment = datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S") if at else "-"
    chat, sender = record.get("chat", ""), _sender(record)
    where = f"{sender} in {chat}" if sender and sender != chat else chat or "-"
    print(
        f"{colour(moment, 'soft')} {record.get('cursor', '-')} [{clean(where)}]"
        f" {clean(record['kind'])}{clean(_what(record))}",
        flush=True,
    )


def _sender(record: Mapping[str, Any]) -> str:
    if record.get("from_me"):
        return "me"
    name, sender = record.get("name", ""), str(record.get("sender", ""))
    return f"{name} <{sender}>" if name else sender


def _what(record: Mapping[str, Any]) -> str:
    """What it says, in one line."""
    if record["kind"] == "message_gap":
        if "missing" not in record:
            return ": what was kept before is gone"
        return f": {record['missing']} records at most are gone"
    type_ = record.get("type", "text")
    words = [
        "" if type_ == "text" else f"({type_})",
        str(record.get("state", "")),
        str(record.get("emoji", "")),
        str(record.get("text", "")).replace("\n", " / "),
    ]
    said = " ".join(word for word in words if word)
    return f": {said}" if said else ""
