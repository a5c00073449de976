"""Names, settings, rows and attribution: the pure parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.model import ConnectionStatus as Status
from agent.core.model import parse_instance_id
from agent.engines.whaticket.contract import PRESETS, Route
from agent.engines.whaticket.keys.peers import Peers, address_of_jid, user_of, with_mapped
from agent.engines.whaticket.keys.removed import safe_name
from agent.engines.whaticket.logs.owner import NoOwner, names_of
from agent.engines.whaticket.rows import Row, claim_of_row, parse_row, parse_rows
from agent.engines.whaticket.settings import Source, read_settings
from agent.engines.whaticket.turns import Turn, read_turn
from agent.engines.whaticket.view import SessionView
from agent.errors import EngineError
from tests.standin.whaticket.keys import file_name

BASE = {"url": "http://127.0.0.1:1", "user": "u", "password": "p"}
OURS = parse_instance_id("shop")


# --- peers -----------------------------------------------------------------------------------

users = st.text("0123456789", min_size=5, max_size=15)
NEVER = [
    "creds",
    "pre-key-12",
    "app-state-sync-key-AAAAAMYx",
    "app-state-sync-version-regular",
    "sender-key-memory-120363@g.us",
    "device-list-5511999990001",
    "lid-mapping-5511999990001",
    "lid-mapping-123_reverse",
    "tctoken-5511999990001@s.whatsapp.net",
]


@given(users, st.sampled_from(["", "_1", "_128", "_129"]), st.integers(0, 99), st.booleans())
def test_all_forms_of_a_users_keys_are_his(user, form, device, as_file):
    address = f"{user}{form}"
    names = [
        f"session-{address}.{device}",
        f"identity-key-{address}.{device}",
        f"sender-key-120363000000000001@g.us::{address}::{device}",
    ]
    for name in names:
        shown = file_name(name).removesuffix(".json") if as_file else name
        assert Peers(frozenset({user})).owns(shown)
        assert not Peers(frozenset({f"{user}0", user[:-1], f"1{user}"})).owns(shown)


@given(users)
def test_pairing_and_prekeys_belong_to_no_peer(user):
    everyone = Peers(frozenset({user, "5511999990001", "123", "12", ""}))
    assert not any(everyone.owns(name) for name in NEVER)


@given(st.text(max_size=60), users)
def test_no_name_belongs_to_a_peer_whose_number_it_does_not_hold(name, user):
    if user not in name:
        assert not Peers(frozenset({user})).owns(name)


@pytest.mark.parametrize(
    ("peer", "user"),
    [
        ("5511999990001", "5511999990001"),
        ("123456789012345_1", "123456789012345"),
        ("5511999990001.12", "5511999990001"),
        ("5511999990001:3@s.whatsapp.net", "5511999990001"),
        ("*", ""),
        ("../x", ""),
    ],
)
def test_a_peer_is_its_user(peer, user):
    assert user_of(peer) == user


@pytest.mark.parametrize(
    ("jid", "address"),
    [
        ("5511999990001:12@s.whatsapp.net", "5511999990001.12"),
        ("123456789012345@lid", "123456789012345_1.0"),
        ("123456789012345:3@hosted.lid", "123456789012345_129.3"),
        ("120363000000000001@g.us", ""),
    ],
)
def test_addresses_of_jids(jid, address):
    assert address_of_jid(jid) == address


def test_mappings_without_a_user_add_no_peer():
    assert with_mapped({"5511"}, ["*", "", None, 3, "998877665544"]).users == {
        "5511",
        "998877665544",
    }


# --- settings --------------------------------------------------------------------------------


def test_no_output_holds_a_password():
    settings = read_settings(
        {
            **BASE,
            "password": "very secret",
            "redis_url": "redis://:hidden@x/1",
            "logs": ["command:tail --password hush"],
        }
    )
    assert settings.own.password == "very secret"
    shown = repr(settings)
    assert "very secret" not in shown
    assert "hidden" not in shown
    assert str(settings.logs[0]) == "command:tail"


def test_routes_of_the_settings_replace_the_presets():
    told = {
        **BASE,
        "preset": "saas",
        "disconnect_route": "post /wa/:whatsappId/stop",
        "disconnect_keeps_pairing": True,
        "send_route": "none",
        "logs": ["pm2:/home/x/.pm2/logs"],
    }
    settings = read_settings(told)
    assert settings.contract.hang_up == Route("POST", "/wa/{id}/stop")
    assert settings.contract.send is None
    assert settings.contract.start == PRESETS["saas"].start
    assert settings.logs == (Source("pm2", "/home/x/.pm2/logs"),)


@given(st.text(max_size=30))
def test_an_id_in_a_path_stays_one_part_of_it(id):
    route = Route("PUT", "/whatsapp/{id}/disconnect")
    if id in ("", ".", ".."):
        return
    path = route.at(id)
    assert path.count("/") == 3
    assert "?" not in path
    assert "#" not in path


@given(st.text(max_size=30))
def test_a_folders_name_leads_nowhere_else(name):
    try:
        safe = safe_name(name)
    except EngineError:
        return
    assert "/" not in safe
    assert safe[0] != "."
    assert safe.isascii()


# --- rows ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "status", "reason"),
    [
        ("OPENING", Status.INITIALIZING, ""),
        ("qrcode", Status.QR_REQUIRED, ""),
        ("CONNECTED", Status.CONNECTED, ""),
        ("DISCONNECTED", Status.DISCONNECTED, "connection_closed"),
        ("PENDING", Status.RECONNECTING, "connection_lost"),
        ("CONFLICT", Status.DISCONNECTED, "conflict"),
        ("passkey_required", Status.QR_REQUIRED, "passkey_required"),
        ("what", Status.DISCONNECTED, "unknown"),
    ],
)
def test_words_of_the_server(word, status, reason):
    claim = claim_of_row(Row("7", status=word))
    assert (claim.status, claim.reason, claim.raw) == (status, reason, word)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)


@pytest.mark.parametrize("id", [None, True, ".."])
def test_a_row_that_is_odd_is_left_out_and_named_and_the_others_go_on(id):
    listed = [{"id": 7, "name": "seven"}, {"id": id, "name": "odd"}, {"id": "9", "name": 5}]
    rows, odd = parse_rows(listed)
    assert [row.id for row in rows] == ["7", "9"]
    assert odd == ["odd"]


@pytest.mark.parametrize("told", [None, [None], [{"name": "x"}]])
def test_what_is_no_list_of_sessions_is_none(told):
    assert parse_rows(told) is None


@given(json_values)
def test_no_answer_breaks_the_reading_of_rows(told):
    parse_rows(told)
    parse_row(told)
    parse_row({"id": 7, "status": told, "qrcode": told, "retries": told, "session": told})


def test_codes_and_tokens_are_in_no_repr():
    shown = repr(parse_row({"id": 1, "qrcode": "2@code", "token": "tok", "status": "qrcode"}))
    assert "2@code" not in shown
    assert "tok" not in shown


# --- what is remembered ----------------------------------------------------------------------


def look(known, status, files="unknown", now=0.0):
    return known.judge(Row("7", status=status), files, now)


def test_a_connection_whose_end_is_in_the_log_grows_unproved():
    known = SessionView()
    assert look(known, "CONNECTED", now=0).proof_age == 0.0
    known.note_turn(Turn("7", False), 10.0)
    assert look(known, "CONNECTED", now=100.0).proof_age == 90.0
    known.note_turn(Turn("7", True), 101.0)
    assert look(known, "CONNECTED", now=102.0).proof_age == 0.0


def test_where_nothing_is_to_be_proved_the_servers_word_stands():
    known = SessionView(prove=False)
    look(known, "CONNECTED")
    known.note_turn(Turn("7", False), 10.0)
    assert look(known, "CONNECTED", now=100.0).proof_age == 0.0


@pytest.mark.parametrize(
    ("before", "turn", "files", "status", "reason"),
    [
        pytest.param("CONNECTED", "", "paired", "DISCONNECTED", "connection_closed", id="dropped"),
        pytest.param("CONNECTED", "conflict", "paired", "DISCONNECTED", "conflict", id="the log"),
        pytest.param("CONNECTED", "", "absent", "DISCONNECTED", "logout", id="keys wiped"),
        pytest.param("CONNECTED", "", "damaged", "DISCONNECTED", "session_damaged", id="damaged"),
        pytest.param("qrcode", "", "unpaired", "DISCONNECTED", "qr_idle", id="nobody scanned"),
        pytest.param("CONNECTED", "", "paired", "PENDING", "connection_lost", id="comes back"),
        pytest.param("CONNECTED", "logout", "absent", "PENDING", "logout", id="logged out"),
    ],
)
def test_why_it_is_down(before, turn, files, status, reason):
    known = SessionView()
    look(known, before, "paired" if before == "CONNECTED" else "unpaired")
    if turn:
        known.note_turn(Turn("7", False, turn), 1.0)
    claim = look(known, status, files, 2.0)
    assert claim.reason == reason
    assert claim.paired is (files in ("paired", "damaged"))


def test_a_session_that_the_agent_disconnected_has_no_reason():
    known = SessionView()
    look(known, "CONNECTED")
    known.hung_up = True
    claim = look(known, "DISCONNECTED", "paired")
    assert (claim.status, claim.reason) == (Status.DISCONNECTED, "")


def test_a_disagreement_counts_when_it_lasts():
    known = SessionView()
    state, listed = Row("7", status="CONNECTED"), Row("7", status="DISCONNECTED")
    assert "disagrees" not in known.answers(state, listed, 1.0)
    assert "DISCONNECTED" in known.answers(state, listed, 2.0)["disagrees"]
    assert "disagrees" not in known.answers(state, state, 3.0)
    assert "disagrees" not in known.answers(None, listed, 4.0)
    assert known.answers(None, listed, 5.0)["disagrees"]


# --- whose an error is -----------------------------------------------------------------------

ROWS = [Row("7", "Shop"), Row("8", "Office"), Row("9", "Twin"), Row("10", "Twin")]


@pytest.mark.parametrize(
    ("told", "stream", "whose"),
    [
        ("7", "", OURS),
        ("Shop", "", OURS),
        ("8", "", NoOwner.OTHER),
        ("", "7", OURS),
        ("", "app-out", NoOwner.UNKNOWN),
        ("3EB0A1", "", NoOwner.UNKNOWN),
        ("8", "7", NoOwner.OTHER),
        ("", "", NoOwner.UNKNOWN),
    ],
)
def test_whose_an_error_is(told, stream, whose):
    assert names_of({OURS: ("7", "7")}, ROWS).whose(told, stream) == whose


def test_a_server_of_one_session_needs_no_names():
    assert names_of({OURS: ("7", "7")}, ROWS[:1]).whose("", "") == OURS
    assert names_of({OURS: ("7", "7")}, ROWS[1:2]).whose("", "") is NoOwner.UNKNOWN
    assert names_of({OURS: ("7", "")}, None).whose("", "") == OURS
    assert names_of({OURS: ("Shop", "")}, ROWS[:1]).whose("7", "") == OURS


def test_a_name_of_two_sessions_names_neither():
    names = names_of({OURS: ("9", "9")}, ROWS)
    assert names.whose("9", "") == OURS
    assert names.whose("Twin", "") is not OURS


LOGOUT = "Disconnected session: sales, reason: LOGOUT"


@pytest.mark.parametrize("status", ["OPENING"])
def test_a_logout_of_its_log_shows_whatever_the_server_shows_meanwhile(status):
    """whaticket-community writes OPENING and begins again two seconds later."""
    known = SessionView()
    look(known, "CONNECTED", "unknown")
    known.note_turn(read_turn(LOGOUT), 1.0)
    claim = look(known, status, "unknown", 1.5)
    assert (claim.status, claim.reason, claim.paired) == (Status.DISCONNECTED, "logout", False)
    assert look(known, "qrcode", "unknown", 4.0).status is Status.QR_REQUIRED
    assert look(known, "DISCONNECTED", "unknown", 99.0).reason == "qr_idle"


def test_a_session_that_goes_from_its_code_to_connecting_is_being_paired():
    known = SessionView()
    assert look(known, "OPENING", "unpaired").phase == ""
    look(known, "qrcode", "unpaired", 1.0)
    for status in ("PAIRING", "OPENING"):
        claim = look(known, status, "unpaired", 2.0)
        assert (claim.status, claim.phase) == (Status.INITIALIZING, "pairing")
    look(known, "DISCONNECTED", "unpaired", 3.0)
    assert look(known, "OPENING", "unpaired", 4.0).phase == ""
    look(known, "qrcode", "unpaired", 5.0)
    assert look(known, "OPENING", "paired", 6.0).phase == ""
