"""`pair`: alone on a desktop, it needs none of the agent's libraries."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from agent.cli.client import check_target, whole_file
from agent.cli.command import Subparsers, Words, add_command
from agent.cli.terminal import clean, print_answer
from agent.core.model import InstanceId, parse_instance_id
from agent.errors import ConfigError

_EXAMPLE = """--out shop.tar.gz
  age -p -o shop.tar.gz.age shop.tar.gz && shred -u shop.tar.gz    # encrypted, on the way
  age -d -o shop.tar.gz shop.tar.gz.age                            # on the server
  wa-agent import shop.tar.gz --enable"""
_WARNING = (
    "this file is the pairing: who has it has the account. Encrypt it on the way (wa-agent pair"
    " --help shows how), import it on one server only, and remove it here: two that run one session"
    " throw each other out"
)


def add(commands: Subparsers) -> None:
    words: Words = {
        "--out FILE": (
            "the archive to write; up to its first dot its name is the session's id",
            {"type": Path, "required": True},
        ),
        "--force": "replace the file",
        "--page URL": "address of the page; default: WhatsApp Web",
        "--browser PROGRAM": (
            "path of Chromium or Chrome; default: searched for",
            {"default": os.environ.get("WA_BROWSER", "")},
        ),
        "--within SECONDS": ("time for linking", {"type": float, "default": 900.0}),
    }
    add_command(commands, "pair", pair, example=_EXAMPLE, words=words)


def pair(options: argparse.Namespace) -> int:
    """Link an account here, in a browser window, and write its session into a file."""
    id = parse_instance_id(options.out.name.partition(".")[0])
    check_target(options.out, force=options.force)
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ConfigError(
            "cannot open a window: neither DISPLAY nor WAYLAND_DISPLAY is set; run this in a"
            " desktop's terminal",
            code="no_display",
        )
    # A closed terminal ends it in order too: nothing of the pairing stays behind.
    for end in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(end, signal.default_int_handler)
    sha256 = _link_and_write(options, id)
    say(_WARNING)
    written = {"file": str(options.out), "sha256": sha256}
    return print_answer(options, written, f"{sha256}  {options.out}")


def _link_and_write(options: argparse.Namespace, id: InstanceId) -> str:
    """Returns the archive's SHA-256. The profile is removed in any case: a copy that is left here
    could run beside the server's."""
    import asyncio

    from agent.cli.pairing import find_visible_browser, link
    from agent.engines.web.settings import WHATSAPP
    from agent.vault.archives import pack_session, scratch

    cache = os.environ.get("WA_CACHE_PATH") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "wa-agent"
    )
    program = find_visible_browser(options.browser)
    url = options.page or WHATSAPP
    linked = "if the phone linked it, "
    try:
        with scratch() as folder:
            (session := folder / "session").mkdir(mode=0o700)
            linking = link(session, program, Path(cache), url=url, within=options.within, say=say)
            account, needs_passkey = asyncio.run(linking)
            linked = ""
            say(f"linked as {account}; the window is closed")
            with whole_file(options.out) as file:
                return pack_session(
                    session,
                    id,
                    "web",
                    file,
                    wall=time.time(),
                    account=account,
                    needs_passkey=needs_passkey,
                ).sha256
    except BaseException:
        say(
            "the archive was not written, and the profile is removed:"
            f" {linked}remove the linked device on the phone (Linked devices)"
        )
        raise


def say(sentence: str) -> None:
    print(clean(sentence), file=sys.stderr, flush=True)
