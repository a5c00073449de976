"""The machine of an instance, in a fleet, and the age of a state that it told a while ago."""

from collections.abc import Mapping, Sequence
from typing import Any

from agent.cli.terminal.show import duration

_OLD = 15.0
"""Seconds: a machine that lives tells each change sooner."""

Instance = Mapping[str, Any]


def in_fleet(instances: Sequence[Instance]) -> bool:
    return any(instance.get("machine") for instance in instances)


def age_words(instance: Instance) -> str:
    """ "" for a state of now, and without a fleet."""
    age = instance.get("as_of_seconds") or 0.0
    if age < _OLD:
        return ""
    return f"as of {duration(age)} ago"


def stored_lines(answer: Mapping[str, Any]) -> list[str]:
    """What to say of a command that waits for the owner; empty for every other answer."""
    if "command" not in answer:
        return []
    follow = f"look at its end: wa-agent fleet command {answer['command']} --wait"
    return [str(answer["sentence"]), follow]
