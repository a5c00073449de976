"""Sessions for tests: one, and what differs from it, whatever part of it holds that."""

from collections import Counter
from copy import copy, deepcopy
from dataclasses import replace
from typing import Any, TypeVar

from agent.core.figures import COUNTS
from agent.core.findings.error_rate import PerMinute
from agent.core.session import Session

T = TypeVar("T", bound=Session)
BOOT = "the boot of the tests"
_RUN = ("claim", "probe", "linked_since", "memory_bytes", "cpu_seconds", "processes", "open_fds")
_FOLDER = {"files": "files", "files_problem": "problem"}
_COUNTERS = ("messages", "errors", "probes", "probe_seconds", "repair_steps")
_WORDS = tuple(row.name for row in COUNTS)


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
    if name in _RUN:
        setattr(it.run, name, value)
    elif name in _FOLDER:
        setattr(it.folder, _FOLDER[name], value)
    elif name in _COUNTERS:
        setattr(it.counters, name, Counter(value) if isinstance(value, dict) else value)
    elif name in _WORDS:
        it.counters.by_word[name].update(value)
    elif name in ("status", "status_since_wall", "not_before_wall"):
        it.record = replace(it.record, **{name: value})
    elif name in ("reason", "sentence"):
        it.verdict = replace(it.verdict, **{name: value})
    elif name == "waits_turn":
        it.turns_before = 0 if value else None
    elif name in ("wait_reason", "wait_sentence"):
        it.wait = replace(it.wait, **{name.removeprefix("wait_"): value})
    elif name == "repair":
        it.repair.last = value
    elif name == "linked":
        it.run.linked_since = 1.0 if value else None
    elif name == "proof_age" and it.run.claim is not None:
        claim = replace(it.run.claim.claim, proof_age=value)
        it.run.claim = replace(it.run.claim, at=it.at, claim=claim)
    elif name == "response_seconds":
        it.counters.answers.append((it.at, value))
    elif name == "messages_per_minute":
        rates = {word: PerMinute(((it.at, count),)) for word, count in value.items()}
        it.counters.per_minute.update(rates)
    elif name == "crypto_operations":
        it.counters.messages["in"] = value.get("ok", 0)
        it.counters.errors["crypto"] = value["failed"]
    else:
        assert hasattr(it, name), name
        setattr(it, name, value)
