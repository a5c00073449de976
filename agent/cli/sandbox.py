"""What only an instance with the sandbox engine can do: be scanned, and fail on command."""

import argparse
from typing import Any

from agent.cli.command import Subparsers, add_command, add_id, client_of, wants_json
from agent.cli.show import print_json


def add(commands: Subparsers) -> None:
    among = commands.add_parser("sandbox", help="drills with the sandbox engine").add_subparsers(
        metavar="COMMAND", required=True
    )
    parser = add_command(
        among, "scan", scan, "let the phone scan the code", "wa-agent sandbox scan sales"
    )
    add_id(parser)
    parser = add_command(
        among,
        "fault",
        fault,
        "let something go wrong: crash, hang, zombie, slow, drop, leak, bad-mac, prekey, logout,"
        " ban, temp-ban, conflict, outdated, no-qr, stuck-loading, corrupt-files",
        "wa-agent sandbox fault sales zombie --for 30",
    )
    add_id(parser)
    parser.add_argument("fault", metavar="FAULT", help="what shall go wrong")
    parser.add_argument("--for", type=float, metavar="SECONDS", help="how long")
    parser.add_argument("--peer", action="append", metavar="NAME", help="whose messages fail")
    parser = add_command(among, "clear", clear, "end every fault", "wa-agent sandbox clear sales")
    add_id(parser)


def scan(options: argparse.Namespace) -> int:
    return _ask(options, "scan", {}, "scanned")


def fault(options: argparse.Namespace) -> int:
    seconds = vars(options)["for"]
    body = {"fault": options.fault, **({} if seconds is None else {"for": seconds})}
    if options.peer:
        body["peers"] = options.peer
    return _ask(options, "fault", body, f"fails: {options.fault}")


def clear(options: argparse.Namespace) -> int:
    return _ask(options, "fault", {"clear": True}, "has no faults any more")


def _ask(options: argparse.Namespace, what: str, body: dict[str, Any], done: str) -> int:
    found = client_of(options).post(f"/api/instance/{options.id}/sandbox/{what}", body)
    if wants_json(options):
        print_json(found)
    else:
        print(f"{options.id} {done}")
    return 0
