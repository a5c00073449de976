"""What to do about each alert: the paragraphs of runbook.md, by the alert's name."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from agent.core.alerts.alert import Alert

_ID = re.compile(r"\bID\b")
"""Stands for the instance in the paragraphs' commands."""


@cache
def paragraphs() -> Mapping[str, str]:
    """By the alert's name, each on one line; commands stand in `backquotes`."""
    text = Path(__file__).with_name("runbook.md").read_text(encoding="utf-8")
    sections = text.split("\n## ")[1:]
    return {
        name: " ".join(paragraph.split())
        for name, _, paragraph in (section.partition("\n") for section in sections)
    }


def what_to_do(alert: Alert, session: str = "") -> str:
    """Its paragraph, with the commands for this session where it is about one."""
    said = paragraphs().get(alert.name, "")
    # As a function: a session's name is no pattern.
    return _ID.sub(lambda _: session, said) if session else said


def link(alert: Alert, page: str) -> str:
    """The page's part; where no page can be reached from elsewhere, the command that says it."""
    return f"{page}#{alert.anchor}" if page else f"wa-agent alerts explain {alert.name}"
