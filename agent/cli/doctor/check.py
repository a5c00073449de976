"""A finding of the doctor: good, to be looked at, or wrong."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config.sections import INSTALLED_STATE

if TYPE_CHECKING:
    from agent.cli.client import Client
    from agent.config.config import Config


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Works, but look at it."""
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    """Name of the check; "" = the name of the one that is run."""
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


@dataclass(frozen=True, slots=True)
class Installation:
    """The settings and the agent that the checks look at."""

    config: "Config"
    client: "Client"
    file: Path | None
    """The file of the settings; None: there is none."""
    running: Counter[str]
    """The agent's instances by engine; empty where no agent answers."""

    @property
    def state(self) -> Path:
        return self.config.agent.state_path

    @property
    def installed(self) -> bool:
        """True where scripts/install or the package put the program."""
        return self.state == INSTALLED_STATE
