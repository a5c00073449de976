"""Progress of a start, and the judgement of a document: pure, with invented looks."""

import pytest

from agent.core.model import ConnectionStatus as Status
from agent.core.words import Claim
from agent.engines.web.browser.page import network_code
from agent.engines.web.view import LONGEST, Advance, Document, judge_document, read_fields

WANTED = "https://web.whatsapp.com/"
HERE = "https://web.whatsapp.com"


def starting(phase: str, status: Status = Status.INITIALIZING, **more: object) -> Claim:
    return Claim(status, phase=phase, **more)  # type: ignore[arg-type]


def test_a_start_never_goes_back_whatever_its_page_shows_again() -> None:
    advance = Advance(0.0)
    assert advance.forward(starting("injected")).phase == "injected"
    advance.new_document(5.0)
    assert advance.forward(starting("loaded")).phase == "injected"
    login = advance.forward(starting("login", Status.LOADING))
    again = [advance.forward(starting(phase)) for phase in ("loaded", "injected", "login")]
    assert {(each.status, each.phase) for each in again} == {(login.status, login.phase)}


def test_a_connection_ends_a_start_and_the_next_one_begins_from_nothing() -> None:
    advance = Advance(0.0)
    advance.forward(starting("sync", Status.LOADING))
    advance.forward(Claim(Status.CONNECTED))
    assert advance.forward(starting("loaded", Status.RECONNECTING)).phase == "loaded"


def test_bytes_and_modules_are_progress_and_the_same_document_once_more_is_none() -> None:
    advance = Advance(0.0)
    advance.came(1000, 0, 10.0, complete=False)
    assert advance.idle(12.0) == 2.0
    advance.came(1000, 3, 14.0, complete=False)
    assert advance.idle(14.0) == 0.0
    first = advance.forward(starting("injected")).progress
    advance.came(500, 3, 20.0, complete=False)
    advance.came(1000, 3, 21.0, complete=False)
    assert advance.forward(starting("injected")).progress == first
    assert advance.idle(24.0) == 10.0
    advance.came(10**9, 3, LONGEST + 1, complete=True)
    assert advance.forward(starting("injected")).progress == first, "not for ever"


@pytest.mark.parametrize(
    ("told", "idle", "reason"),
    [
        pytest.param({"modules": 40}, 99, "", id="WhatsApp Web"),
        pytest.param({"status": 500}, 0, "page_unusable", id="an HTTP error"),
        pytest.param(
            {"origin": "https://x.example", "complete": True}, 0, "page_unusable", id="elsewhere"
        ),
        pytest.param({}, 24, "", id="still coming"),
        pytest.param({}, 25, "page_unusable", id="half a page"),
        pytest.param(
            {"complete": True, "words": "WhatsApp works with Google Chrome 85+"},
            0,
            "browser_unsupported",
            id="an old browser",
        ),
        pytest.param(
            {"complete": True, "modules": 9, "words": "use Chrome 85"}, 0, "", id="only words"
        ),
    ],
)
def test_a_document_has_its_reason(told: dict[str, object], idle: float, reason: str) -> None:
    document = read_fields(Document, {"status": 200, "origin": HERE, "address": "x/y", **told})
    assert document is not None
    assert judge_document(document, WANTED, idle) == reason


@pytest.mark.parametrize("told", [None, {"status": "500", "title": 1}])
def test_a_description_of_a_document_is_checked(told: object) -> None:
    assert read_fields(Document, told) in (None, Document())


def test_a_title_cannot_write_into_the_log() -> None:
    document = read_fields(Document, {"title": "a\n[ERROR] b" + "x" * 99, "address": "h/p"})
    assert document is not None
    assert "\n" not in document.shown and len(document.title) <= 60


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("net::ERR_CERT_DATE_INVALID", "page_unusable"),
        ("net::ERR_HTTP_RESPONSE_CODE_FAILURE", "page_unusable"),
        ("net::ERR_NAME_NOT_RESOLVED", "page_unreachable"),
    ],
)
def test_the_browsers_word_for_a_failed_load_is_understood(word: str, code: str) -> None:
    assert network_code(word) == code
