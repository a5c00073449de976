"""What was too much to be told one by one keeps its counts, and its senders."""

from typing import Any

from agent.config.config import Config
from agent.core.model import Happening, Instance, InstanceId, SessionRecord
from agent.core.rates import LeftOut
from agent.supervise.facts import Facts
from agent.supervise.passes.findings import Findings
from agent.supervise.settings import Settings

SENT = {"direction": "out", "type": "text"}


def fresh() -> Facts:
    return Facts(Instance(InstanceId("a"), "baileys", True), SessionRecord(paired=True))


def tell(facts: Facts, *happenings: Happening) -> Facts:
    findings = Findings(Settings(Config()))
    for happening in happenings:
        findings.note(facts, happening)
    return facts


def sums(*happenings: Happening) -> Happening:
    left_out = LeftOut()
    for happening in happenings:
        left_out.add(happening)
    return left_out.told()


def came(peer: str = "", **more: Any) -> Happening:
    return Happening("message", {"direction": "in", "type": "text", "peer": peer, **more})


def test_sums_count_as_much_as_each_one_told_alone() -> None:
    burst = [
        *(came(f"{number}") for number in range(700)),
        *(came(f"{number}", type="ciphertext") for number in range(3)),
        *[Happening("message", SENT)] * 5,
        *[Happening("ack", {"id": "1"})] * 4,
        *[Happening("crypto_error", {"text": "Bad MAC", "peer": "9"})] * 2,
        Happening("read_later", {"id": "7"}),
    ]
    alone, together = tell(fresh(), *burst), tell(fresh(), sums(*burst))
    assert together.counters.messages == alone.counters.messages
    assert together.counters.messages == {"in": 703, "out": 5, "ack": 4, "failed": 0}
    assert together.counters.errors == alone.counters.errors
    (read,) = together.crypto.messages
    assert read[1] == 701 and together.inbound.last_wall


def test_a_sender_that_was_read_in_a_burst_proves_its_keys() -> None:
    facts = fresh()
    for id in "123":
        tell(facts, Happening("crypto_error", {"text": "Bad MAC", "peer": "1551_1", "id": id}))
    tell(facts, sums(came("other"), came("551", alias="1551_1", group="g@g.us")))
    assert facts.crypto.errors, "a message to a group proves nothing of these"
    tell(facts, sums(*[came("other")] * 90, came("551", alias="1551_1")))
    assert not facts.crypto.errors


def test_sums_that_are_none_count_nothing() -> None:
    counts = {"message_in": "5", "ack": -3, "error": 1.5}
    detail: dict[str, Any] = {"counts": counts, "readable": True, "senders": [7]}
    facts = tell(fresh(), Happening("left_out", detail))
    assert not facts.counters.messages.total() and not facts.counters.errors.total()
