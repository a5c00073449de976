"""The sandbox engine: let its phone scan, let contacts write, see what they got, cause faults."""

import argparse
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

from agent.cli.command import Subparsers, add_group, add_instance_command, client_of
from agent.cli.terminal.answer import print_answer
from agent.errors import InvalidRequest

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
    parser = add_instance_command(among, "say", say, "let a contact write", "5511999990000 hello")
    parser.add_argument("contact", metavar="CONTACT", help="who writes: a number or a jid")
    parser.add_argument(
        "text", metavar="TEXT", nargs="?", help="the text, caption, emoji, option or state"
    )
    parser.add_argument("--type", help="of the message: text, image, audio, location, poll, …")
    parser.add_argument("--kind", help="message, message_reaction, message_delete, call, …")
    parser.add_argument("--of", metavar="MESSAGE_ID", help="the message that it is about")
    parser.add_argument("--group", metavar="JID", help="the group in which it is written")
    parser.add_argument("--from-me", action="store_true", help="the account's owner writes it")
    parser.add_argument("--message-id", metavar="ID", help="its id at WhatsApp")
    parser.add_argument("--count", type=int, metavar="N", help="so many, numbered")
    parser.add_argument("--file", metavar="FILE", help="a file that it brings")
    parser.add_argument(
        "--fields", metavar="JSON", help='more of its record: {"quote": …, "mentions": …}'
    )
    parser = add_instance_command(among, "heard", heard, "show what the contacts got")
    parser.add_argument("--after", type=int, metavar="CURSOR", help="those after this one")
    parser.add_argument("--limit", type=int, metavar="N", help="how many at most, default 100")


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


def say(options: argparse.Namespace) -> int:
    given = vars(options)
    names = ("contact", "text", "type", "kind", "of", "group", "message_id", "count")
    body = {name: given[name] for name in names if given[name] is not None}
    if options.from_me:
        body["from_me"] = True
    if options.file is not None:
        body |= _file(Path(options.file))
    if options.fields is not None:
        body["fields"] = _object(options.fields)
    return _ask(options, "say", body, "has a message coming")


def heard(options: argparse.Namespace) -> int:
    asked = {"after": options.after, "limit": options.limit}
    query = "&".join(f"{name}={value}" for name, value in asked.items() if value is not None)
    answer = client_of(options).get(f"/api/instance/{options.id}/sandbox/heard?{query}")
    lines = [
        "  ".join((str(m["cursor"]), m["chat"], m["id"], m["type"], _one_line(m.get("text", ""))))
        for m in answer["messages"]
    ]
    nothing = "" if lines else "no contact got a message"
    more = f"more: --after {answer['next']}" if answer["more"] else ""
    return print_answer(options, answer, *lines, nothing, more)


def _file(path: Path) -> dict[str, str]:
    import mimetypes  # only where there is a file

    try:
        content = b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror}", field="file") from None
    mimetype = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return {"content": content, "mimetype": mimetype, "filename": path.name}


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"cannot use --fields: it is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise InvalidRequest("cannot use --fields: it is no JSON object")
    return found


def _one_line(text: str) -> str:
    return text.encode("unicode_escape", "replace").decode() if not text.isprintable() else text


def _ask(options: argparse.Namespace, what: str, body: dict[str, Any], done: str) -> int:
    answer = client_of(options).post(f"/api/instance/{options.id}/sandbox/{what}", body)
    return print_answer(options, answer, f"{options.id} {done}")
