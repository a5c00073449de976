"""What messages count, on /metrics and for the doctor: numbers, no chat and no text."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.core.model import InstanceId
from agent.messages.outbox import OutMessage
from agent.messages.outcomes import State
from agent.messages.sending import Counts, Sending
from agent.wings.messages.doctor import examine_outbox
from agent.wings.messages.metrics import BOUNDS, OutboxMetrics
from agent.wings.messages.part import MessagesPart
from tests.fakes.messages import FakeMessages
from tests.fakes.supervisor import FakeKeys, FakeSupervisor, make_view

A, B = InstanceId("a"), InstanceId("b")
ROW = OutMessage(1, "out_1", A, 0.0, "", "1", "1", "text", State.ACCEPTED, 0.0, 0.0, 0.0)


def part_of(folder: Path) -> MessagesPart:
    supervisor, reader = FakeSupervisor(), FakeMessages().reader
    supervisor.known |= {id: make_view(id) for id in (A, B)}
    sending = Sending(folder, supervisor, FakeKeys(), supervisor.bus, reader)
    return MessagesPart(reader, sending, supervisor.views)


def test_every_session_has_its_counts_from_the_first_moment(tmp_path: Path) -> None:
    part = part_of(tmp_path)
    lines = "".join(text for _, text in part.samples()).splitlines()
    for id in (A, B):
        for state in ("sent", "failed", "expired", "cancelled", "unknown"):
            assert f'wa_outbox_messages_total{{session="{id}",state="{state}"}} 0' in lines
    assert 'wa_outbox_waiting{session="a"} 0' in lines
    assert 'wa_outbox_failed_total{reason="unknown"} 0' in lines


def test_an_end_counts_by_its_kind_and_what_was_sent_by_its_time(tmp_path: Path) -> None:
    part, metrics = part_of(tmp_path), OutboxMetrics()
    part.sending.counts[A] = Counts()
    for state, reason, age in (
        (State.SENT, "", 0.4),
        (State.SENT, "", 40.0),
        (State.SENT, "", -10.0),  # the clock was set back
        (State.FAILED, "refused", 100.0),
        (State.UNKNOWN, "unknown", 100.0),
    ):
        part.sending.counts[A].ended[state] += 1
        metrics.note(replace(ROW, accepted_wall=time.time() - age), state, reason)
    samples = metrics.samples(part.sending, (A, B))
    lines = "".join(text for _, text in samples).splitlines()
    assert 'wa_outbox_messages_total{session="a",state="sent"} 3' in lines
    assert 'wa_outbox_messages_total{session="a",state="unknown"} 1' in lines
    assert 'wa_outbox_failed_total{reason="refused"} 1' in lines
    assert 'wa_outbox_failed_total{reason="unknown"} 1' in lines
    assert [line.rpartition(" ")[2] for line in lines if "_bucket" in line] == [
        *("2", "2", "2", "3", "3", "3", "3"),
    ]
    assert len(BOUNDS) <= 8
    assert part.figures().failed == {A: 2}, "one that may have gone out counts for the trouble"


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
