"""A page that is open at the stand-in."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.standin.web.frames import send_text


@dataclass(slots=True)
class Client:
    """One open page."""

    number: int
    name: str
    writer: asyncio.StreamWriter
    device: str = ""
    code: str = ""
    """The QR code's changing part that it shows now."""
    link_code: str = ""
    challenge: bytes = b""
    """For the person's passkey, which the page was asked for."""
    asks_for: str = ""
    """The account that is linked once the passkey came."""
    codes_left: int = 0
    received: list[Mapping[str, Any]] = field(default_factory=list)

    def tell(self, do: str, **more: Any) -> None:
        send_text(self.writer, json.dumps({"do": do, **more}).encode())
