"""Which of a server's sessions a person means: by what the server calls it, or by its title."""

import pytest

from agent.backends.declared import session_meant
from agent.core.words import RemoteSession
from agent.errors import NotFound, Refused

TITLES = {"7": "Sales", "8": "Desk", "9": "Desk", "Sales-2": ""}
THERE = [RemoteSession(name, title=title) for name, title in TITLES.items()]


@pytest.mark.parametrize(("asked", "meant"), [("7", "7"), ("Sales", "7"), ("Sales-2", "Sales-2")])
def test_a_session_is_found_by_its_name_or_its_title(asked: str, meant: str) -> None:
    assert session_meant("desk", THERE, asked) == meant


def test_two_sessions_of_one_title_are_told_apart_by_their_numbers() -> None:
    with pytest.raises(Refused, match="take one of 8, 9") as caught:
        session_meant("desk", THERE, "Desk")
    assert caught.value.code == "ambiguous"


def test_a_missing_session_is_named_in_the_error() -> None:
    with pytest.raises(NotFound, match="no such session"):
        session_meant("desk", THERE, "")
