"""The journal entries of a session, and which of them the log has as warnings."""

import asyncio
import logging
import time
from typing import Any

from agent.core.model import Category, ConnectionStatus, Health, JournalEntry
from agent.core.reasons import REASONS, Permanence, reason_of
from agent.log import bound
from agent.store.database import Store
from agent.supervise.facts import Facts

SESSION_CIRCUIT_OPEN, SESSION_CIRCUIT_CLOSED = "session_circuit_open", "session_circuit_closed"
"""Kinds of journal entries about a session's circuit; a backend's has its own."""

_PERSISTENT = frozenset(
    {Permanence.AT_TIME, Permanence.PROBE_SLOWLY, Permanence.WAIT_FOR_PERSON, Permanence.NEVER}
)
_BAD_VERDICTS = (Health.STUCK, Health.CORRUPTED)
_MEANT = frozenset({"stopped", "disabled", "masked", "waiting_for_scan", "qr_idle"})
"""A session that is down for one of these is down on purpose, or shows a code."""


def entry(
    facts: Facts, kind: str, sentence: str, category: Category = Category.SESSION, **detail: Any
) -> JournalEntry:
    return JournalEntry(kind, sentence, category, facts.id, time.time(), detail)


def is_trouble(entry: JournalEntry) -> bool:
    """Whether the log has it as a warning: a session goes down, is stuck, banned, given up,
    loses what arrives, or its circuit opens."""
    failed = entry.detail.get("ok") is False
    if failed or entry.kind in (SESSION_CIRCUIT_OPEN, "not_kept", "kept_aside", "folder_newer"):
        return True
    reason = str(entry.detail.get("reason", ""))
    if entry.kind == "status":
        down = (
            entry.detail.get("before") == ConnectionStatus.CONNECTED or reason_of(reason).hopeless
        )
        return down and reason not in _MEANT and not entry.detail.get("asked")
    if entry.kind == "verdict":
        bad = entry.detail.get("verdict") in _BAD_VERDICTS
        lasts = reason in REASONS and reason_of(reason).permanence in _PERSISTENT
        return bad or (lasts and reason not in _MEANT)
    return False


def tell(entry: JournalEntry) -> None:
    level = logging.WARNING if is_trouble(entry) else logging.INFO
    bound(entry.category, entry.instance, __name__).log(level, "%s", entry.sentence)


class Notes:
    """Writes journal entries without waiting, with the next commit."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._under_way: set[asyncio.Future[list[JournalEntry]]] = set()

    def write(self, said: JournalEntry) -> "asyncio.Future[list[JournalEntry]]":
        task = asyncio.ensure_future(self._store.append(said))
        self._under_way.add(task)
        task.add_done_callback(self._written)
        return task

    def _written(self, task: "asyncio.Future[list[JournalEntry]]") -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            bound(Category.SYSTEM).error("cannot write history: %s", error)
