"""Whom a message may go to is known before it is accepted."""

import pytest

from agent.engines.whatsapp import chat_of, check_receiver, is_answerable
from agent.errors import InvalidRequest


@pytest.mark.parametrize(
    ("to", "taken", "chat"),
    [
        ("+55 11 77777-7777", "+55 11 77777-7777", "5511777777777"),
        ("5511777777777@s.whatsapp.net", "5511777777777@s.whatsapp.net", "5511777777777"),
        ("5511777777777_1:3@c.us", "5511777777777@c.us", "5511777777777"),
        ("99900011:4@lid", "99900011@lid", "99900011@lid"),
        ("49151123-1500@g.us", "49151123-1500@g.us", "49151123-1500@g.us"),
        (" 4915112345678 ", "4915112345678", "4915112345678"),
        ("+49 (0)151 12345678", "+49 (0)151 12345678", "4915112345678"),
        ("0049 151 12345678", "0049 151 12345678", "4915112345678"),
    ],
)
def test_a_receiver_is_taken_without_the_device_that_it_names(to, taken, chat) -> None:
    assert check_receiver(to) == taken
    assert chat_of(to) == chat
    assert is_answerable(to)


@pytest.mark.parametrize(
    "to",
    [
        *("nobody", "123", "4915112345678@x.y", "4915112345678 extra", "1" * 26),
        *("99900011222_1@lid", "0151 12345678", "٤٩١٥١١٢٣٤٥٦٧٨", "4915112345678\n1"),
    ],
)
def test_a_receiver_that_no_engine_could_reach_is_refused_at_once(to: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_receiver(to)
    assert caught.value.field == "to"
    assert "4915112345678" not in str(caught.value)
    assert not is_answerable(to)


@pytest.mark.parametrize("chat", ["49151-1500@broadcast", "120363040000000000@newsletter", ""])
def test_status_posts_lists_and_channels_take_no_answer(chat: str) -> None:
    assert not is_answerable(chat)
