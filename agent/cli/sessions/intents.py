"""`wa-agent enable`, `disable`, `start`, `stop`, `restart` and `logout`."""

import argparse

from agent.cli.command import Subparsers, add_instance_command, client_of
from agent.cli.sessions.passkey import add_confirm, ask_twice
from agent.cli.sessions.repair_round import TO_THE_END
from agent.cli.sessions.waiting import add_wait, wait_and_print

_INTENTS = (
    ("enable", "run an instance, now and after every boot", "enabled"),
    ("disable", "stop an instance, now and after every boot", "disabled"),
    ("start", "run an instance until the next boot", "will be started"),
    ("stop", "stop an instance until the next start or boot", "will be stopped"),
    ("restart", "restart an instance's worker", "will be restarted"),
    ("logout", "end an instance's pairing; a person must scan again", "is being logged out"),
)


def add(commands: Subparsers) -> None:
    for name, summary, done in _INTENTS:
        parser = add_instance_command(commands, name, intend, summary)
        parser.set_defaults(verb=name, done=done)
        if name in ("enable", "start", "restart"):
            add_wait(parser)
        if name == "logout":
            parser.add_argument("--yes", action="store_true", help="confirm that the pairing ends")
            add_confirm(parser)


def intend(options: argparse.Namespace) -> int:
    client, path = client_of(options), f"/api/instance/{options.id}/{options.verb}"
    if options.verb == "logout":
        confirm = {"confirm": options.yes}
        instance = ask_twice(options, lambda more: client.post(path + TO_THE_END, confirm | more))
    else:
        instance = client.post(path)
    return wait_and_print(client, options, instance, options.done)
