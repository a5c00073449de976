"""What an engine's refusal means for a message, and where an acknowledgement moves it."""

import itertools

import pytest

from agent.wings.messages.out.states import (
    MOST_TRIES,
    Judgement,
    Pace,
    State,
    after_ack,
    judge,
    next_try,
)


@pytest.mark.parametrize(
    ("code", "words", "tries", "expected"),
    [
        ("invalid_request", "", 1, Judgement.FINAL),
        ("not_supported", "", 1, Judgement.FINAL),
        ("file_too_large", "", 1, Judgement.FINAL),
        ("number_unknown", "", 1, Judgement.FINAL),
        ("refused", "WhatsApp refused the message with error 479", 1, Judgement.FINAL),
        ("refused", "WhatsApp refused the message with error 463", 1, Judgement.SESSION),
        ("not_connected", "", 50, Judgement.SESSION),
        ("not_running", "", 1, Judgement.SESSION),
        ("stopping", "", 1, Judgement.SESSION),
        ("other_account", "", 1, Judgement.SESSION),
        ("unknown_outcome", "", 1, Judgement.UNKNOWN),
        ("not_sent", "", 1, Judgement.AGAIN),
        ("not_sent", "", MOST_TRIES, Judgement.FINAL),
        ("url_unreachable", "", MOST_TRIES, Judgement.FINAL),
        ("media_not_taken", "", MOST_TRIES, Judgement.AGAIN),
        ("browser_gone", "", 99, Judgement.AGAIN),
    ],
)
def test_a_refusal_ends_a_message_only_where_it_is_about_the_message(
    code: str, words: str, tries: int, expected: Judgement
) -> None:
    assert judge(code, words, tries) is expected


def test_an_acknowledgement_moves_a_message_forward_only() -> None:
    order = (State.SENT, State.DELIVERED, State.READ, State.PLAYED)
    words = ("server", "delivered", "read", "played")
    for before, word in itertools.product(order, words):
        reached = order[max(order.index(before), words.index(word))]
        assert after_ack(before, word) is reached
    for ended in (State.FAILED, State.EXPIRED, State.CANCELLED, State.ACCEPTED):
        for word in (*words, "error", "clock", ""):
            assert after_ack(ended, word) is ended
    assert after_ack(State.SENT, "error") is State.FAILED
    assert after_ack(State.DELIVERED, "error") is State.DELIVERED


def test_waits_grow_to_their_longest_and_part_by_chance() -> None:
    pace = Pace()
    waits = [next_try(tries, pace.longest, pace, 1.0) for tries in range(1, 12)]
    assert waits[:4] == [2, 4, 8, 16]
    assert waits == sorted(waits)
    assert waits[-1] == pace.longest
    assert next_try(3, pace.longest, pace, 0.0) == 4
