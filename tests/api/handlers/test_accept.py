"""The small parts: the Accept header, the Host header."""

import pytest

from agent.api.handlers.accept import choose_form
from agent.api.http.guard import host_name


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "a/json"),
        ("a/png;q=0, a/json", "a/json"),
        ("*/*;q=0.1, a/png;q=0.2", "a/png"),
        ("x/y", None),
        ("a/png;q=nonsense", None),
        (";;,,;q=", None),
    ],
)
def test_the_most_wanted_form_is_chosen(accept: str, expected: str | None) -> None:
    assert choose_form(accept, ("a/json", "a/png")) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost:1", "localhost"),
        ("[::1]:80", "::1"),
        ("a@b", None),
        ("a?b", None),
        ("[::1", None),
    ],
)
def test_a_host_header_is_a_name_and_nothing_else(host: str, expected: str | None) -> None:
    assert host_name(host) == expected
