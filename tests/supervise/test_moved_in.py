"""The first messages of a session that was moved in, from what its worker tells to the history."""

from typing import Any

from agent.config import Config
from agent.core.findings.first_messages import WITHIN, FirstMessages, read_stored, stored
from agent.core.model import (
    Happening,
    Instance,
    InstanceId,
    SessionRecord,
)
from agent.supervise.facts import Facts
from agent.supervise.passes.findings import Findings
from agent.supervise.settings import Settings
from agent.supervise.story import is_trouble
from tests.supervise.test_remember import recorder

BAD_MAC = {"text": "Bad MAC", "peer": "5511900000002"}


def moved_in(first: FirstMessages | None) -> Facts:
    record = SessionRecord(paired=True, first_messages=stored(first))
    facts = Facts(Instance(InstanceId("a"), "baileys", True), record)
    facts.first_messages = first
    return facts


def tell(facts: Facts, kind: str, **detail: Any) -> bool:
    return Findings(Settings(Config())).note(facts, Happening(kind, detail))


def learn(facts: Facts, now_wall: float = 0.0) -> list[Any]:
    return recorder()._note_first_messages(facts, now_wall)


def test_first_messages_from_an_engine_are_counted_and_reported_once() -> None:
    facts = moved_in(FirstMessages())
    tell(facts, "crypto_error", id="a", **BAD_MAC)
    tell(facts, "message", direction="in", type="ciphertext", id="b")
    tell(facts, "message", direction="out", type="text", id="c")
    assert facts.first_messages is not None
    assert facts.first_messages.unread == ("a", "b")
    assert learn(facts) == []
    assert read_stored(facts.record.first_messages) == facts.first_messages
    tell(facts, "message", direction="in", type="text", id="a")
    tell(facts, "read_later", id="b")
    done = [tell(facts, "message", direction="in", type="text", id=str(n)) for n in range(8)]
    assert done == [False] * 7 + [True], "the last one asks for a pass"
    (told,) = learn(facts)
    assert (told.kind, told.detail, is_trouble(told)) == (
        "first_messages", {"read": 8, "unread": 0}, False,
    )  # fmt: skip
    assert "2 of them when they were sent again" in told.sentence
    assert learn(facts) == []


def test_a_message_that_stays_unread_is_a_warning() -> None:
    facts = moved_in(FirstMessages(unread=("a",), since_wall=1000.0))
    assert learn(facts, 1000.0 + WITHIN - 1) == []
    (told,) = learn(facts, 1000.0 + WITHIN)
    assert (told.detail["unread"], is_trouble(told)) == (1, True)
