"""Tables: what the server's words mean, without a server."""

from typing import Any

import pytest

from agent.core.model import ConnectionStatus
from agent.engines.evolution.answers import (
    read_shown,
    read_state,
    refusal,
    refusal_words,
    server_fault,
)
from agent.engines.evolution.claims import Facts, Live, claim_of, disagreement
from agent.engines.evolution.proof import Proof, read_proof
from agent.engines.evolution.rows import Row, Rows, read_rows
from agent.engines.evolution.settings import Pace
from agent.engines.evolution.view import SessionView
from agent.engines.evolution.webhook.hooks import HookEvent
from agent.engines.remote.answers import Answer, texts_of

Status = ConnectionStatus
OPEN_ROW = Row("a", "open", "5511999990000")


def row(status: str, code: int | None = None, at: float = 0.0, text: str = "") -> Row:
    return Row("a", status, "5511999990000", code, text, at)


@pytest.mark.parametrize(
    ("facts", "status", "reason"),
    [
        pytest.param(Facts(Live.OPEN), "CONNECTED", "", id="open"),
        pytest.param(Facts(Live.MISSING), "INITIALIZING", "", id="missing at one look"),
        pytest.param(Facts(Live.MISSING, gone=True), "DISCONNECTED", "remote_missing", id="gone"),
        pytest.param(Facts(Live.UNLOADED), "INITIALIZING", "", id="the process is loading"),
        pytest.param(Facts(Live.REFUSED), "QR_REQUIRED", "qr_idle", id="the last code"),
        pytest.param(Facts(Live.CONNECTING, code_shown=True), "QR_REQUIRED", "", id="a code"),
        pytest.param(Facts(Live.CONNECTING, blank_for=9), "INITIALIZING", "", id="on its way"),
        pytest.param(
            Facts(Live.CONNECTING, blank_for=26), "INITIALIZING", "", id="no code is no word"
        ),
        pytest.param(
            Facts(Live.CONNECTING, blank_for=900, paired=True), "INITIALIZING", "", id="reconnects"
        ),
        pytest.param(
            Facts(Live.CONNECTING, row("close", 405, 9.0), paired=True),
            "DISCONNECTED",
            "client_outdated",
            id="405 in the row",
        ),
        pytest.param(
            Facts(Live.CONNECTING, row("close", 405, 9.0), paired=True, open_until=10.0),
            "INITIALIZING",
            "",
            id="405 in the row, and open since",
        ),
        pytest.param(Facts(Live.CLOSE), "INITIALIZING", "", id="closed, its cause is unknown"),
        pytest.param(
            Facts(Live.CLOSE, None, True), "DISCONNECTED", "connection_closed", id="not listed"
        ),
        pytest.param(
            Facts(Live.CLOSE, row("open"), True),
            "DISCONNECTED",
            "connection_closed",
            id="the process lost it",
        ),
        pytest.param(
            Facts(Live.CLOSE, row("close", 401, 9.0), True), "DISCONNECTED", "logout", id="401"
        ),
        pytest.param(
            Facts(Live.CLOSE, row("close", 406, 9.0), True, open_until=9.0),
            "DISCONNECTED",
            "connection_closed",
            id="an old 406",
        ),
        pytest.param(
            Facts(Live.CLOSE, row("connecting", 401, 9.0), True),
            "QR_REQUIRED",
            "qr_idle",
            id="a code was shown after a 401",
        ),
        pytest.param(
            Facts(Live.CLOSE, row("close", 408, 9.0, "QR refs attempts ended"), True),
            "QR_REQUIRED",
            "qr_idle",
            id="2.4 stops on 408: no scan came",
        ),
        pytest.param(
            Facts(Live.CLOSE, row("close", 408, 9.0, "Connection was lost"), True),
            "DISCONNECTED",
            "connection_lost",
            id="2.4 stops on 408: lost",
        ),
        pytest.param(
            Facts(Live.CLOSE, row("close", 401, 9.0), True, ended="banned"),
            "DISCONNECTED",
            "banned",
            id="the webhook knew better",
        ),
    ],
)
def test_claims(facts: Facts, status: str, reason: str) -> None:
    claim = claim_of(facts, blank_limit=25.0)
    assert (claim.status, claim.reason) == (Status(status), reason)
    assert (claim.proof_age is not None) == (facts.live is Live.OPEN)


