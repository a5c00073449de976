"""What messages count, on /metrics and for the troubles: numbers, no chat and no text."""

from collections import Counter
from pathlib import Path

from agent.core.model import InstanceId
from agent.messages.outcomes import State
from agent.messages.sending import Counts, Sending
from agent.metrics.family import render
from tests.fakes.messages import FakeMessages
from tests.fakes.supervisor import FakeKeys, FakeSupervisor

A = InstanceId("a")


def test_every_session_has_its_counts_from_the_first_moment(tmp_path: Path) -> None:
    supervisor, reader = FakeSupervisor(), FakeMessages().reader
    sending = Sending(tmp_path, supervisor, FakeKeys(), supervisor.bus, reader)
    assert 'wa_outbox_waiting{session="a"} 0.0' in render(sending.families((A,))).decode()
    sending.counts[A] = Counts(Counter((State.SENT, State.FAILED, State.UNKNOWN)))
    assert sending.failed(A) == 2, "one that may have gone out counts for the trouble"
