"""When a line of a log was written, by its own time, and in which zone that is. For rounds that
read what was written since the last one."""

import os
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_LOOKS_AT = 96
"""Characters at a line's beginning in which its time stands."""
_EPOCH_MS = re.compile(rb'"time":\s*(1\d{12})\b')
_DATE = re.compile(
    rb"(?P<y>20\d\d)-(?P<mo>\d\d)-(?P<d>\d\d)[T ](?P<clock>\d\d:\d\d:\d\d)(?:[.,]\d{1,9})?"
    rb"(?P<zone>Z| ?[+-]\d\d:?\d\d)?"
)
_DAY_FIRST = re.compile(
    rb"\[(?P<d>\d\d)[-/](?P<mo>\d\d)[-/](?P<y>20\d\d),? (?P<clock>\d\d:\d\d:\d\d)"
    rb"(?:[.,]\d{1,9})?(?P<zone>Z| ?[+-]\d\d:?\d\d)?"
)
_CLOCK = re.compile(rb"\[(?P<clock>\d\d:\d\d:\d\d)(?:\.\d{1,9})?\]")
DAY = 86400.0
_END = 64 << 10
_AHEAD = 60.0
"""Seconds by which a stamp may lie in the future: clocks differ."""
_FRESH = 300.0
"""A log's last line was written at most so long before the file was last changed."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """A time as the line has it."""

    seconds: float
    """Since 1970 where a date stands with it, else since midnight; as if it were UTC."""
    dated: bool = True
    zoned: bool = False
    """`seconds` is true as it is: the line names its zone."""


@dataclass(slots=True)
class LogClock:
    """What time it was at the line that was read last."""

    now: float
    """When the round reads, seconds since 1970."""
    offset: float = 0.0
    """Seconds by which the log's own clock is ahead of UTC, where its lines name no zone."""
    at: float = 0.0
    """Of the newest line; 0.0 = nothing is known, and no line before a stamp counts."""

    def see(self, raw: bytes) -> float:
        if (stamp := read_stamp(raw)) is not None:
            self.at = when(stamp, self.offset, self.now)
        return self.at


def read_stamp(raw: bytes) -> Stamp | None:
    """None where the line says no time."""
    head = raw[:_LOOKS_AT]
    if raw[:1] == b"{" and (hit := _EPOCH_MS.search(raw[:4096])):
        return Stamp(int(hit[1]) / 1000.0, zoned=True)
    if hit := _DATE.search(head) or _DAY_FIRST.search(head):
        try:
            day = datetime(int(hit["y"]), int(hit["mo"]), int(hit["d"]), tzinfo=UTC)
        except ValueError:
            return None
        seconds = day.timestamp() + _of_day(hit["clock"])
        zone = hit["zone"]
        return Stamp(seconds - offset_of(zone), zoned=True) if zone else Stamp(seconds)
    if hit := _CLOCK.match(head):
        return Stamp(_of_day(hit["clock"]), dated=False)
    return None


def when(stamp: Stamp, offset: float, now: float) -> float:
    """Seconds since 1970. Without a date it is the last such time that is not to come."""
    if stamp.zoned:
        return stamp.seconds
    at = stamp.seconds - offset
    if stamp.dated:
        return at
    return now + _AHEAD - (now + _AHEAD - at) % DAY


def zone_of(path: Path, now: float) -> float:
    """The offset of a log whose lines name no zone: its last line was written when the file was
    last changed, so of the possible zones the one is right in which that is so. A container writes
    UTC, or has a zone.
    """
    local = float(time.localtime(now).tm_gmtoff)
    try:
        with path.open("rb") as file:
            changed = os.fstat(file.fileno()).st_mtime
            file.seek(max(os.fstat(file.fileno()).st_size - _END, 0))
            lines = file.read(_END).split(b"\n")
    except OSError:
        return local
    stamps = (read_stamp(line) for line in reversed(lines))
    last = next((stamp for stamp in stamps if stamp is not None and not stamp.zoned), None)
    return local if last is None else _zone_by(last, changed, local)


def _zone_by(last: Stamp, changed: float, local: float) -> float:
    quarters = (900.0 * quarter for quarter in range(-12 * 4, 14 * 4 + 1))
    for offset in (0.0, local, *quarters):
        age = changed - (last.seconds - offset)
        if not last.dated:
            age = (age + _AHEAD) % DAY - _AHEAD
        if -_AHEAD <= age <= _FRESH:
            return offset
    return local


def _of_day(clock: bytes) -> float:
    hours, minutes, seconds = (int(part) for part in clock.split(b":"))
    return hours * 3600.0 + minutes * 60.0 + seconds


def offset_of(zone: bytes) -> float:
    """Seconds ahead of UTC: `Z`, `+02:00`, `-0300`."""
    text = zone.strip()
    if text == b"Z":
        return 0.0
    digits = text[1:].replace(b":", b"")
    seconds = int(digits[:2]) * 3600.0 + int(digits[2:]) * 60.0
    return -seconds if text[:1] == b"-" else seconds
