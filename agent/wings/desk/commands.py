"""`invite`, and `create --invite`: the line with which a person pairs an instance at a desk."""

import argparse

from agent.cli.client import Client
from agent.cli.command import Subparsers, add_instance_command, client_of, wants_json
from agent.cli.sessions.create import wanted
from agent.cli.terminal.answer import print_answer
from agent.cli.terminal.show import clean, moment
from agent.errors import InvalidRequest
from agent.wings.desk.pair import say


def add(commands: Subparsers) -> None:
    summary = "print the line with which a person pairs an instance at a desk"
    parser = add_instance_command(commands, "invite", invite, summary)
    parser.add_argument("--revoke", action="store_true", help="void the line instead")


def add_options(create: argparse.ArgumentParser) -> None:
    create.add_argument(
        "--invite",
        action="store_true",
        help="engine web: create it, disabled, and print the line with which a person pairs it at"
        " a desk",
    )


def create(options: argparse.Namespace) -> int | None:
    """None: no desk is invited."""
    if not options.invite:
        return None
    if options.engine != "web":
        raise InvalidRequest("cannot invite a desk: a desk pairs engine web", field="invite")
    client = client_of(options)
    # Until a desk has paired it, its browser would show a code that is not wanted.
    client.post("/api/instance", {**wanted(options), "enabled": False})
    return _print_invitation(options, client)


def invite(options: argparse.Namespace) -> int:
    client = client_of(options)
    if options.revoke:
        answer = client.request("DELETE", f"/api/instance/{options.id}/invite").json()
        done = "revoked" if answer["revoked"] else "there was none"
        return print_answer(options, answer, f"{options.id}: {done}")
    return _print_invitation(options, client)


def _print_invitation(options: argparse.Namespace, client: Client) -> int:
    """The line alone on stdout; what to do with it beside."""
    made = client.post(f"/api/instance/{options.id}/invite")
    if not wants_json(options):
        way = "" if made["url"] else " --out FILE, then here: wa-agent import FILE"
        say(
            f"for one pairing of {options.id}, until {moment(made['expires'])}; at the desk:"
            f" pipx run wa-agent pair --to LINE{way}"
        )
        say(f"fingerprint {made['fingerprint']}")
    return print_answer(options, made, clean(made["line"]))
