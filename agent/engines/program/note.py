"""What is noted beside a program's session: that it is paired, and whether its files lie here.
Standard library only."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.engines.files import Linked
from agent.files import write_whole

NOTE = "program.json"


def write_note(folder: Path, account: str, session: str = "", device: str = "") -> None:
    """Of the moment in which the program told of its pairing. `session`: where it keeps its files,
    as its library or agent.toml tells; "" = nobody told. `device`: as `Linked` has it."""
    own, place = folder.resolve(), (folder / session).resolve()
    inside = place.is_relative_to(own)
    here = inside and any(entry.name != NOTE for entry in folder.iterdir())
    content: dict[str, Any] = {"version": 1, "account": account, "elsewhere": not here}
    content |= {"device": device} if device else {}
    if session and inside:
        content["session"] = str(place.relative_to(own))
    elif session:
        content["outside"] = str(place)
    with suppress(OSError):  # a full disk: the claims tell it, too
        raw = json.dumps(content).encode()
        write_whole(folder / NOTE, raw, mode=folder.stat().st_mode & 0o660)


def told_device(raw: bytes | None) -> Linked:
    """What its library told of the device as which it was connected last."""
    note = _read(raw)
    account, device = note.get("account"), note.get("device")
    known = isinstance(account, str) and isinstance(device, str)
    return Linked(str(account), str(device)) if known else Linked()


def lies_elsewhere(raw: bytes | None) -> bool:
    """Whether it is paired by files that are not here."""
    return _read(raw).get("elsewhere") is True


def session_place(raw: bytes | None) -> str:
    """Where in its folder the session's files are; "" = not told."""
    place = _read(raw).get("session")
    plain = isinstance(place, str) and not place.startswith("/") and ".." not in place.split("/")
    return str(place) if plain and place != "." else ""


def outside_place(raw: bytes | None) -> str:
    """The path outside of its folder that it named as its session's; "" = none."""
    place = _read(raw).get("outside")
    return place[:300] if isinstance(place, str) and place.startswith("/") else ""


def _read(raw: bytes | None) -> Mapping[str, Any]:
    try:
        note = json.loads(raw or b"")
    except (ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}
