"""Draws the code to scan in the terminal, and follows it until the session is connected."""

import argparse
import sys
import time

from agent.cli.client import AgentSaidNo, Client
from agent.cli.command import Subparsers, add_instance_command, client_of, wants_json
from agent.cli.terminal.show import print_json
from agent.errors import TryLater

_POLL = 0.5


def add(commands: Subparsers) -> None:
    parser = add_instance_command(commands, "qr", show_qr, "show the code to scan", "--watch")
    parser.add_argument("--watch", action="store_true", help="follow the code until connected")
    parser.add_argument(
        "--for", type=float, default=300, metavar="SECONDS", help="seconds to watch, default 300"
    )


def show_qr(options: argparse.Namespace) -> int:
    client = client_of(options)
    if options.watch:
        return _watch(client, options.id, time.monotonic() + vars(options)["for"])
    if wants_json(options):
        print_json(client.get(f"/api/instance/{options.id}/qr"))
    else:
        print(draw_code(client, options.id), end="")
    return 0


def draw_code(client: Client, id: str) -> str:
    """In this terminal's colours."""
    return _paint(_drawing(client, id)[0])


def _drawing(client: Client, id: str) -> tuple[str, str]:
    """The drawn code and its number."""
    answer = client.request("GET", f"/api/instance/{id}/qr", headers={"Accept": "text/plain"})
    return answer.body.decode("utf-8", "replace"), answer.headers.get("X-Qr-Number", "")


def _paint(drawing: str) -> str:
    """White on black in every terminal: a scanner needs the contrast."""
    if not sys.stdout.isatty():
        return drawing
    return "".join(f"\x1b[97;40m{line}\x1b[0m\n" for line in drawing.splitlines())


def _watch(client: Client, id: str, deadline: float) -> int:
    drawn = ("", "")
    while time.monotonic() < deadline:
        if client.get(f"/api/instance/{id}")["connection_status"] == "CONNECTED":
            print(f"{id} is connected")
            return 0
        try:
            drawing = _drawing(client, id)
        except AgentSaidNo as error:
            # Between two codes, and in the moment of the scan, there is none: ask again.
            if error.code not in ("no_qr", "connected", "link", "try_later"):
                raise
        else:
            if drawing != drawn:
                clear = "\x1b[2J\x1b[H" if sys.stdout.isatty() and drawn[0] else ""
                print(f"{clear}{_paint(drawing[0])}scan with WhatsApp: {id}, code {drawing[1]}")
                sys.stdout.flush()
                drawn = drawing
        time.sleep(_POLL)
    raise TryLater(f"cannot watch longer: no phone scanned the code of {id}")
