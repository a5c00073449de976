"""Claims that follow from each word and each look at the page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.model import ConnectionStatus as Status
from agent.engines.web.view import (
    PageFacts,
    SessionView,
    Story,
    claim_of,
    left_for,
    next_story,
    parse_wall,
    read_fields,
)

NEW, BEFORE = Story(), Story(was_connected=True)


def page(**more: object) -> PageFacts:
    known: dict[str, object] = {"ready": True, "auth": True}
    return PageFacts(**{**known, **more})  # type: ignore[arg-type]


MAIN = page(mode="MAIN", info="NORMAL", socket="CONNECTED", account="55119")
CODE = page(auth=False, mode="QR", info="OPENING", socket="UNPAIRED", qr="2@x,a,b,c")


@pytest.mark.parametrize(
    ("facts", "story", "expected"),
    [
        pytest.param(None, NEW, (Status.INITIALIZING, "", "loaded"), id="no document yet"),
        pytest.param(
            PageFacts(age=26, loaded=True, idle=26),
            NEW,
            (Status.INITIALIZING, "injection_failed", "injected"),
            id="the bundle does not get ready",
        ),
        pytest.param(CODE, NEW, (Status.QR_REQUIRED, "", "login"), id="a code is shown"),
        pytest.param(
            page(auth=False, mode="QR", socket="UNPAIRED_IDLE", qr="2@x"),
            NEW,
            (Status.QR_REQUIRED, "qr_idle", "login"),
            id="the code no longer changes",
        ),
        pytest.param(MAIN, NEW, (Status.CONNECTED, "", ""), id="connected"),
        pytest.param(
            page(mode="QR", info="OPENING", socket="CONNECTED"),
            NEW,
            (Status.LOADING, "", "login"),
            id="main_ready on the code's screen is not logged in",
        ),
        pytest.param(
            page(auth=False, mode="MAIN", info="NORMAL", socket="CONNECTED"),
            NEW,
            (Status.INITIALIZING, "", "login"),
            id="MAIN without a pairing is not connected",
        ),
        pytest.param(
            page(mode="MAIN", info="RESUMING", socket="CONNECTED"),
            BEFORE,
            (Status.RECONNECTING, "connection_lost", ""),
            id="resuming",
        ),
        pytest.param(
            page(mode="MAIN", info="NORMAL", socket="CONNECTED", online=False),
            BEFORE,
            (Status.RECONNECTING, "connection_lost", ""),
            id="the machine is offline",
        ),
        pytest.param(
            page(mode="OFFLINE", socket="OPENING"),
            NEW,
            (Status.INITIALIZING, "connection_lost", "login"),
            id="offline from the start",
        ),
        pytest.param(
            page(mode="MAIN", info="OPENING", socket="OPENING"),
            Story(was_connected=True, passing="service_unavailable_503"),
            (Status.RECONNECTING, "service_unavailable", ""),
            id="WhatsApp is not available",
        ),
        pytest.param(
            page(age=41, socket="CONNECTED"),
            NEW,
            (Status.LOADING, "injection_failed", "login"),
            id="no stream can be read",
        ),
        pytest.param(
            page(mode="OFFLINE", socket="OPENING", update=True, age=30),
            BEFORE,
            (Status.DISCONNECTED, "client_outdated", ""),
            id="nothing goes on without the update",
        ),
        pytest.param(
            MAIN, Story(ended="LOGOUT"), (Status.DISCONNECTED, "logout", ""), id="a logout stays"
        ),
    ],
)
def test_a_look_becomes_a_claim(
    facts: PageFacts | None, story: Story, expected: tuple[Status, str, str]
) -> None:
    claim = claim_of(facts, story)
    assert (claim.status, claim.reason, claim.phase) == expected


@pytest.mark.parametrize(
    ("field", "word", "reason"),
    [
        ("mode", "CONFLICT", "conflict"),
        ("socket", "CONFLICT", "conflict"),
        ("mode", "SMB_TOS_BLOCK", "banned"),
        ("socket", "DEPRECATED_VERSION", "client_outdated"),
    ],
)
def test_a_refusal_counts_wherever_it_is_said(field: str, word: str, reason: str) -> None:
    claim = claim_of(page(**{"mode": "MAIN", "socket": "CONNECTED", field: word}), BEFORE)
    assert (claim.status, claim.reason, claim.paired) == (Status.DISCONNECTED, reason, True)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        pytest.param([("conn.logout", "")], "logout", id="plain"),
        pytest.param(
            [("conn.logout_reason", "account_locked"), ("conn.logout", "")],
            "banned",
            id="with its reason",
        ),
        pytest.param(
            [("conn.logout_reason", "something_new"), ("conn.logout", "")],
            "logout",
            id="with an unknown reason",
        ),
        pytest.param(
            [("backend", "unexpected_logout_modal"), ("conn.logout", "")],
            "banned",
            id="with what the page announced",
        ),
        pytest.param([("backend", "account_temporarily_banned")], "temporary_ban", id="a ban"),
        pytest.param(
            [("backend", "storage_initialization_error")], "storage_failed", id="its store broke"
        ),
    ],
)
def test_words_that_end_a_session(words: list[tuple[str, str]], reason: str) -> None:
    story = BEFORE
    for word, detail in words:
        story = next_story(story, word, detail, None, MAIN)
    claim = claim_of(MAIN, story)
    assert (claim.status, claim.reason) == (Status.DISCONNECTED, reason)


def test_a_connection_makes_an_interruption_forgotten() -> None:
    view = SessionView(pairing_safe=True)
    main = {"ready": True, "auth": True, "mode": "MAIN", "socket": "CONNECTED"}
    away = {**main, "socket": "OPENING"}
    reasons = []
    for word, look in (("socket", main), ("backend", away), ("socket", main), ("socket", away)):
        view.word(word, {"d": "service_unavailable_503", "s": look}, 1.0)
        reasons.append(view.claim.reason)
    assert reasons == ["", "service_unavailable", "", "connection_lost"]


@pytest.mark.parametrize(
    ("address", "ended"),
    [
        ("https://web.whatsapp.com/?post_logout=1", "LOGOUT"),
        ("https://web.whatsapp.com/", ""),
        ("https://web.whatsapp.com/post_logout=1", ""),
    ],
)
def test_the_address_after_a_logout_names_it(address: str, ended: str) -> None:
    assert left_for(BEFORE, address).ended == ended


@pytest.mark.parametrize(
    ("told", "wall"), [(2_000_000_000_000, 2e9), (-5, None), (10**400, None), ("soon", None)]
)
def test_a_ban_s_end_is_seconds_or_milliseconds(told: object, wall: float | None) -> None:
    assert parse_wall(told) == wall


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
        lambda more: st.lists(more) | st.dictionaries(st.sampled_from(PageFacts.__slots__), more),
        max_leaves=20,
    )
)
def test_any_answer_of_a_page_is_read(told: object) -> None:
    facts = read_fields(PageFacts, told)
    if facts is not None:
        claim = claim_of(facts, NEW)
        assert len(claim.account) <= 40 and len(claim.raw) < 200
        assert claim.progress is None or 0 <= claim.progress <= 1
