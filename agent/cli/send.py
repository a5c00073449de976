"""Send a message: a text, or a file with a text below it."""

import argparse
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

from agent.cli.command import Subparsers, add_command, add_id, client_of, wants_json
from agent.cli.show import print_json
from agent.errors import InvalidRequest

_SECONDS = 120.0


def add(commands: Subparsers) -> None:
    parser = add_command(
        commands, "send", send, "send a text or a file", "wa-agent send sales 4915112345678 hello"
    )
    add_id(parser)
    parser.add_argument("to", metavar="TO", help="a number or a chat's id")
    parser.add_argument(
        "text",
        metavar="TEXT",
        nargs="?",
        help="the message, or the text below the file; - reads it",
    )
    parser.add_argument("--file", metavar="PATH", type=Path, help="a picture, a sound, a document")
    parser.add_argument("--type", metavar="MIMETYPE", help="the file's type; found by its name")
    parser.add_argument("--idempotency-key", metavar="KEY", help="the same key sends once")


def send(options: argparse.Namespace) -> int:
    key = options.idempotency_key
    answer = client_of(options).request(
        "POST",
        f"/api/instance/{options.id}/messages",
        body={"to": options.to, **_content(options)},
        headers={"Idempotency-Key": key} if key else None,
        seconds=_SECONDS,
    )
    found = answer.json()
    if wants_json(options):
        print_json(found)
    elif found.get("outcome", "sent") == "sent":
        print("sent", *(f"{name}={value}" for name, value in found.items() if name != "outcome"))
    else:
        print("handed over;", *(f"{name}={value}" for name, value in found.items()))
    return 0


def _content(options: argparse.Namespace) -> dict[str, Any]:
    text = sys.stdin.read() if options.text == "-" else options.text
    if options.file is None:
        if text is None:
            raise InvalidRequest("cannot send nothing: give TEXT or --file", field="text")
        return {"text": text}
    import mimetypes

    kind = options.type or mimetypes.guess_type(options.file.name)[0] or "application/octet-stream"
    try:
        content = b64encode(options.file.read_bytes()).decode()
    except OSError as error:
        raise InvalidRequest(
            f"cannot read {options.file}: {error.strerror or error}", field="file"
        ) from error
    caption = {} if text is None else {"caption": text}
    return {
        "type": "media",
        "content": content,
        "mimetype": kind,
        "filename": options.file.name,
        **caption,
    }
