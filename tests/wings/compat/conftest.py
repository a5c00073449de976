"""An agent that Evolution's clients may ask, with a session of the sandbox."""

import json
from pathlib import Path
from typing import Any

from tests.daemon.conftest import make_agent
from tests.wings.webhooks.receiver import Receiver

__all__ = ["make_agent"]
HERE = Path(__file__).parent
ON = "\n[compat]\nevolution = true\nanswer = 60\n"
CONTACT = "5511999990000"


def recorded(name: str) -> list[dict[str, Any]]:
    """What a real Evolution 2.3.6 said (scripts/real_evolution/recording.py)."""
    found: list[dict[str, Any]] = json.loads((HERE / "recorded" / f"{name}.json").read_text())
    return found


def hook(target: Receiver, kinds: str = '"*", "message*"') -> str:
    return (
        f'\n[[webhook]]\nname = "bot"\nurl = "{target.url}"\nprivate = true\n'
        f'format = "evolution"\nkinds = [{kinds}]\n'
    )


Shape = set[str]


def shape_of(value: Any, at: str = "") -> Shape:
    """The path of each value in it, with its type: a number in JSON is one whether whole or not."""
    if isinstance(value, dict):
        if value and all(key.isdigit() for key in value):
            return {f"{at}: bytes"}
        found = {path for key, it in value.items() for path in shape_of(it, f"{at}.{key}")}
        return found or {f"{at}: object"}
    if isinstance(value, list):
        return {path for it in value for path in shape_of(it, f"{at}[]")} or {f"{at}[]"}
    if value == "(bytes)":
        return {f"{at}: bytes"}
    kind = "number" if type(value) in (int, float) else type(value).__name__
    return {f"{at}: {kind}"}


def values_of(value: Any, at: str = "") -> dict[str, Any]:
    """Each value in it by its path; bytes are told as such only."""
    if isinstance(value, dict) and value:
        if all(key.isdigit() for key in value):
            return {at: "(bytes)"}
        return {
            path: it for key in value for path, it in values_of(value[key], f"{at}.{key}").items()
        }
    if isinstance(value, list) and value:
        return {path: each for it in value for path, each in values_of(it, f"{at}[]").items()}
    return {at: value}
