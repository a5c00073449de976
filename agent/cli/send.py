"""Send a message: a text, a file with a caption, a place, a contact, a reaction; reply to one,
edit and delete one that was sent. Tell a chat that its messages were read, or that the account
types."""

import argparse
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

from agent.cli.command import Subparsers, Words, add_instance_command, add_words, client_of
from agent.cli.terminal import clean, print_answer
from agent.cli.transfer import open_source
from agent.engines.base import PRESENCES
from agent.errors import InvalidRequest

_SECONDS = 90.0
"""More than the wait: what a message takes where none is kept, too."""
_WAIT = 30
_LARGEST = 64 << 20
"""More bytes no api.media_limit lets through."""


_WORDS: Words = {
    "TO": "a number or a chat's id",
    "[TEXT]": "the message; for a file its caption, for a place or contact its name, for a reaction"
    " its emoji; - reads stdin",
    "--quote ID": "reply to that message",
    "--by WHO": "who wrote the message of --quote, --react or --delete: a number, or: me; default:"
    " as its kept record says",
    "--mention NUMBER": ("a person that TEXT names as @NUMBER", {"action": "append"}),
    "--type MIMETYPE": "the file's type; default: by its name",
    "--address TEXT": "the place's address",
    "--idempotency-key KEY": "send a message with this key only once",
    "--wait SECONDS": (
        f"seconds to wait until WhatsApp has it, default {_WAIT}; 0 = until it is kept",
        {"type": int, "default": _WAIT},
    ),
}
_KINDS: Words = {
    "--file PATH": ("send a picture, a sound or a document", {"type": Path}),
    "--location LAT,LONG": "send a place: --location=52.52,13.41",
    "--contact PHONE": "send a contact: its number; TEXT is its name",
    "--react ID": "react to that message; no TEXT removes it",
    "--edit ID": "TEXT is the text of that message from now on",
    "--delete ID": "delete that message for all",
}
_READ: Words = {
    "CHAT": "a number or a chat's id",
    "[MESSAGE]": (
        "WhatsApp's id of a message; default: all that arrived since it was marked last",
        {"nargs": "*"},
    ),
    "--by WHO": "who wrote them, in a group",
}
_PRESENCE: Words = {
    "STATE": (", ".join(PRESENCES), {"choices": PRESENCES}),
    "[CHAT]": "a number or a chat's id",
    "--seconds N": ("seconds until it shows paused; default: as phones do", {"type": int}),
}


def add(commands: Subparsers) -> None:
    summary = "send a text, a file, a place, a contact or a reaction; edit or delete a message"
    example = "4915112345678 hello"
    parser = add_instance_command(commands, "send", send, summary, example, words=_WORDS)
    add_words(parser.add_mutually_exclusive_group(), _KINDS)
    summary, example = "mark messages of a chat as read", "4915112345678"
    add_instance_command(commands, "read", read, summary, example, words=_READ)
    summary = "show that the account types or records in a chat, or is there"
    example = "typing 4915112345678"
    add_instance_command(commands, "presence", presence, summary, example, words=_PRESENCE)


def send(options: argparse.Namespace) -> int:
    path = f"/api/instance/{options.id}/messages?wait={options.wait}"
    body, key = {"to": options.to, **_content(options)}, options.idempotency_key
    # As the header that has its bytes. An empty one is the agent's to refuse.
    headers = {} if key is None else {"Idempotency-Key": key.encode().decode("latin-1")}
    seconds = _SECONDS + max(options.wait, 0)
    client = client_of(options)
    message = client.request("POST", path, body=body, headers=headers, seconds=seconds).json()
    if message.get("state") in ("accepted", "sending"):
        kept = f"kept as {message['id']}: it is sent when the session can"
        return print_answer(options, message, kept, clean(message.get("sentence", "")))
    pairs = (f"{k}={v}" for k, v in message.items() if (k, v) != ("outcome", "sent"))
    word = "sent" if message.get("outcome", "sent") == "sent" else "handed over;"
    return print_answer(options, message, " ".join([word, *pairs]))


def _content(options: argparse.Namespace) -> dict[str, Any]:
    """The agent refuses what does not go together."""
    text = sys.stdin.read() if options.text == "-" else options.text
    by = "quote_from"
    content: dict[str, Any] = {"text": text}
    if options.file is not None:
        content = {"type": "media", **file_fields(options.file), "caption": text}
        content["mimetype"] = options.type or content["mimetype"]
    elif options.location is not None:
        try:
            latitude, longitude = (float(number) for number in options.location.split(","))
        except ValueError:
            shown = f"cannot use the place {options.location!r:.60}: it is not LAT,LONG"
            raise InvalidRequest(shown, field="location") from None
        content = {"type": "location", "latitude": latitude, "longitude": longitude}
        content |= {"name": text or None, "address": options.address or None}
    elif options.contact is not None:
        content = {"type": "contact", "phone": options.contact, "name": text}
    elif options.react is not None:
        by, content = "sender", {"type": "reaction", "message_id": options.react}
        content["emoji"] = text or ""
    elif options.edit is not None:
        content = {"type": "edit", "message_id": options.edit, "text": text}
    elif options.delete is not None:
        by, content = "sender", {"type": "delete", "message_id": options.delete, "text": text}
    content |= {"quote": options.quote, "mentions": options.mention, by: options.by}
    return {name: value for name, value in content.items() if value is not None}


def file_fields(path: Path) -> dict[str, Any]:
    import mimetypes  # only where there is a file

    with open_source(path, "file") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        words = f"cannot send {path}: it has more than {_LARGEST >> 20} MiB"
        raise InvalidRequest(words, field="file")
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return {"content": b64encode(content).decode(), "mimetype": kind, "filename": path.name}


def read(options: argparse.Namespace) -> int:
    given = {"chat": options.chat, "message_ids": options.message or None, "sender": options.by}
    answer = _ask(options, "read", given)
    return print_answer(options, answer, f"{answer['marked']} messages are marked as read")


def presence(options: argparse.Namespace) -> int:
    given = {"state": options.state, "chat": options.chat, "seconds": options.seconds}
    answer = _ask(options, "presence", given)
    return print_answer(options, answer, f"{options.id} shows: {answer['state']}")


def _ask(options: argparse.Namespace, what: str, given: dict[str, Any]) -> dict[str, Any]:
    body = {name: value for name, value in given.items() if value is not None}
    return client_of(options).post(f"/api/instance/{options.id}/{what}", body)
