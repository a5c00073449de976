"""What messages count, on /metrics and for the troubles: numbers, no chat and no text."""

from collections import Counter
from pathlib import Path

from agent.core.model import InstanceId
from agent.messages.outcomes import State
from agent.messages.sending import Counts, Sending
from agent.metrics.family import render
from tests.fakes.messages import FakeMessages
from tests.fakes.supervisor import FakeKeys, FakeSupervisor

A, B = InstanceId("a"), InstanceId("b")


def test_every_session_has_its_counts_from_the_first_moment(tmp_path: Path) -> None:
    supervisor, reader = FakeSupervisor(), FakeMessages().reader
    sending = Sending(tmp_path, supervisor, FakeKeys(), supervisor.bus, reader)

    def lines() -> list[str]:
        return render(sending.families((A, B))).decode().splitlines()

    ended, states = 'wa_outbox_messages_total{session="b",state="%s"} 0.0', "sent failed unknown"
    assert {*map(ended.__mod__, states.split()), 'wa_outbox_waiting{session="a"} 0.0'} <= {*lines()}
    sending.counts[A] = Counts(Counter((State.SENT, State.FAILED, State.UNKNOWN)))
    assert 'wa_outbox_messages_total{session="a",state="unknown"} 1.0' in lines()
    assert sending.failed(A) == 2, "one that may have gone out counts for the trouble"
