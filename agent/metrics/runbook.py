"""The paragraphs of runbook.md and of the wings' runbooks, by the alert's name."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from agent.core.alerts.alert import Alert
from agent.wing import wings

FILE = "runbook.md"
_ID = re.compile(r"\bID\b")
"""The instance in the commands of the paragraphs."""


@cache
def paragraphs() -> Mapping[str, str]:
    """By the alert's name, each on one line; commands stand in `backquotes`."""
    files = [wing.file(FILE) for wing in wings() if wing.alerts]
    texts = [file.read_text(encoding="utf-8") for file in (Path(__file__).with_name(FILE), *files)]
    sections = [section for text in texts for section in text.split("\n## ")[1:]]
    return {
        name: " ".join(paragraph.split())
        for name, _, paragraph in (section.partition("\n") for section in sections)
    }


def what_to_do(alert: Alert, session: str = "") -> str:
    """The alert's paragraph, with the session's id in its commands if it has one."""
    said = paragraphs().get(alert.name, "")
    # A function: a backslash in a name must not be read as a pattern.
    return _ID.sub(lambda _: session, said) if session else said


def link(alert: Alert, page: str) -> str:
    """The address of the alert's paragraph; without a runbook page, the command that prints it."""
    return f"{page}#{alert.anchor}" if page else f"wa-agent alerts explain {alert.name}"
