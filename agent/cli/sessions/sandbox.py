"""What only an instance with the sandbox engine can do: be scanned, and fail on command."""

import argparse
import sys
from typing import Any

from agent.cli.command import Subparsers, add_command, add_group, add_id, client_of, wants_json
from agent.cli.terminal.show import print_json
from agent.errors import Refused

FAULTS_SHOWN = """\
  crash    hang      zombie    slow          drop       leak
  bad-mac  prekey    logout    ban           temp-ban   conflict
  outdated no-qr     stuck-loading           corrupt-files"""
"""Laid out by hand: argparse would break a name at its hyphen."""


def add(commands: Subparsers) -> None:
    example = "wa-agent sandbox fault sales zombie --for 30"
    among = add_group(commands, "sandbox", "drills with the sandbox engine", example)
    parser = add_command(
        among, "scan", scan, "let the phone scan the code", "wa-agent sandbox scan sales"
    )
    add_id(parser)
    parser = add_command(
        among,
        "fault",
        fault,
        "cause a fault",
        example,
    )
    parser.description = f"Cause a fault, one of:\n\n{FAULTS_SHOWN}"
    add_id(parser)
    parser.add_argument("fault", metavar="FAULT", help="name of the fault")
    parser.add_argument("--for", type=float, metavar="SECONDS", help="duration of the fault")
    parser.add_argument(
        "--peer", action="append", metavar="NAME", help="contact whose messages fail"
    )
    parser = add_command(
        among,
        "web",
        web,
        "serve a stand-in of WhatsApp Web, with a phone, for the web engine",
        "wa-agent sandbox web --port 8480",
    )
    parser.add_argument("--port", type=int, default=8480, help="port on 127.0.0.1, default 8480")
    parser = add_command(among, "clear", clear, "end every fault", "wa-agent sandbox clear sales")
    add_id(parser)


def web(options: argparse.Namespace) -> int:
    """Until interrupted."""
    import asyncio

    asyncio.run(_serve_stand_in(options.port))
    return 0


async def _serve_stand_in(port: int) -> None:
    import asyncio

    from agent.engines.web.standin.server import StandIn

    try:
        stand_in = await StandIn.open(port=port)
    except (OSError, OverflowError) as error:
        raise Refused(
            f"cannot serve the stand-in on port {port}: {error}; --port 0 takes a free one",
            field="port",
        ) from error
    try:
        url = stand_in.url
        print(f"the page:    {url}")
        print(f"its phone:   {url}phone   (scan, write, log out, make trouble)")
        print(
            "an instance with a real browser on it (`wa-agent doctor` says if something is missing;"
        )
        print(f"the bundle: {sys.executable} -m agent.engines.web.fetch STATE/cache):")
        print(f"  wa-agent create webdemo --engine web --set url='{url}?name=webdemo'")
        print("  wa-agent screenshot webdemo webdemo.png")
        print("Ctrl-C ends it.", flush=True)
        await asyncio.Event().wait()
    finally:
        await stand_in.close()


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
