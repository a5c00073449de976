"""Tell a chat that its messages were read, or that the account types."""

import argparse
from typing import Any

from agent.cli.command import Subparsers, add_instance_command, client_of
from agent.cli.terminal.answer import print_answer
from agent.engines.base import PRESENCES


def add(commands: Subparsers) -> None:
    summary = "mark messages of a chat as read"
    parser = add_instance_command(commands, "read", read, summary, "4915112345678")
    parser.add_argument("chat", metavar="CHAT", help="a number or a chat's id")
    parser.add_argument(
        "message",
        metavar="MESSAGE",
        nargs="*",
        help="WhatsApp's id of a message; default: all that arrived since it was marked last",
    )
    parser.add_argument("--by", metavar="WHO", help="who wrote them, in a group")
    summary = "show that the account types or records in a chat, or is there"
    parser = add_instance_command(commands, "presence", presence, summary, "typing 4915112345678")
    parser.add_argument("state", metavar="STATE", choices=PRESENCES, help=", ".join(PRESENCES))
    parser.add_argument("chat", metavar="CHAT", nargs="?", help="a number or a chat's id")
    parser.add_argument(
        "--seconds", metavar="N", type=int, help="so long, then paused; default: as phones do"
    )


def read(options: argparse.Namespace) -> int:
    body: dict[str, Any] = {"chat": options.chat}
    if options.message:
        body["message_ids"] = options.message
    if options.by is not None:
        body["sender"] = options.by
    answer = client_of(options).post(f"/api/instance/{options.id}/read", body)
    return print_answer(options, answer, f"{answer['marked']} messages are marked as read")


def presence(options: argparse.Namespace) -> int:
    given = {"chat": options.chat, "seconds": options.seconds}
    body = {"state": options.state, **{k: v for k, v in given.items() if v is not None}}
    answer = client_of(options).post(f"/api/instance/{options.id}/presence", body)
    return print_answer(options, answer, f"{options.id} shows: {answer['state']}")
