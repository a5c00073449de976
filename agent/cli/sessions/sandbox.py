"""The sandbox engine: let its phone scan, cause faults, serve the stand-in of WhatsApp Web."""

import argparse
import sys
from typing import Any

from agent.cli.command import (
    Subparsers,
    add_command,
    add_group,
    add_instance_command,
    client_of,
)
from agent.cli.terminal.answer import print_answer
from agent.errors import Refused

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
    summary = "serve a stand-in of WhatsApp Web, with a phone, for the web engine"
    parser = add_command(among, "web", web, summary, "--port 8480")
    parser.add_argument("--port", type=int, default=8480, help="port on 127.0.0.1, default 8480")
    add_instance_command(among, "clear", clear, "end every fault")


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
        print(
            f"the page:    {url}\n"
            f"its phone:   {url}phone   (scan, write, log out, make trouble)\n"
            "an instance with a real browser on it (`wa-agent doctor` names missing parts; the\n"
            f"bundle: {sys.executable} -m agent.engines.web.fetch STATE/cache):\n"
            f"  wa-agent create webdemo --engine web --set url='{url}?name=webdemo'\n"
            "  wa-agent screenshot webdemo webdemo.png\n"
            "Ctrl-C ends it.",
            flush=True,
        )
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
    return _ask(options, "fault", {"clear": True}, "has no more faults")


def _ask(options: argparse.Namespace, what: str, body: dict[str, Any], done: str) -> int:
    answer = client_of(options).post(f"/api/instance/{options.id}/sandbox/{what}", body)
    return print_answer(options, answer, f"{options.id} {done}")
