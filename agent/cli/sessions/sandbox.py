"""The sandbox engine: let its phone scan, cause faults."""

import argparse
from typing import Any

from agent.cli.command import Subparsers, add_group, add_instance_command, client_of
from agent.cli.terminal.answer import print_answer

FAULTS_SHOWN = """\
  crash    hang      zombie    slow          drop       leak
  bad-mac  prekey    logout    ban           temp-ban   conflict
  outdated no-qr     passkey   no-pairing    stuck-loading
  corrupt-files"""
"""Laid out by hand: argparse would break a name at its hyphen."""


def add(commands: Subparsers) -> None:
    summary, example = "drills with the sandbox engine", "fault sales zombie --for 30"
    among = add_group(commands, "sandbox", summary, example)
    add_instance_command(among, "scan", scan, "let the phone scan the code")
    parser = add_instance_command(among, "fault", fault, "cause a fault", "zombie --for 30")
    parser.description = f"Cause a fault, one of:\n\n{FAULTS_SHOWN}"
    parser.add_argument("fault", metavar="FAULT", help="name of the fault")
    parser.add_argument("--for", type=float, metavar="SECONDS", help="duration of the fault")
    parser.add_argument(
        "--peer", action="append", metavar="NAME", help="contact whose messages fail"
    )
    add_instance_command(among, "clear", clear, "end every fault")


def scan(options: argparse.Namespace) -> int:
    return _ask(options, "scan", {}, "scanned")


def fault(options: argparse.Namespace) -> int:
    seconds = vars(options)["for"]
    body = {"fault": options.fault, **({} if seconds is None else {"for": seconds})}
    if options.peer:
        body["peers"] = options.peer
    return _ask(options, "fault", body, f"fails: {options.fault}")


def clear(options: argparse.Namespace) -> int:
    return _ask(options, "fault", {"clear": True}, "has no more faults")


def _ask(options: argparse.Namespace, what: str, body: dict[str, Any], done: str) -> int:
    answer = client_of(options).post(f"/api/instance/{options.id}/sandbox/{what}", body)
    return print_answer(options, answer, f"{options.id} {done}")
