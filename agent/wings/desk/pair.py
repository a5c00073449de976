"""`pair`: alone on a desktop, it needs none of the agent's libraries."""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from agent.cli.command import Subparsers, add_command, instance_id
from agent.cli.terminal.answer import print_answer
from agent.cli.terminal.show import clean
from agent.core.invitation_line import Invitation, parse_invitation
from agent.core.model import InstanceId
from agent.errors import InvalidRequest, Refused, WaError
from agent.files import replacing

_SEALED, _NEEDS_PASSKEY = "session.wa-sealed", "needs-passkey"
_SENT = ".sent"
"""Ends the name of a folder whose session an agent has."""


def add(commands: Subparsers) -> None:
    summary = "pair an instance of another machine here, in a browser window; needs no agent"
    parser = add_command(commands, "pair", pair, summary, "--to LINE")
    parser.add_argument(
        "--to",
        metavar="LINE",
        required=True,
        help="what `wa-agent invite` printed, - = read it from stdin; or only a public key",
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="write a file, send nothing")
    parser.add_argument(
        "--id", type=instance_id, default="paired", help="name of the session, for a public key"
    )
    parser.add_argument(
        "--page", metavar="URL", default="", help="address of the page; default: WhatsApp Web"
    )
    parser.add_argument(
        "--browser",
        metavar="PROGRAM",
        default=os.environ.get("WA_BROWSER", ""),
        help="path of Chromium or Chrome; default: searched for",
    )
    parser.add_argument(
        "--within", type=float, default=900.0, metavar="SECONDS", help="time for linking"
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=180.0,
        metavar="SECONDS",
        help="time for the agent to connect it",
    )
    parser.add_argument(
        "--kept", metavar="FOLDER", type=Path, help="give a session that an earlier run kept"
    )


def pair(options: argparse.Namespace) -> int:
    line = sys.stdin.readline() if options.to == "-" else options.to
    invitation = parse_invitation(line, InstanceId(options.id))
    if not invitation.url and options.out is None:
        raise InvalidRequest(
            "cannot send the session: the invitation names no address; add --out FILE", field="out"
        )
    if options.kept is not None and options.kept.name.endswith(_SENT):
        raise Refused(
            f"cannot give {options.kept}: an agent has this session already", code="already_sent"
        )
    say(f"for {invitation.id}; fingerprint of its agent's key: {invitation.fingerprint}")
    from agent.wings.desk import hand_over

    if options.out is None:
        hand_over.look_before(invitation)
    else:
        from agent.cli.copies.transfer import check_target

        check_target(options.out, force=True)
    folder = options.kept or _new_folder(invitation.id)
    try:
        if options.kept is None:
            _link(options, folder / "session")
        if options.out is not None:
            return _write(options, folder, invitation)
        return _send(options, folder, invitation)
    except BaseException:
        if (folder / "session" / "profile").is_dir():
            say(
                f"the profile is kept in {folder}: if it was linked, give it with --kept {folder};"
                " if not, remove the folder"
            )
        raise


def _link(options: argparse.Namespace, session: Path) -> None:
    import asyncio

    from agent.engines.web.settings import WHATSAPP
    from agent.wings.desk.browser import find_visible_browser, need_display
    from agent.wings.desk.pairing import Desk, pair

    need_display(os.environ)
    program = find_visible_browser(options.browser)
    cache = os.environ.get("WA_CACHE_PATH") or _home("XDG_CACHE_HOME", ".cache") / "wa-agent"
    session.mkdir(mode=0o700, parents=True)
    desk = Desk(program, Path(cache), options.page or WHATSAPP, options.within)
    paired = asyncio.run(pair(session, desk, say))
    if paired.needs_passkey:
        (session.parent / _NEEDS_PASSKEY).touch()
    say(f"linked as {paired.account}; the window is closed")


def _seal(folder: Path, invitation: Invitation, target: Path) -> None:
    from agent.wings.desk.hand_over import seal_session

    asked = (folder / _NEEDS_PASSKEY).exists()
    with replacing(target) as file:
        seal_session(folder / "session", invitation, file, needs_passkey=asked)


def _write(options: argparse.Namespace, folder: Path, invitation: Invitation) -> int:
    _seal(folder, invitation, options.out)
    say(
        f"the session is kept in {folder}; remove that folder once the agent says CONNECTED, and"
        " never run it: two that run one session throw each other out"
    )
    written = {"file": str(options.out), "kept": str(folder)}
    done = f"{options.out} written; on the agent's machine: wa-agent import {options.out.name}"
    return print_answer(options, written, done)


def _send(options: argparse.Namespace, folder: Path, invitation: Invitation) -> int:
    from agent.wings.desk.hand_over import send, wait_until_connected

    sealed = folder / _SEALED
    _seal(folder, invitation, sealed)
    send(invitation, sealed, say)
    # From here on it is the agent's: its name says so, whatever happens to this program.
    sent = folder.with_name(folder.name + _SENT)
    folder.rename(sent)
    say("the agent has it and starts it")
    try:
        wait_until_connected(invitation, options.wait)
    except WaError:
        say(f"the agent has the session; a copy is in {sent}: never run it")
        raise
    shutil.rmtree(sent)
    connected = {"id": invitation.id, "connection_status": "CONNECTED"}
    return print_answer(options, connected, f"{invitation.id} is connected")


def _new_folder(id: str) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    folder = _home("XDG_DATA_HOME", ".local/share") / "wa-agent" / "desk" / f"{id}.{stamp}"
    folder.mkdir(mode=0o700, parents=True)
    return folder


def _home(variable: str, usual: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / usual)


def say(sentence: str) -> None:
    print(clean(sentence), file=sys.stderr, flush=True)
