"""What the journal says of a session's circuit."""

from agent.core.breaker import BreakerPolicy, breaker_of
from agent.core.model import Category, JournalEntry, SessionRecord
from agent.core.reasons import reason_of
from agent.supervise.facts import Facts
from agent.supervise.story import SESSION_CIRCUIT_CLOSED, SESSION_CIRCUIT_OPEN, entry


def note_circuit(
    facts: Facts, before: SessionRecord, policy: BreakerPolicy, now_wall: float
) -> list[JournalEntry]:
    """Journal entry where its circuit opened or closed since `before`; a failed trial adds none."""
    was, now = (breaker_of(record) for record in (before, facts.record))
    if was.opened_at is None and now.opened_at is not None:
        last = facts.action.refusal or reason_of(facts.record.reason or "unknown").title
        sentence = (
            f"its circuit is open after {now.failures} failures in a row, the last: {last}; one"
            f" trial in {now.opens_in(now_wall, policy):.0f} s, or now: wa-agent recover {facts.id}"
            " (it closes once it connects)"
        )
        category = Category.RECONNECT
        return [entry(facts, SESSION_CIRCUIT_OPEN, sentence, category, failures=now.failures)]
    if was.opened_at is not None and now.opened_at is None:
        sentence = "its circuit is closed again"
        return [entry(facts, SESSION_CIRCUIT_CLOSED, sentence, Category.RECONNECT)]
    return []
