"""`wa-agent fleet`: its commands and their arguments."""

import argparse

from agent.cli.command import (
    Run,
    Subparsers,
    add_command,
    add_group,
    add_instance_command,
)
from agent.cli.fleet import database, join, key, machines, sessions, status
from agent.cli.fleet.waiting import add_wait_option


def add(commands: Subparsers) -> None:
    among = add_group(commands, "fleet", "many machines, one owner for each session", "status")
    add_command(among, "status", status.status, "show the machines, and what waits or moves")

    summary = "move all sessions of a machine to others, and give it no new ones"
    add_wait_option(_of_machine(among, "drain", machines.drain, summary))
    _of_machine(among, "undrain", machines.undrain, "let a drained machine take sessions again")
    summary = "say that a lost machine is dead, so that others may take its sessions"
    parser = _of_machine(among, "forget", machines.forget, summary)
    parser.add_argument("--confirm", metavar="NAME", help="the name again; skips the question")
    summary = "accept that the fleet's database lost records; owners may change again"
    _with_yes(add_command(among, "accept", machines.accept, summary))

    summary = "move a session to another machine"
    parser = add_instance_command(among, "move", sessions.move, summary, "--to b")
    parser.add_argument("--to", metavar="NAME", help="the machine; default: the one with most room")
    add_wait_option(parser)
    summary = "let a session run here after its fleet is gone for good"
    parser = add_instance_command(among, "release", sessions.release, summary)
    parser.add_argument("--confirm", metavar="ID", help="the id again; skips the question")
    summary = "let a session of a lost machine start elsewhere from an older stored copy"
    parser = add_instance_command(among, "accept-copy", sessions.accept_copy, summary)
    parser.add_argument("--confirm", metavar="ID", help="the id again; skips the question")
    summary = "show which machine runs a session, why, and how old its copy is"
    add_instance_command(among, "why", sessions.why, summary)
    summary = "show how a command ended that was stored while the owner was away"
    parser = add_command(
        among, "command", sessions.command, summary, "0b6f3a52-5f1c-4c02-9a1e-7d2f60c3b8aa"
    )
    parser.add_argument("command_id", metavar="COMMAND", help="its id, as it was printed")
    add_wait_option(parser)

    join.add(among)
    key.add(among)
    database.add(among)


def _of_machine(among: Subparsers, name: str, run: Run, summary: str) -> argparse.ArgumentParser:
    parser = add_command(among, name, run, summary, "b")
    parser.add_argument("name", metavar="NAME", help="the machine")
    return parser


def _with_yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="accept it; skips the question")
