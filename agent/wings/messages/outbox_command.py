"""`wa-agent outbox`: what waits to be sent, what became of it, and how it is taken back."""

import argparse
import re
from typing import Any

from agent.cli.command import Subparsers, add_instance_command, client_of
from agent.cli.terminal.answer import print_answer, print_list
from agent.cli.terminal.show import clean, moment
from agent.errors import InvalidRequest
from agent.messages.outcomes import State

_ID = re.compile(r"[A-Za-z0-9._:@=-]{1,200}")


def add(commands: Subparsers) -> None:
    summary = "list messages that wait to be sent and what became of the others, or cancel one"
    parser = add_instance_command(commands, "outbox", outbox, summary)
    parser.add_argument("--state", choices=tuple(State), help="only messages in this state")
    parser.add_argument(
        "--limit", metavar="N", type=int, default=50, help="messages at most, newest first"
    )
    parser.add_argument(
        "--cancel", metavar="MESSAGE", help="cancel the message of this id, if it is not sent yet"
    )


def outbox(options: argparse.Namespace) -> int:
    path = f"/api/instance/{options.id}/outbox"
    client = client_of(options)
    if options.cancel is not None:
        return _cancel(options, f"{path}/{options.cancel}")
    query = {"limit": options.limit, **({"state": options.state} if options.state else {})}
    page = client.get(path, query)
    waits = page["outbox"]
    if waits and waits["sentence"] and not getattr(options, "json", False):
        print(f"{waits['waiting']} wait: {clean(waits['sentence'])}")
    return print_list(
        options,
        page["messages"],
        ("ID", "ACCEPTED", "TO", "TYPE", "STATE", "TRIES", "WHATSAPP'S ID", "WHY"),
        _row,
        nothing=f"the outbox of {options.id} is empty",
    )


def _cancel(options: argparse.Namespace, path: str) -> int:
    if not _ID.fullmatch(options.cancel):
        raise InvalidRequest(
            "cannot cancel a message: --cancel names none by its id; without --cancel, this command"
            " lists them",
            field="cancel",
        )
    message = client_of(options).request("DELETE", path).json()
    if message["state"] == State.CANCELLED:
        return print_answer(options, message, f"{message['id']} is cancelled")
    why = f"{message['id']}: {clean(message['sentence'])}; look whether it arrived"
    return print_answer(options, message, why, good=False)


def _row(message: dict[str, Any]) -> tuple[Any, ...]:
    return (
        message["id"],
        moment(message["accepted"]),
        message["to"],
        message["type"],
        message["state"],
        message["tries"],
        message["message_id"] or "-",
        message["sentence"] or "-",
    )
