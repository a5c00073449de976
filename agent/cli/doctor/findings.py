"""A finding of the doctor: good, to be looked at, or wrong."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Works, but look at it."""
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    """Of which check; "" = the one that is run has the name."""
    level: Level
    sentence: str
    advice: str = ""
    """"" with a note or a fault: the check's own cure."""


def ok(sentence: str, *, check: str = "") -> Finding:
    return Finding(check, Level.OK, sentence)


def note(sentence: str, advice: str = "", *, check: str = "") -> Finding:
    return Finding(check, Level.NOTE, sentence, advice)


def wrong(sentence: str, advice: str = "", *, check: str = "") -> Finding:
    return Finding(check, Level.WRONG, sentence, advice)
