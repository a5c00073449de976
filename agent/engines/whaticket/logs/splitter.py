"""Bytes in, whole lines out; what has no end yet is kept, within bounds."""

from dataclasses import dataclass

from agent.engines.whaticket.logs.records import LONGEST_RECORD


@dataclass(slots=True)
class Splitter:
    partial: bytes = b""
    skipping: bool = False
    """The line is longer than any that we read: it is passed over to its end."""

    def feed(self, chunk: bytes) -> list[bytes]:
        first, newline, rest = chunk.partition(b"\n")
        if not newline:
            self._keep(chunk)
            return []
        lines = [] if self.skipping else [self.partial + first]
        self.partial, self.skipping = b"", False
        if rest:
            *whole, last = rest.split(b"\n")
            lines += whole
            self._keep(last)
        return lines

    def clear(self) -> None:
        self.partial, self.skipping = b"", False

    def _keep(self, piece: bytes) -> None:
        if self.skipping:
            return
        self.partial += piece
        if len(self.partial) > LONGEST_RECORD:
            self.partial, self.skipping = b"", True
