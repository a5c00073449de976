"""Sessions for tests: one, and what differs from it, whatever part of it holds that."""

from collections import Counter
from copy import copy, deepcopy
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from agent.core.figures import PerMinute
from agent.core.model import Override
from agent.core.session import Session

T = TypeVar("T", bound=Session)


class Desired(NamedTuple):
    enabled: bool
    override: Override = Override.NONE


BOOT = "the boot of the tests"


def changed(session: T, **changes: Any) -> T:
    """A copy of the session, with `changes` by the names of its parts' fields."""
    it = copy(session)
    it.run, it.folder, it.repair = copy(it.run), copy(it.folder), copy(it.repair)
    it.counters = deepcopy(it.counters)
    desired = changes.pop("desired", None)
    for name, value in changes.items():
        _change(it, name, value)
    if desired is not None:
        it.instance = replace(it.instance, enabled=desired.enabled)
        it.record = replace(it.record, override=desired.override, override_boot=it.boot)
    return it


def _change(it: Session, name: str, value: Any) -> None:
    words = it.counters.by_word
    if name in ("claim", "linked_since") or hasattr(it.run, name):
        setattr(it.run, name, value)
    elif hasattr(it.folder, name):
        setattr(it.folder, name, value)
    elif hasattr(it.counters, name):
        setattr(it.counters, name, Counter(value) if isinstance(value, dict) else value)
    elif name in words:
        words[name].update(value)
    elif name in ("reason", "sentence"):
        it.verdict = replace(it.verdict, **{name: value})
    elif name in ("wait_reason", "wait_sentence"):
        it.wait = replace(it.wait, **{name.removeprefix("wait_"): value})
    elif name == "repair":
        it.repair = value
    elif hasattr(it.record, name):
        it.record = replace(it.record, **{name: value})
    elif name == "proof_age" and it.run.claim is not None:
        claim = replace(it.run.claim.claim, proof_age=value)
        it.run.claim = replace(it.run.claim, at=it.at, claim=claim)
    elif name == "response_seconds":
        it.counters.answers = ((it.at, value),)
    elif name == "messages_per_minute":
        it.counters.per_minute = {word: PerMinute(((it.at, n),)) for word, n in value.items()}
    else:
        assert hasattr(it, name), name
        setattr(it, name, value)
