"""Records for tests, and files that hold them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agent.messages.incoming import NAME, Incoming
from agent.messages.record import clean

CHAT = "5511900000002@s.whatsapp.net"
UNSURE = -(10**9)


def message(number: int, text: str = "", **more: Any) -> dict[str, Any]:
    ids = {"id": f"m:{CHAT}:{CHAT}:{number:06d}", "message_id": f"{number:06d}"}
    whose = {"chat": CHAT, "from_me": False, "sender": CHAT, "alias": ""}
    what = {"kind": "message", "type": "text", "text": text or f"message {number}"}
    return {"v": 1, "at": 1_790_000_000 + number, **ids, **whose, **what, **more}


def messages(numbers: Iterable[int], text: str = "", **more: Any) -> list[dict[str, Any]]:
    return [clean(message(number, text, **more)) for number in numbers]


def file_at(folder: Path, owner: str = "sales", **bounds: Any) -> Incoming:
    return Incoming(folder / "messages" / NAME, owner, **bounds)


def numbers_of(records: Iterable[dict[str, Any]]) -> list[int]:
    """-N for a gap of N, UNSURE for one of an unknown number."""
    return [
        -int(record.get("missing", -UNSURE))
        if record["kind"] == "message_gap"
        else int(record["message_id"])
        for record in records
    ]


def page_of(file: Incoming, after: int, limit: int = 1000) -> Mapping[str, Any]:
    return file.read("messages", {"after": after, "limit": limit})


def settle(file: Incoming, cursor: int) -> None:
    file.read("messages_state", {"settled": cursor})


def newest(file: Incoming) -> int:
    return int(page_of(file, 0, 1)["newest"])


def read_all(file: Incoming, after: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = page_of(file, after, limit)
        found += page["records"]
        after = page["next"]
        if not page["more"]:
            return found
