"""`wa-agent messages`: what arrived in a session, the one command that shows texts; `wa-agent
outbox`: what waits to be sent of it."""

import argparse
import json
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from agent.cli.client import AgentSaidNo, Client, check_target, write_checked
from agent.cli.command import Subparsers, add_instance_command, client_of
from agent.cli.terminal import clean, print_answer, print_list, soft
from agent.cli.views import ask_again
from agent.errors import InvalidRequest
from agent.messages.outcomes import State


def add(commands: Subparsers) -> None:
    summary = "print what arrived in a session, from the oldest record that is kept"
    option = add_instance_command(commands, "messages", messages, summary, "-f").add_argument
    option("-f", "--follow", action="store_true", help="keep printing what arrives")
    option("--after", metavar="CURSOR", default="0", help="begin behind this cursor, or: newest")
    option("--media", metavar="ID", help="fetch the file of this record instead")
    option("--chat", metavar="JID", help="then ID is WhatsApp's id of a message of this chat")
    option("--out", metavar="FILE", type=Path, help="where the file goes")
    option("--force", action="store_true", help="replace a FILE that is there")
    summary = "list messages that wait to be sent and what became of the others, or cancel one"
    option = add_instance_command(commands, "outbox", outbox, summary).add_argument
    option("--state", choices=tuple(State), help="only messages in this state")
    option("--limit", metavar="N", type=int, default=50, help="messages at most, newest first")
    option("--cancel", metavar="MESSAGE", help="cancel the message of this id, if it is not sent")


def messages(options: argparse.Namespace) -> int:
    if options.media is not None:
        return _fetch(options)
    client, after, more = client_of(options), options.after, True
    path = f"/api/instance/{options.id}/messages"
    while more or options.follow:
        query = {"after": after, "limit": 200}
        page = client.get(path, query) if more else ask_again(client, path, query | {"wait": 30})
        for record in page["records"]:
            _print(record, options)
        after, more = page["next"], more and page["more"]
    return 0


def _print(record: Mapping[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(record, ensure_ascii=False), flush=True)
        return
    at = record.get("at") or record.get("kept")
    when = datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S") if at else "-"
    chat, sender = record.get("chat", ""), str(record.get("sender", ""))
    if record.get("from_me"):
        sender = "me"
    elif name := record.get("name", ""):
        sender = f"{name} <{sender}>"
    where = f"{sender} in {chat}" if sender and sender != chat else chat or "-"
    print(
        f"{soft(when)} {record.get('cursor', '-')} [{clean(where)}]"
        f" {clean(record['kind'])}{clean(_what(record))}",
        flush=True,
    )


def _what(record: Mapping[str, Any]) -> str:
    """The text and state of a record, in one line."""
    if record["kind"] == "message_gap":
        return f": {record.get('missing', 'an unknown number of')} records at most are gone"
    type_ = record.get("type", "text")
    words = ["" if type_ == "text" else f"({type_})", record.get("state"), record.get("emoji")]
    said = " ".join(filter(None, [*words, record.get("text")])).replace("\n", " / ")
    return f": {said}" if said else ""


def _fetch(options: argparse.Namespace) -> int:
    """The file of a message, written whole or not at all."""
    if not (options.media and options.out):
        raise InvalidRequest("cannot fetch the file: give --media ID and --out FILE", field="out")
    check_target(options.out, force=options.force)
    query = {"wait": 60, **({"chat": options.chat} if options.chat else {})}
    path = f"/api/instance/{options.id}/messages/{quote(options.media, safe='')}/media"
    client, until = client_of(options), time.monotonic() + 900.0
    while True:
        try:
            with client.exchange(
                "GET", f"{path}?{urlencode(query)}", None, {"Accept": "*/*"}, 150.0
            ) as response:
                announced = response.headers.get("X-Media-SHA256")
                size, digest = write_checked(response, options.out, announced)
                mimetype = response.headers.get("Content-Type", "")
                break
        except AgentSaidNo as error:
            if error.code != "media_loading" or time.monotonic() > until:
                raise
    shown = {"file": str(options.out), "bytes": size, "sha256": digest, "mimetype": mimetype}
    return print_answer(options, shown, f"{options.out}: {size} bytes, {mimetype}, sha256 {digest}")


def outbox(options: argparse.Namespace) -> int:
    path, client = f"/api/instance/{options.id}/outbox", client_of(options)
    if options.cancel is not None:
        return _cancel(options, client, path)
    query = {"limit": options.limit, **({"state": options.state} if options.state else {})}
    page = client.get(path, query)
    waits = page["outbox"]
    if waits and waits["sentence"] and not options.json:
        print(f"{waits['waiting']} wait: {clean(waits['sentence'])}")
    return print_list(
        options,
        page["messages"],
        {
            **{"ID": "id", "ACCEPTED": "accepted", "TO": "to", "TYPE": "type", "STATE": "state"},
            **{"TRIES": "tries", "WHATSAPP'S ID": "message_id", "WHY": "sentence"},
        },
        nothing=f"the outbox of {options.id} is empty",
    )


def _cancel(options: argparse.Namespace, client: Client, path: str) -> int:
    if not options.cancel or (id := quote(options.cancel, safe=":@=")) != options.cancel:
        why = "--cancel names none by its id; without --cancel, this command lists them"
        raise InvalidRequest(f"cannot cancel a message: {why}", field="cancel")
    message = client.request("DELETE", f"{path}/{id}")
    if message["state"] == State.CANCELLED:
        return print_answer(options, message, f"{message['id']} is cancelled")
    why = f"{message['id']}: {clean(message['sentence'])}; look whether it arrived"
    return print_answer(options, message, why, good=False)
