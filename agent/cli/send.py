"""Send a text or a file with a caption; the API sends every other kind, marks messages as read and
shows that the account types."""

import argparse
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

from agent.cli.client import open_source
from agent.cli.command import Subparsers, Words, add_instance_command, client_of, given
from agent.cli.terminal import clean, print_answer
from agent.errors import InvalidRequest

_SECONDS = 90.0
"""More than the wait: what a message takes where none is kept, too."""
_WAIT = 30
_LARGEST = 64 << 20
"""More bytes no api.media_limit lets through."""


_WORDS: Words = {
    "TO": "a number or a chat's id",
    "[TEXT]": "the message, or the caption of the file; - reads stdin",
    "--file PATH": ("send a picture, a sound or a document", {"type": Path}),
    "--quote ID": "reply to that message",
    "--idempotency-key KEY": "send a message with this key only once",
    "--wait SECONDS": (
        f"seconds to wait until WhatsApp has it, default {_WAIT}; 0 = until it is kept",
        {"type": int, "default": _WAIT},
    ),
}


def add(commands: Subparsers) -> None:
    add_instance_command(commands, "send", send, example="4915112345678 hello", words=_WORDS)


def send(options: argparse.Namespace) -> int:
    """Send a text or a file."""
    path = f"/api/instance/{options.id}/messages?wait={options.wait}"
    text = sys.stdin.read() if options.text == "-" else options.text
    content: dict[str, Any] = {"text": text}
    if options.file is not None:
        content = {"type": "media", "caption": text, **file_fields(options.file)}
    body = given({"to": options.to, "quote": options.quote, **content})
    key = options.idempotency_key
    # As the header that has its bytes. An empty one is the agent's to refuse.
    headers = {} if key is None else {"Idempotency-Key": key.encode().decode("latin-1")}
    seconds = _SECONDS + max(options.wait, 0)
    client = client_of(options)
    message = client.request("POST", path, body, headers, seconds)
    if message.get("state") in ("accepted", "sending"):
        kept = f"kept as {message['id']}: it is sent when the session can"
        return print_answer(options, message, kept, clean(message.get("sentence", "")))
    pairs = (f"{k}={v}" for k, v in message.items() if (k, v) != ("outcome", "sent"))
    word = "sent" if message.get("outcome", "sent") == "sent" else "handed over;"
    return print_answer(options, message, " ".join([word, *pairs]))


def file_fields(path: Path) -> dict[str, Any]:
    import mimetypes  # only where there is a file

    with open_source(path, "file") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        words = f"cannot send {path}: it has more than {_LARGEST >> 20} MiB"
        raise InvalidRequest(words, field="file")
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return {"content": b64encode(content).decode(), "mimetype": kind, "filename": path.name}