@pytest.mark.parametrize(
    ("live", "there", "found"),
    [
        (Live.OPEN, OPEN_ROW, ""),
        (Live.OPEN, row("close"), "the server's list says close and the session is open"),
        (Live.OPEN, None, "the session is open and the server's list does not show it"),
        (Live.CLOSE, OPEN_ROW, "the server's list says open and the session is close"),
        (Live.MISSING, None, ""),
        (Live.MISSING, OPEN_ROW, "the server's list shows a session that it does not have"),
        (Live.UNLOADED, None, "the server's database holds the session and its process does not"),
        (Live.OPEN, Row("a", "close", live=True), ""),
    ],
)
def test_disagreements(live: Live, there: Row | None, found: str) -> None:
    assert disagreement(live, there) == found


def test_a_disagreement_counts_from_the_second_time_on() -> None:
    view = SessionView(Pace(), lambda: 1000.0)
    view.note_live(Live.OPEN)
    assert view.compare(row("close"), 0.0) is None, "the first time it may be behind"
    assert view.compare(row("close"), 1.0) is None, "a list older than the state says nothing"
    assert view.compare(row("close"), 0.0)
    assert view.compare(OPEN_ROW, 0.0) == ""
    assert view.compare(row("close"), 0.0) is None


def test_a_code_grows_old_and_keeps_its_number() -> None:
    now = 1000.0
    view = SessionView(Pace(), lambda: now)
    for text, count in (("2@a", 1), ("2@a", 1), ("2@b", 2)):
        view.note_shown(read_shown({"code": text, "count": count, "pairingCode": None}))
    qr = view.qr()
    assert qr is not None
    assert (qr.text, qr.number, qr.expires_in) == ("2@b", 2, 45.0)
    now += 44
    assert view.can_show_code() == "yes"
    now += 2
    assert view.qr() is None
    assert view.can_show_code() == "no"


def test_a_logout_that_follows_a_ban_keeps_the_ban_and_unpairs() -> None:
    view = SessionView(Pace())
    view.note_live(Live.OPEN)
    told = {"instance": "a", "status": "closed", "disconnectionReasonCode": 402}
    assert view.note_event(HookEvent("STATUS_INSTANCE", "a", 0.0, told))
    assert view.note_event(HookEvent("LOGOUT_INSTANCE", "a", 0.0, None))
    assert (view.claim().reason, view.paired) == ("temporary_ban", False)


ROW: dict[str, Any] = {
    "name": "a",
    "connectionStatus": "close",
    "ownerJid": "5511999990000:7@s.whatsapp.net",
    "disconnectionReasonCode": 401,
    "disconnectionAt": "2026-01-15T10:00:00.000Z",
    "disconnectionObject": '{"error":{"output":{"payload":{"message":"Connection Failure"}}}}',
    "updatedAt": "2026-01-15T10:00:01.000Z",
    "token": "T0KEN-OF-A",
}


def test_a_row_of_2x_is_read_without_its_token() -> None:
    rows = read_rows([ROW])
    assert rows is not None
    found = rows.by_name["a"]
    assert found.account == "5511999990000"
    assert (found.code, found.text) == (401, "Connection Failure")
    assert found.updated_wall - found.closed_wall == 1.0
    assert not rows.old
    assert "T0KEN" not in repr(rows)
    assert [each.account for each in rows.sessions()] == ["5511999990000"]


def test_rows_of_1_8_are_nested() -> None:
    inner = {"instanceName": "a", "owner": "5511999990000@s.whatsapp.net", "status": "open"}
    for body in ([{"instance": inner}], {"instance": inner}):
        assert read_rows(body) == Rows(
            {"a": Row("a", "open", "5511999990000", live=True)}, old=True
        )


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
    ],
)
def test_a_body_that_is_no_list_has_no_rows(body: Any) -> None:
    assert read_rows(body) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"disconnectionAt": "yesterday", "updatedAt": 7},
        {"disconnectionObject": "{" * 2000},
        {"ownerJid": 7, "connectionStatus": None, "disconnectionReasonCode": True},
    ],
)
def test_a_row_that_is_odd_harms_no_other(wrong: dict[str, Any]) -> None:
    rows = read_rows([{**ROW, **wrong}, None, {**ROW, "name": "b"}])
    assert rows is not None
    assert rows.by_name["b"].code == 401


