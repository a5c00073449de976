"""What a program does that was written for Evolution API: the public client `evolutionapi` (PyPI),
unmodified, in a Python of its own. Arguments: URL, key, instance, contact, and the key of a message
of that contact as JSON. Prints one JSON line for each call."""

import base64
import io
import json
import sys
from collections.abc import Callable
from typing import Any

from evolutionapi.client import EvolutionClient  # type: ignore[import-not-found]
from evolutionapi.models.chat import Presence, ReadMessage  # type: ignore[import-not-found]
from evolutionapi.models.message import (  # type: ignore[import-not-found]
    Contact,
    ContactMessage,
    LocationMessage,
    MediaMessage,
    QuotedMessage,
    ReactionMessage,
    TextMessage,
)

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def main(url: str, key: str, name: str, contact: str, heard: dict[str, Any]) -> None:
    client = EvolutionClient(base_url=url, api_token=key)
    place = LocationMessage(contact, "Office", "Main street 1", -23.55, -46.63)
    person = ContactMessage(contact, [Contact("Ana Souza", "5511977776666", "+55 11 97777-6666")])
    media = MediaMessage(
        contact, mediatype="image", mimetype="image/png", caption="a dot", fileName="dot.png"
    )
    quoted = QuotedMessage(heard)
    reply = TextMessage(contact, "an answer", quoted=quoted)
    read = ReadMessage(heard["remoteJid"], False, heard["id"])
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("fetch_instances", client.instances.fetch_instances),
        ("connection_state", lambda: client.instance_operations.get_connection_state(name, key)),
        ("connect", lambda: client.instance_operations.connect(name, key)),
        ("text", lambda: client.messages.send_text(name, TextMessage(contact, "hello"), key)),
        ("reply", lambda: client.post(f"message/sendText/{name}", reply.__dict__, key)),
        ("media", lambda: client.messages.send_media(name, media, key, io.BytesIO(PICTURE))),
        ("location", lambda: client.messages.send_location(name, place, key)),
        ("contact", lambda: client.messages.send_contact(name, person, key)),
        (
            "reaction",
            lambda: client.messages.send_reaction(name, ReactionMessage(heard, "👍"), key),
        ),
        ("read", lambda: client.chat.mark_message_as_read(name, [read], key)),
        (
            "presence",
            lambda: client.chat.send_presence(name, Presence(contact, 10, "composing"), key),
        ),
        ("messages", lambda: client.chat.get_messages(name, heard["remoteJid"], key)),
    ]
    for what, call in calls:
        try:
            print(json.dumps({"call": what, "answer": call()}), flush=True)
        except Exception as error:
            print(
                json.dumps({"call": what, "error": f"{type(error).__name__}: {error}"}), flush=True
            )


if __name__ == "__main__":
    main(*sys.argv[1:5], json.loads(sys.argv[5]))
