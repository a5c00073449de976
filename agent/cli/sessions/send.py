"""Send a message: a text, a file with a caption, a place, a contact, a reaction; reply to one,
edit and delete one that was sent."""

import argparse
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

from agent.cli.command import Subparsers, add_instance_command, client_of
from agent.cli.terminal.answer import print_answer
from agent.cli.terminal.show import clean
from agent.errors import InvalidRequest

_SECONDS = 90.0
"""More than the wait: what a message takes where none is kept, too."""
_WAIT = 30
_LARGEST = 64 << 20
"""More bytes no api.media_limit lets through."""


def add(commands: Subparsers) -> None:
    summary = "send a text, a file, a place, a contact or a reaction; edit or delete a message"
    parser = add_instance_command(commands, "send", send, summary, "4915112345678 hello")
    parser.add_argument("to", metavar="TO", help="a number or a chat's id")
    parser.add_argument(
        "text",
        metavar="TEXT",
        nargs="?",
        help="the message; for a file its caption, for a place or contact its name, for a reaction"
        " its emoji; - reads stdin",
    )
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument(
        "--file", metavar="PATH", type=Path, help="send a picture, a sound or a document"
    )
    kinds.add_argument(
        "--location", metavar="LAT,LONG", help="send a place: --location=52.52,13.41"
    )
    kinds.add_argument(
        "--contact", metavar="PHONE", help="send a contact: its number; TEXT is its name"
    )
    kinds.add_argument("--react", metavar="ID", help="react to that message; no TEXT removes it")
    kinds.add_argument("--edit", metavar="ID", help="TEXT is the text of that message from now on")
    kinds.add_argument("--delete", metavar="ID", help="delete that message for all")
    parser.add_argument("--quote", metavar="ID", help="reply to that message")
    parser.add_argument(
        "--by",
        metavar="WHO",
        help="who wrote the message of --quote, --react or --delete: a number, or: me; default: as"
        " its kept record says",
    )
    parser.add_argument(
        "--mention", metavar="NUMBER", action="append", help="a person that TEXT names as @NUMBER"
    )
    parser.add_argument("--type", metavar="MIMETYPE", help="the file's type; default: by its name")
    parser.add_argument("--address", metavar="TEXT", help="the place's address")
    parser.add_argument(
        "--idempotency-key", metavar="KEY", help="send a message with this key only once"
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=int,
        default=_WAIT,
        help=f"wait so long until WhatsApp has it, default {_WAIT}; 0 = until it is kept",
    )


def send(options: argparse.Namespace) -> int:
    message = (
        client_of(options)
        .request(
            "POST",
            f"/api/instance/{options.id}/messages?wait={options.wait}",
            body={"to": options.to, **_content(options)},
            headers=_key(options.idempotency_key),
            seconds=_SECONDS + max(options.wait, 0),
        )
        .json()
    )
    if message.get("state") in ("accepted", "sending"):
        kept = f"kept as {message['id']}: it is sent when the session can"
        why = clean(message.get("sentence", ""))
        return print_answer(options, message, kept, why)
    sent = message.get("outcome", "sent") == "sent"
    pairs = (f"{k}={v}" for k, v in message.items() if not (sent and k == "outcome"))
    return print_answer(options, message, " ".join(["sent" if sent else "handed over;", *pairs]))


def _key(key: str | None) -> dict[str, str] | None:
    """As the header that has its bytes. An empty one is the agent's to refuse."""
    if key is None:
        return None
    if not key.isprintable():
        raise InvalidRequest(
            "cannot use this Idempotency-Key: a character of it cannot be printed",
            field="Idempotency-Key",
        )
    return {"Idempotency-Key": key.encode().decode("latin-1")}


def _content(options: argparse.Namespace) -> dict[str, Any]:
    content = _bare(options)
    kind = content.get("type", "text")
    if options.quote is not None:
        content["quote"] = options.quote
    if options.mention:
        content["mentions"] = options.mention
    if options.by is not None:
        content["sender" if kind in ("reaction", "delete") else "quote_from"] = options.by
    return content


def _bare(options: argparse.Namespace) -> dict[str, Any]:
    text = sys.stdin.read() if options.text == "-" else options.text
    if options.file is not None:
        return _file(options, text)
    if options.location is not None:
        return _place(options, text)
    if options.contact is not None:
        if not text:
            raise InvalidRequest("cannot send a contact without a name: give TEXT", field="text")
        return {"type": "contact", "phone": options.contact, "name": text}
    if options.react is not None:
        return {"type": "reaction", "message_id": options.react, "emoji": text or ""}
    if options.edit is not None:
        if not text:
            raise InvalidRequest("cannot edit a message without TEXT; see --delete", field="text")
        return {"type": "edit", "message_id": options.edit, "text": text}
    if options.delete is not None:
        if text is not None:
            raise InvalidRequest("cannot use TEXT with --delete", field="text")
        return {"type": "delete", "message_id": options.delete}
    if text is None:
        raise InvalidRequest(
            "cannot send an empty message: give TEXT, --file, --location, --contact, --react,"
            " --edit or --delete",
            field="text",
        )
    return {"text": text}


def _file(options: argparse.Namespace, text: str | None) -> dict[str, Any]:
    import mimetypes

    kind = options.type or mimetypes.guess_type(options.file.name)[0] or "application/octet-stream"
    try:
        with options.file.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise InvalidRequest(
            f"cannot read {options.file}: {error.strerror or error}", field="file"
        ) from error
    if len(content) > _LARGEST:
        raise InvalidRequest(
            f"cannot send {options.file}: it has more than {_LARGEST >> 20} MiB", field="file"
        )
    caption = {} if text is None else {"caption": text}
    return {
        "type": "media",
        "content": b64encode(content).decode(),
        "mimetype": kind,
        "filename": options.file.name,
        **caption,
    }


def _place(options: argparse.Namespace, text: str | None) -> dict[str, Any]:
    try:
        latitude, longitude = (float(number) for number in options.location.split(","))
    except ValueError:
        raise InvalidRequest(
            f"cannot use the place {options.location!r:.60}: it is not LAT,LONG", field="location"
        ) from None
    named = {"name": text, "address": options.address}
    given = {name: value for name, value in named.items() if value}
    return {"type": "location", "latitude": latitude, "longitude": longitude, **given}
