"""A code for the phone instead of a scan; and of a browser, a picture of its page."""

import argparse
from pathlib import Path

from agent.cli.command import Subparsers, add_command, add_id, client_of, wants_json
from agent.cli.copies.transfer import check_target, whole_file
from agent.cli.terminal.show import print_json

_SECONDS = 60.0


def add(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "pairing-code",
        pairing_code,
        "get a code to type on the phone instead of a scan",
        "wa-agent pairing-code sales +4915112345678",
    )
    add_id(parser)
    parser.add_argument("phone", metavar="PHONE", help="the account's number, with country code")
    parser = add_command(
        commands,
        "screenshot",
        screenshot,
        "take a picture of an instance's page, with its codes hidden",
        "wa-agent screenshot sales sales.png",
    )
    add_id(parser)
    parser.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="the picture to write: PNG, or JPEG if a PNG is too large",
    )
    parser.add_argument("--force", action="store_true", help="replace the file")


def pairing_code(options: argparse.Namespace) -> int:
    client = client_of(options)
    path = f"/api/instance/{options.id}/pairing-code"
    found = client.request("POST", path, body={"phone": options.phone}, seconds=_SECONDS).json()
    if wants_json(options):
        print_json(found)
    else:
        print(found["code"])
        minutes = found["expires_in"] / 60
        print(f"on the phone: linked devices, link with phone number; good for {minutes:.0f} min")
    return 0


def screenshot(options: argparse.Namespace) -> int:
    check_target(options.file, force=options.force)
    path = f"/api/instance/{options.id}/screenshot"
    answer = client_of(options).request("GET", path, seconds=_SECONDS)
    with whole_file(options.file) as file:
        file.write(answer.body)
    if wants_json(options):
        print_json({"file": str(options.file), "bytes": len(answer.body)})
    else:
        print(f"{options.file} written; it may show messages")
    return 0
