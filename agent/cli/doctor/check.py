"""A check of the doctor, and the one way in which checks are run. Each room brings its own list."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.doctor.findings import Finding, Level

if TYPE_CHECKING:
    from agent.cli.client import Client
    from agent.config.config import Config

Found = Finding | Iterable[Finding]


@dataclass(frozen=True, slots=True)
class Installation:
    """What the checks look at."""

    config: "Config"
    client: "Client"
    file: Path | None
    """The file of the settings; None: there is none."""
    running: Counter[str]
    """The agent's instances by engine; empty where no agent answers."""


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    run: Callable[[Installation], Found]
    cure: str = ""
    """The advice of its findings that bring none."""

    def findings(self, here: Installation) -> Iterator[Finding]:
        found = self.run(here)
        for finding in (found,) if isinstance(found, Finding) else found:
            cure = "" if finding.level is Level.OK else self.cure
            yield replace(finding, check=finding.check or self.name, advice=finding.advice or cure)


def run_checks(checks: Iterable[Check], here: Installation) -> Iterator[Finding]:
    for check in checks:
        yield from check.findings(here)
