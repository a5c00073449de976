"""What WhatsApp holds for the sandbox's account until the session has taken it, also over a kill of
its worker. It lies beside the session's own folder: no copy of a session has messages in it."""

import heapq
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.engines.sandbox.chat.line_file import LineFile
from agent.errors import EngineError

Record = Mapping[str, Any]

NAME = "waiting.jsonl"
MOST = 100_000
"""Records; a sandbox is no mail server."""
_SMALL = 64 << 10
"""Bytes of the file that are not worth a look."""


@dataclass(order=True, slots=True)
class Entry:
    due: float
    """Wall time before which it is not given."""
    number: int
    record: Record = field(compare=False)


class Waiting:
    """In the order in which they are due; read from the disk at its first use."""

    def __init__(self, folder: Path, *, kept: bool) -> None:
        """`kept`: whether it outlives the process; without, nothing is written."""
        self._kept = kept
        self._file = LineFile(folder / NAME)
        self._ready: deque[Entry] = deque()
        self._later: list[Entry] = []
        self._number = 0
        if kept:
            self._read()

    def __len__(self) -> int:
        return len(self._ready) + len(self._later)

    def add(self, records: Sequence[Record], due: float = 0.0) -> None:
        """It is not lost once this returns."""
        if len(self) + len(records) > MOST:
            raise EngineError(
                f"cannot hold more messages: {len(self)} wait already, at most {MOST}",
                code="too_many_waiting",
            )
        entries = [Entry(due, self._number + n + 1, one) for n, one in enumerate(records)]
        self._write(*({"n": e.number, "due": e.due, "record": e.record} for e in entries))
        self._number += len(entries)
        for entry in entries:
            self._put(entry)

    def next(self, most: int) -> list[Entry]:
        """Those to be given now, oldest first; they stay."""
        while self._later and self._later[0].due <= time.time():
            self._ready.append(heapq.heappop(self._later))
        return [self._ready[n] for n in range(min(most, len(self._ready)))]

    def next_due(self) -> float | None:
        """Seconds until there is something to give; None: nothing waits."""
        if self._ready:
            return 0.0
        return max(0.0, self._later[0].due - time.time()) if self._later else None

    def drop(self, entries: Sequence[Entry]) -> None:
        """The first ones of `next` were taken."""
        if len(self) == len(entries) and self._file.size > _SMALL:
            self._replace()
        else:
            self._write({"taken": [entry.number for entry in entries]})
        for _ in entries:
            self._ready.popleft()

    def _read(self) -> None:
        found: dict[int, Entry] = {}
        try:
            for line in self._file.read():
                if "taken" in line:
                    for number in line["taken"]:
                        found.pop(number, None)
                else:
                    entry = Entry(line["due"], line["n"], line["record"])
                    found[entry.number] = entry
                    self._number = max(self._number, entry.number)
        except OSError as error:
            raise EngineError(f"cannot read what waits: {error}", code="unreadable") from error
        for entry in found.values():
            self._put(entry)

    def _put(self, entry: Entry) -> None:
        if entry.due <= time.time():
            self._ready.append(entry)
        else:
            heapq.heappush(self._later, entry)

    def _write(self, *lines: Mapping[str, Any]) -> None:
        if not self._kept:
            return
        try:
            self._file.append(*lines)
        except OSError as error:
            raise EngineError(f"cannot hold messages: {error}", code="save_failed") from error

    def _replace(self) -> None:
        if not self._kept:
            return
        try:
            # The number goes on: what is taken must never be meant by an older line.
            self._file.replace(
                [{"n": self._number, "due": 0, "record": {}}, {"taken": [self._number]}]
            )
        except OSError as error:
            raise EngineError(f"cannot hold messages: {error}", code="save_failed") from error