@pytest.mark.parametrize(
    ("body", "state"),
    [
        ({"instance": {"state": "open"}}, Live.OPEN),
        ({"instance": {"instanceName": "a"}}, Live.UNLOADED),
        ({"instance": {"state": "missing"}}, None),
        ({"instance": None}, None),
    ],
)
def test_states(body: Any, state: Live | None) -> None:
    assert read_state(body) is state


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (401, {"response": {"message": "Unauthorized"}}, "refused_key"),
        (503, {"error": "service not activated", "code": "LICENSE_REQUIRED"}, "licence_missing"),
        (503, {"message": "busy"}, "failing"),
        (404, {"response": {"message": ["Cannot GET /x"]}}, "not_found"),
        (404, {"response": {"message": ['The "a" instance does not exist']}}, None),
        (500, {"response": {"message": "boom"}}, None),
        (200, {"error": True}, None),
    ],
)
def test_which_answers_speak_of_the_whole_server(
    status: int, body: Any, reason: str | None
) -> None:
    found = server_fault("ask", Answer(status, body, 0.1))
    assert (found.reason if found is not None else None) == reason


def test_refusals_are_shown_without_secrets() -> None:
    message = [["Invalid token B6D711FCDE4D4FD5936544120E713976 of +55 11 98888-7777"]]
    error = refusal("create a", Answer(400, {"response": {"message": message}}, 0.1))
    assert str(error) == "cannot create a: Invalid token … of …"
    assert str(refusal("create a", Answer(418, None, 0.1))) == "cannot create a: it answers 418"
    assert refusal_words({"response": {"message": [[[[["too deep"]]]]]}}) == ""


def test_a_refusal_that_repeats_the_request_shows_nothing_of_it() -> None:
    said = [*texts_of({"number": "5511988887777", "textMessage": {"text": "the secret text"}})]
    words = "apikey k-1 is wrong for 5511988887777, said 'the secret text'"
    answer = Answer(400, {"response": {"message": [words]}}, 0.1, ("k-1", *said))
    assert str(refusal("send", answer)) == "cannot send: apikey … is wrong for …, said '…'"


@pytest.mark.parametrize(
    ("status", "message", "proof"),
    [
        (200, None, Proof.ALIVE),
        (500, ["Error updating profile name", "Error: Connection Closed"], Proof.DEAD),
        (500, ["Error updating profile name", "Error: Timed Out"], Proof.DEAD),
        (500, ["x", "TypeError: Cannot read properties of undefined"], Proof.DEAD),
        (500, ["Error updating profile name", "Error: item-not-found"], Proof.ALIVE),
        (400, ["Method not available on WhatsApp Business API"], Proof.UNKNOWN),
    ],
)
def test_proofs(status: int, message: Any, proof: Proof) -> None:
    assert read_proof(Answer(status, {"response": {"message": message}}, 0.1)) is proof


def test_a_code_that_is_gone_was_scanned_only_where_the_keys_have_an_account() -> None:
    now = 1000.0
    view = SessionView(Pace(), lambda: now)
    view.note_created()
    view.note_live(Live.CONNECTING)
    view.note_shown(read_shown({"code": "2@a"}))
    assert view.claim().status is Status.QR_REQUIRED
    assert not view.doubts_pairing(now=False)
    now += Pace().code_holds
    view.note_live(Live.CONNECTING)
    assert view.doubts_pairing(now=False)
    assert not view.doubts_pairing(now=False), "once for each code"
    view.note_account(has=False)
    assert (view.claim().phase, view.unpaired) == ("", True)
    now += Pace().blank_limit
    view.note_shown(read_shown({"code": "2@a"}))
    assert view.claim().guess == "client_outdated", "it hangs; the server goes on showing the code"
    view.note_account(has=True)
    claim = view.claim()
    assert (claim.status, claim.phase, claim.guess) == (Status.INITIALIZING, "pairing", "")
    assert view.refuse_login(), "it may have a pairing now"
    view.note_row(row("connecting"))
    assert not view.unpaired, "the row has not heard of the scan"
    view.note_shown(read_shown({"code": "2@b"}))
    assert view.claim().status is Status.QR_REQUIRED
    view.note_live(Live.OPEN)
    assert view.claim().status is Status.CONNECTED
