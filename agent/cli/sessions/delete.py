"""`wa-agent delete`, here and with `--remote` on the backend."""

import argparse
import sys

from agent.cli.client import Client
from agent.cli.command import Subparsers, add_instance_command, client_of, wants_json
from agent.cli.sessions.passkey import add_confirm, ask_twice
from agent.cli.sessions.repair_round import LONGEST_WAIT
from agent.cli.terminal.answer import print_answer
from agent.cli.terminal.progress import with_progress
from agent.cli.terminal.show import clean

_REMOTE_SECONDS = 240.0
"""The agent gives a server 150 to delete a session."""


def add(commands: Subparsers) -> None:
    summary = "retire an instance's session and remove the instance; a backend keeps its session"
    parser = add_instance_command(commands, "delete", delete, summary)
    parser.add_argument(
        "--remote", action="store_true", help="also delete its session on the backend, for good"
    )
    parser.add_argument(
        "--confirm", metavar="WORDS", help="for --remote: 'delete REMOTE', skips the question"
    )
    add_confirm(parser)


def delete(options: argparse.Namespace) -> int:
    client, path = client_of(options), f"/api/instance/{options.id}"
    wait = {"wait": LONGEST_WAIT}
    if not options.remote:
        answer = ask_twice(
            options, lambda more: client.request("DELETE", path, query=wait, body=more or None)
        ).json()
    else:
        words = {"confirm": _confirmed(client, options)}
        query, seconds = {"remote": "true", **wait}, _REMOTE_SECONDS
        answer = ask_twice(
            options,
            lambda more: with_progress(
                f"deleting {options.id} and its session on the backend",
                lambda: client.request(
                    "DELETE", path, query=query, body=words | more, seconds=seconds
                ),
                quiet=wants_json(options),
            ),
        ).json()
    lines = [f"{options.id} deleted"]
    if "remote" in answer:
        state = "deleted too" if answer["remote_deleted"] else "untouched"
        if answer["remote_renewing"] and not answer["remote_deleted"]:
            state = "not as it was: a clean-up was under way, which deletes it and makes it again"
        lines.append(f"{answer['remote']} on {answer['backend']} is {state}")
    if answer.get("keys_ended"):
        lines.append(f"keys that open it no more: {', '.join(map(clean, answer['keys_ended']))}")
    if dropped := answer.get("messages_dropped"):
        noun = "message that waits" if dropped == 1 else "messages that wait"
        lines.append(f"{dropped} {noun} to be sent went with it, for good")
    if answer["trash"]:
        lines.append(f"its session can come back: wa-agent trash restore {answer['trash']}")
    return print_answer(options, answer, *lines)


def _confirmed(client: Client, options: argparse.Namespace) -> str:
    """The words that confirm the end of a pairing: an option, or typed at the terminal."""
    if options.confirm is not None:
        return str(options.confirm)
    instance = client.get(f"/api/instance/{options.id}")
    words = f"delete {instance['remote']}"
    if not instance["backend"] or not sys.stdin.isatty():
        return ""  # the agent refuses, and its error tells the words
    print(f"{clean(instance['remote'])} on {instance['backend']} will be deleted for good.")
    try:
        return input(f"To go on, type: {clean(words)}\n> ").strip()
    except EOFError:
        return ""
