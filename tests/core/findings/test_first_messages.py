"""Counting the first messages of a session that was moved in."""

from agent.core.first_messages import (
    FIRST,
    WITHIN,
    FirstMessages,
    end_in_time,
    note_read,
    note_unread,
    read_stored,
    shown,
    stored,
)


def after(*happenings: str) -> FirstMessages:
    """`+7`: message 7 was read; `-7`: it could not be."""
    first = FirstMessages()
    for at, happening in enumerate(happenings):
        note = note_read if happening[0] == "+" else note_unread
        first = note(first, happening[1:], 1000.0 + at)
    return first


def test_ten_messages_that_are_read_are_the_proof() -> None:
    first = after(*(f"+{id}" for id in range(FIRST)))
    assert (first.over, first.read, first.sentence) == (
        True,
        10,
        "moved in; 10 of its first 10 messages read",
    )
    assert note_read(first, "more", 1.0) is first
    assert note_unread(first, "more", 1.0) is first


def test_a_message_that_is_sent_again_counts_once() -> None:
    first = after("-0", "-0", *(f"+{id}" for id in range(FIRST)))
    assert (first.over, first.read, first.repeated, first.unread) == (True, 9, 1, ())
    assert first.sentence.endswith("10 messages read, 1 of them when they were sent again")


def test_unread_messages_are_waited_for_and_then_reported() -> None:
    first = after("-0", *(f"+{id}" for id in range(1, FIRST)), "-later")
    assert (first.over, first.came, first.unread) == (False, 10, ("0",))
    assert first.sentence.endswith("9 of its first 10 messages read so far")
    assert end_in_time(first, first.since_wall + WITHIN - 1) is first
    ended = end_in_time(first, first.since_wall + WITHIN)
    assert (ended.over, ended.sentence) == (True, "moved in; 9 of its first 10 messages read")
    assert shown(ended) == {
        "read": 9, "repeated": 0, "unread": 1, "over": True, "sentence": ended.sentence,
    }  # fmt: skip


def test_the_record_keeps_it() -> None:
    first = after("-0", "+1")
    assert read_stored(stored(first)) == first
    assert (stored(None), read_stored(""), shown(None)) == ("", None, None)
    for damaged in ("{", "[]", '{"unread": 1}', '{"unread": [], "of_a_newer_version": 1}'):
        assert read_stored(damaged) is None
