"""Records and spools for tests."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agent.wings.messages.record import clean
from agent.wings.messages.spool.line import Entry, entry_of
from agent.wings.messages.spool.page import Bounds
from agent.wings.messages.spool.spool import Spool

UNSURE = -(10**9)


def message(number: int, text: str = "", **more: Any) -> dict[str, Any]:
    chat = "5511900000002@s.whatsapp.net"
    return {
        "v": 1,
        "id": f"m:{chat}:{chat}:{number:06d}",
        "kind": "message",
        "at": 1_790_000_000 + number,
        "chat": chat,
        "from_me": False,
        "sender": chat,
        "alias": "",
        "message_id": f"{number:06d}",
        "type": "text",
        "text": text or f"message {number}",
        **more,
    }


def entries(numbers: Iterable[int], text: str = "") -> list[Entry]:
    return [entry_of(clean(message(number, text))) for number in numbers]


def spool_at(folder: Path, **bounds: float) -> Spool:
    return Spool(folder / "messages", Bounds(**bounds))  # type: ignore[arg-type]


def numbers_of(records: Iterable[dict[str, Any]]) -> list[int]:
    """Which messages these are; -N for a gap of N, UNSURE for one of nobody knows how many."""
    return [
        -int(record.get("missing", -UNSURE))
        if record["kind"] == "message_gap"
        else int(record["message_id"])
        for record in records
    ]


def read_all(spool: Spool, after: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = spool.page(after, limit)
        found += page.records
        after = page.next
        if not page.more:
            return found


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "messages").glob("????????????????.log"))
