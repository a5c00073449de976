"""What to do about each alert: the README's paragraphs, for whoever is notified.

One text for all of them: the README is laid beside this module when the program is installed.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from agent.core.alerts.alert import Alert

_PARAGRAPH = re.compile(r"^### (Wa\w+)\n(.*?)(?=^##|\Z)", re.DOTALL | re.MULTILINE)
_ID = re.compile(r"\bID\b")
"""Stands for the instance in the paragraphs' commands."""


@cache
def paragraphs() -> Mapping[str, str]:
    """By the alert's name, each on one line; commands stand in `backquotes`."""
    try:
        text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    except OSError:  # a copy of the code alone
        return {}
    return {name: " ".join(said.split()) for name, said in _PARAGRAPH.findall(text)}


def what_to_do(alert: Alert, session: str = "") -> str:
    """Its paragraph, with the commands for this session where it is about one."""
    said = paragraphs().get(alert.name, "")
    # As a function: a session's name is no pattern.
    return _ID.sub(lambda _: session, said) if session else said


def link(alert: Alert, page: str) -> str:
    return f"{page}#{alert.anchor}"
