"""What a worker says of the messages it keeps is no error of its session."""

from agent.config import Config
from agent.core.model import Happening, Instance, InstanceId, SessionRecord
from agent.core.words import KEPT
from agent.supervise.facts import Facts
from agent.supervise.passes.findings import WITH_TEXT, Findings, text_entry
from agent.supervise.settings import Settings
from agent.supervise.story import is_trouble


def test_a_word_about_kept_messages_counts_as_no_error() -> None:
    facts = Facts(Instance(InstanceId("a"), "sandbox", True), SessionRecord())
    findings = Findings(Settings(Config()))
    for kind in (KEPT, "not_kept", "kept_again"):
        assert findings.note(facts, Happening(kind, {"cursor": 3, "text": "x"})) is False
    assert not facts.counters.errors


def test_that_messages_cannot_be_kept_is_in_the_history_and_a_warning() -> None:
    facts = Facts(Instance(InstanceId("a"), "sandbox", True), SessionRecord())
    said = text_entry(facts, Happening("not_kept", {"text": "messages cannot be kept: why"}))
    over = text_entry(facts, Happening("kept_again", {"text": "messages are kept again"}))
    assert {"not_kept", "kept_again"} <= set(WITH_TEXT)
    assert (said.kind, said.sentence) == ("not_kept", "messages cannot be kept: why")
    assert is_trouble(said) and not is_trouble(over)
