"""Drills with the sandbox engine: let its phone scan, let contacts write, see what they got, cause
faults."""

import json
from pathlib import Path

from agent.cli import command, session
from agent.errors import InvalidRequest

FAULTS_SHOWN = """crash hang zombie slow drop leak bad-mac prekey logout ban temp-ban conflict
  outdated passkey stuck-loading corrupt-files"""
"""Laid out by hand: argparse would break a name at its hyphen."""


def add(commands: command.Commands) -> None:
    among = commands.group("sandbox", "drills of the sandbox engine", "fault sales zombie --for 30")
    among.one("scan", scan)
    parser = among.one("fault", fault, "zombie --for 30")
    parser.description = f"Cause a fault, one of:\n\n  {FAULTS_SHOWN}"
    among.one("clear", clear)
    among.one("say", let_say, "5511999990000 hello")
    among.one("heard", heard)


def scan(options: command.Options) -> int:
    """Let the phone scan the code."""
    return options.do("POST sandbox/scan", f"{options.id} scanned")


def fault(options: command.Options) -> int:
    """Cause a fault.

    FAULT: name of the fault
    --for SECONDS: duration of the fault
    """
    done, body = f"{options.id} fails: {options.fault}", options.given("fault", "for")
    return options.do("POST sandbox/fault", done, body)


def clear(options: command.Options) -> int:
    """End every fault."""
    return options.do("POST sandbox/fault", f"{options.id} has no more faults", {"fault": "clear"})


def let_say(options: command.Options) -> int:
    """Let a contact write.

    CONTACT: who writes: a number or a jid
    [TEXT]: the text, caption, emoji, option or state
    --type TYPE: of the message: text, image, audio, location, poll, …
    --kind KIND: message, message_reaction, message_delete, call, …
    --of MESSAGE_ID: the message that it is about
    --group JID: the group in which it is written
    --from-me: the account's owner writes it
    --count N: number of messages, which are numbered
    --file FILE: a file that it brings
    --fields JSON: more of its record: {"quote": …, "mentions": …}
    """
    body = options.given("contact", "text", "type", "kind", "of", "group", "from_me", "count")
    if options.file is not None:
        body |= session.file_fields(Path(options.file))
    if options.fields is not None:
        try:
            body["fields"] = json.loads(options.fields)
        except ValueError as error:
            raise InvalidRequest(f"cannot use --fields: it is no JSON ({error})") from None
    return options.do("POST sandbox/say", f"{options.id} has a message coming", body)


def heard(options: command.Options) -> int:
    """Show what the contacts got.

    --after CURSOR: those after this one
    --limit N: how many at most, default 100
    """
    answer = options.ask("GET sandbox/heard", **options.given("after", "limit"))
    shown = ("cursor", "chat", "id", "type", "text")
    lines = [command.clean("  ".join(str(m.get(n, "")) for n in shown)) for m in answer["messages"]]
    more = f"more: --after {answer['next']}" if answer["more"] else ""
    return options.print(answer, *lines, "" if lines else "no contact got a message", more)
