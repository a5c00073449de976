"""What is noted beside a program's session: that it is paired, and whether its files lie here.
Standard library only."""

import json
from contextlib import suppress
from pathlib import Path

from agent.files import write_whole

NOTE = "program.json"


def write_note(folder: Path, account: str) -> None:
    """Of the moment in which the program told of its pairing."""
    here = any(entry.name != NOTE for entry in folder.iterdir())
    content = json.dumps({"version": 1, "account": account, "elsewhere": not here}).encode()
    with suppress(OSError):  # a full disk: the claims tell it, too
        write_whole(folder / NOTE, content, mode=folder.stat().st_mode & 0o660)


def lies_elsewhere(raw: bytes | None) -> bool:
    """Whether it is paired by files that are not here."""
    try:
        note = json.loads(raw or b"")
    except ValueError:
        return False
    return isinstance(note, dict) and note.get("elsewhere") is True
