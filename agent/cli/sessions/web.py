"""A code for the phone instead of a scan; and of a browser, a picture of its page."""

import argparse
from pathlib import Path

from agent.cli.command import Subparsers, add_instance_command, client_of
from agent.cli.copies.transfer import check_target, whole_file
from agent.cli.sessions.repair_round import TO_THE_END
from agent.cli.terminal.answer import print_answer

_SECONDS = 60.0


def add(commands: Subparsers) -> None:
    summary = "get a code to type on the phone instead of a scan"
    parser = add_instance_command(commands, "pairing-code", pairing_code, summary, "+4915112345678")
    parser.add_argument("phone", metavar="PHONE", help="the account's number, with country code")
    summary = "take a picture of an instance's page, with its codes hidden"
    parser = add_instance_command(commands, "screenshot", screenshot, summary, "sales.png")
    parser.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="the picture to write: PNG, or JPEG if a PNG is too large",
    )
    parser.add_argument("--force", action="store_true", help="replace the file")


def pairing_code(options: argparse.Namespace) -> int:
    client, path = client_of(options), f"/api/instance/{options.id}/pairing-code{TO_THE_END}"
    code = client.post(path, {"phone": options.phone}, _SECONDS)
    how = "on the phone: linked devices, link with phone number"
    if code["expires_in"] is not None:  # not every engine knows
        how += f"; valid for {code['expires_in'] / 60:.0f} min"
    return print_answer(options, code, code["code"], how)


def screenshot(options: argparse.Namespace) -> int:
    check_target(options.file, force=options.force)
    path = f"/api/instance/{options.id}/screenshot{TO_THE_END}"
    answer = client_of(options).request("GET", path, seconds=_SECONDS)
    with whole_file(options.file) as file:
        file.write(answer.body)
    written = {"file": str(options.file), "bytes": len(answer.body)}
    return print_answer(options, written, f"{options.file} written; it may show messages")
