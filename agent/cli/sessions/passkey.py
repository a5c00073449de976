"""`passkey`: notes that an account needs a passkey; asks twice before such a pairing ends."""

import argparse
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from agent.cli.client import AgentSaidNo
from agent.cli.command import Subparsers, add_instance_command, client_of
from agent.cli.terminal.answer import print_answer

FIELD = "confirm_passkey"
T = TypeVar("T")


def add(commands: Subparsers) -> None:
    summary = "note whether an instance's account needs a passkey to link"
    parser = add_instance_command(commands, "passkey", mark, summary, "needed")
    parser.add_argument(
        "word",
        choices=("needed", "not-needed"),
        help="needed: no automatic step ends its pairing, and logout, cleanup, delete ask twice",
    )


def mark(options: argparse.Namespace) -> int:
    needed = options.word == "needed"
    path = f"/api/instance/{options.id}/passkey"
    instance = client_of(options).request("PUT", path, body={"needed": needed}).json()
    word = "needs a passkey" if needed else "needs no passkey"
    return print_answer(options, instance, f"{options.id}: its account {word} to link")


def add_confirm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--confirm-passkey",
        metavar="ID",
        help="the id once more, where the account needs a passkey to link again; skips the"
        " question",
    )


def ask_twice(options: argparse.Namespace, send: Callable[[dict[str, Any]], T]) -> T:
    """`send` takes the fields to add to the request's body."""
    confirmed = options.confirm_passkey
    try:
        return send({FIELD: confirmed} if confirmed else {})
    except AgentSaidNo as error:
        if error.code != FIELD or confirmed or not sys.stdin.isatty():
            raise
    print(f"The account of {options.id} needs a passkey to link again: only its owner can do that,")
    print("at a desk (wa-agent pair). Its pairing can be lost for good.")
    try:
        return send({FIELD: input(f"To go on, type: {options.id}\n> ").strip()})
    except EOFError:
        return send({})
