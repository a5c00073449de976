"""Runs in a worker under test: what arrives is kept in a file beside the session, each id once."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.worker import run
from agent.worker.calls import Work

KEEP = "from tests.engines.web.kept import keep_in_a_file; keep_in_a_file()"
NAME = "kept.jsonl"


def kept(folder: Path) -> list[dict[str, Any]]:
    """In the order in which they came; a torn last line is none."""
    try:
        lines = (folder / NAME).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines[:-1]]


class FileKeeper:
    keeps = True
    works: Mapping[str, Work] = {}

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ids = {each["id"] for each in kept(folder)}

    async def keep(self, records: Sequence[Mapping[str, Any]]) -> None:
        fresh = {str(each["id"]): each for each in records if each["id"] not in self._ids}
        with (self._folder / NAME).open("ab") as file:
            for record in fresh.values():
                file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            os.fdatasync(file.fileno())
        self._ids |= fresh.keys()

    def serve(self, engine: object) -> None: ...

    async def close(self) -> None: ...


def keep_in_a_file() -> None:
    run.open_intake = lambda identity, _reports: FileKeeper(identity.folder)
