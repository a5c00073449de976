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
    level: Level
    sentence: str
    advice: str = ""


def ok(check: str, sentence: str) -> Finding:
    return Finding(check, Level.OK, sentence)


def note(check: str, sentence: str, advice: str) -> Finding:
    return Finding(check, Level.NOTE, sentence, advice)


def wrong(check: str, sentence: str, advice: str) -> Finding:
    return Finding(check, Level.WRONG, sentence, advice)
