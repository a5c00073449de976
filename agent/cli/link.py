"""Commands that link an instance: `qr` draws the code to scan and follows it until the session is
connected, `pairing-code` shows one to type; `screenshot` is of a browser's page."""

import argparse
import sys
import time
from pathlib import Path

from agent.cli.client import AgentSaidNo, Client, check_target, whole_file
from agent.cli.command import Subparsers, Words, add_instance_command, client_of
from agent.cli.switch import TO_THE_END
from agent.cli.terminal import print_answer
from agent.errors import TryLater

_POLL = 0.5
_SECONDS = 60.0


def add(commands: Subparsers) -> None:
    words: Words = {
        "--watch": "follow the code until connected",
        "--for SECONDS": ("seconds to watch, default 300", {"type": float, "default": 300}),
    }
    add_instance_command(commands, "qr", show_qr, example="--watch", words=words)
    words, example = {"PHONE": "the account's number, with country code"}, "+4915112345678"
    add_instance_command(commands, "pairing-code", pairing_code, example=example, words=words)
    words = {
        "FILE": ("the picture to write: PNG, or JPEG if a PNG is too large", {"type": Path}),
        "--force": "replace the file",
    }
    add_instance_command(commands, "screenshot", screenshot, example="sales.png", words=words)


def pairing_code(options: argparse.Namespace) -> int:
    """Get a code to type on the phone instead of a scan."""
    client, path = client_of(options), f"/api/instance/{options.id}/pairing-code{TO_THE_END}"
    code = client.post(path, {"phone": options.phone}, _SECONDS)
    how = "on the phone: linked devices, link with phone number"
    if code["expires_in"] is not None:  # not every engine knows
        how += f"; valid for {code['expires_in'] / 60:.0f} min"
    return print_answer(options, code, code["code"], how)


def screenshot(options: argparse.Namespace) -> int:
    """Take a picture of an instance's page, with its codes hidden."""
    check_target(options.file, force=options.force)
    path = f"/api/instance/{options.id}/screenshot{TO_THE_END}"
    with client_of(options).exchange("GET", path, None, {}, _SECONDS) as response:
        picture = response.read()
    with whole_file(options.file) as file:
        file.write(picture)
    written = {"file": str(options.file), "bytes": len(picture)}
    return print_answer(options, written, f"{options.file} written; it may show messages")


def show_qr(options: argparse.Namespace) -> int:
    """Show the code to scan."""
    client = client_of(options)
    if options.watch:
        return _watch(client, options.id, time.monotonic() + vars(options)["for"])
    if options.json:
        return print_answer(options, client.get(f"/api/instance/{options.id}/qr"))
    print(draw_code(client, options.id)[0], end="")
    return 0


def draw_code(client: Client, id: str) -> tuple[str, str]:
    """The code in this terminal's colours, and its number."""
    path, accept = f"/api/instance/{id}/qr", {"Accept": "text/plain"}
    with client.exchange("GET", path, None, accept, _SECONDS) as response:
        drawing = response.read().decode("utf-8", "replace")
        number = response.headers.get("X-Qr-Number", "")
    if sys.stdout.isatty():  # white on black in every terminal: a scanner needs the contrast
        drawing = "".join(f"\x1b[97;40m{line}\x1b[0m\n" for line in drawing.splitlines())
    return drawing, number


def _watch(client: Client, id: str, deadline: float) -> int:
    drawn = ("", "")
    while time.monotonic() < deadline:
        if client.get(f"/api/instance/{id}")["connection_status"] == "CONNECTED":
            print(f"{id} is connected")
            return 0
        try:
            drawing = draw_code(client, id)
        except AgentSaidNo as error:
            # Between two codes, and in the moment of the scan, there is none: ask again.
            if error.code not in ("no_qr", "connected", "link", "try_later"):
                raise
        else:
            if drawing != drawn:
                clear = "\x1b[2J\x1b[H" if sys.stdout.isatty() and drawn[0] else ""
                print(f"{clear}{drawing[0]}scan with WhatsApp: {id}, code {drawing[1]}")
                sys.stdout.flush()
                drawn = drawing
        time.sleep(_POLL)
    raise TryLater(f"cannot watch longer: no phone scanned the code of {id}")
