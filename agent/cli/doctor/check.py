"""A finding of the doctor: good, to be looked at, or wrong."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config.sections import INSTALLED_STATE

if TYPE_CHECKING:
    from agent.cli.client import Client
    from agent.config.config import Config


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    """Name of the check; "" = the name of the one that is run."""
    level: str
    """ok; note: it works, but look at it; wrong."""
    sentence: str
    advice: str = ""
    """"" with a note or a fault: the check's own cure."""


def ok(sentence: str, *, check: str = "") -> Finding:
    return Finding(check, "ok", sentence)


def note(sentence: str, advice: str = "", *, check: str = "") -> Finding:
    return Finding(check, "note", sentence, advice)


def wrong(sentence: str, advice: str = "", *, check: str = "") -> Finding:
    return Finding(check, "wrong", sentence, advice)


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
