"""What the outbox counts, on /metrics and for the doctor: numbers, no chat and no text."""

from datetime import UTC, datetime, timedelta

from agent.core.model import InstanceId
from agent.wings.messages.doctor import examine_outbox
from agent.wings.messages.out.session.figures import (
    BOUNDS,
    OutboxCounts,
    outbox_samples,
)
from agent.wings.messages.out.states import State

A, B = InstanceId("a"), InstanceId("b")


def lines_of(counts: OutboxCounts, waiting=lambda _id: (0, None)) -> list[str]:
    samples = outbox_samples(counts.figures((A, B), waiting))
    return "".join(text for _, text in samples).splitlines()


def test_every_session_has_its_counts_from_the_first_moment() -> None:
    lines = lines_of(OutboxCounts(), lambda id: (2, 5.0) if id == A else (0, None))
    for id in (A, B):
        for state in ("sent", "failed", "expired", "cancelled"):
            assert f'wa_outbox_messages_total{{session="{id}",state="{state}"}} 0' in lines
    assert 'wa_outbox_waiting{session="a"} 2' in lines
    assert 'wa_outbox_oldest_timestamp_seconds{session="a"} 5' in lines
    assert not [line for line in lines if "oldest" in line and '"b"' in line]
    assert 'wa_outbox_failed_total{reason="unknown"} 0' in lines


def test_an_end_counts_by_its_kind_and_what_was_sent_by_its_time() -> None:
    counts = OutboxCounts()
    counts.note(A, State.SENT, "", 100.0, 100.5)
    counts.note(A, State.READ, "", 100.0, 140.0)
    counts.note(A, State.SENT, "", 100.0, 90.0)  # the clock was set back
    counts.note(A, State.FAILED, "refused", 100.0, 200.0)
    counts.note(B, State.EXPIRED, "expired", 100.0, 200.0)
    lines = lines_of(counts)
    assert 'wa_outbox_messages_total{session="a",state="sent"} 3' in lines
    assert 'wa_outbox_messages_total{session="a",state="failed"} 1' in lines
    assert 'wa_outbox_messages_total{session="b",state="expired"} 1' in lines
    assert 'wa_outbox_failed_total{reason="refused"} 1' in lines
    assert [line.rpartition(" ")[2] for line in lines if "_bucket" in line] == [
        *("2", "2", "2", "3", "3", "3", "3"),
    ]
    assert "wa_outbox_acknowledgement_seconds_sum 40.5" in lines
    assert len(BOUNDS) <= 8
    counts.forget(A)
    assert 'wa_outbox_messages_total{session="a",state="sent"} 0' in lines_of(counts)


def test_the_doctor_names_a_session_whose_oldest_message_waits_for_long() -> None:
    now = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)

    def waits(minutes: int) -> dict[str, object]:
        oldest = (now - timedelta(minutes=minutes)).isoformat()
        return {"waiting": 3, "oldest": oldest, "reason": "", "sentence": "why it waits"}

    sessions = [
        {"instance": "shop", "outbox": waits(61)},
        {"instance": "new", "outbox": waits(10)},
        {"instance": "idle", "outbox": {}},
    ]
    (found,) = examine_outbox(sessions, now)
    assert found.level == "note"
    assert found.sentence == "shop has 3 messages to send, the oldest for 1 h 1 min: why it waits"
