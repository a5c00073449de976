import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.crypto import (
    CryptoPolicy,
    CryptoWindow,
    judge_crypto,
    note_error,
    note_message,
    note_regenerated,
)
from agent.core.crypto_patterns import (
    PATTERNS,
    CryptoFinding,
    CryptoLogReader,
    Effect,
    own_pattern,
    peer_in,
    read_line,
    read_log_line,
)
from agent.core.model import Health

POLICY = CryptoPolicy()
NOW = 10_000.0


@pytest.mark.parametrize(
    ("line", "name", "effect", "peer"),
    [
        pytest.param(
            "Failed to decrypt message with any known session...",
            "known_header",
            "benign",
            "",
            id="1",
        ),
        pytest.param(
            "Session error:Error: Bad MAC Error: Bad MAC", "bad_mac", "counts", "", id="bad mac"
        ),
        pytest.param(
            "Session error:MessageCounterError: Key used already or never filled",
            "duplicate",
            "benign",
            "",
            id="duplicate delivery",
        ),
        pytest.param(
            "Session error:SessionError: Over 2000 messages into the future!",
            "far_future",
            "regenerates",
            "",
            id="restored backup",
        ),
        pytest.param(
            '{"level":50,"key":{"remoteJid":"491511234567@s.whatsapp.net","id":"A"},"err":{"type":'
            '"SessionError","message":"No matching sessions found for message"},"msg":"failed to'
            ' decrypt message"}',
            "no_matching_session",
            "summary",
            "491511234567",
            id="pino summary names the peer",
        ),
        pytest.param(
            '{"level":50,"key":{"remoteJid":"120363@g.us","participant":"491511234567:12@s.whatsapp'
            '.net"},"err":{"type":"PreKeyError","message":"Invalid PreKey ID"},"msg":"failed to'
            ' decrypt message"}',
            "prekey",
            "regenerates",
            "491511234567",
            id="pre-key, in a group",
        ),
        pytest.param("Invalid patch mac", "app_state", "benign", "", id="app state"),
        pytest.param(
            "MAC error detected, forcing immediate session recreation",
            "repair_at_work",
            "benign",
            "",
            id="the engine repairs",
        ),
        pytest.param(
            "Error decrypting message 3EB0 from 491511234567:3@s.whatsapp.net: failed to decrypt"
            " normal message",
            "decrypt_failed",
            "summary",
            "491511234567",
            id="whatsmeow",
        ),
    ],
)
def test_lines(line, name, effect, peer):
    assert read_line(line) == CryptoFinding(name, Effect(effect), peer)


@pytest.mark.parametrize("line", ["connected to WhatsApp", "macaroni"])
def test_other_lines_say_nothing_of_keys(line):
    assert read_line(line) is None


@pytest.mark.parametrize(
    ("line", "peer"),
    [
        ("    at async 491511234567.0 [as awaitable] (file.js:1)", "491511234567"),
        ("    at 123456789012345_1.0 [as awaitable]", "123456789012345_1"),
        ("    at process.processTicksAndRejections (node:internal:95:5)", ""),
    ],
)
def test_the_stack_names_the_peer(line, peer):
    assert peer_in(line) == peer


def read(lines, reader=None):
    reader, found = reader or CryptoLogReader(), []
    for line in lines:
        found += reader.feed(line)
    return found + reader.flush()


STACK = "    at 5511888888888.3 [as awaitable] (session_cipher.js:171:39)"
HEADER = "Failed to decrypt message with any known session..."
DUPLICATE = "Session error:MessageCounterError: Key used already or never filled"
BAD_MAC = "Session error:Error: Bad MAC Error: Bad MAC"
FAR = "Session error:SessionError: Over 2000 messages into the future!"


def test_an_error_waits_for_the_stack_under_it():
    above, below = "    at Object.verifyMAC (x.js:87:15)", "    at async y (y.js:1)"
    found = read([BAD_MAC, above, STACK, below, BAD_MAC, "unrelated"])
    named = [(one.name, one.peer) for one in found]
    assert named == [("bad_mac", "5511888888888"), ("bad_mac", "")]


def test_the_sessions_that_were_tried_for_one_message_are_one_error():
    tried = [HEADER, BAD_MAC, STACK, BAD_MAC, STACK, BAD_MAC]
    counted = [one for one in read(tried + tried) if one.effect is Effect.COUNTS]
    assert [one.peer for one in counted] == ["5511888888888"] * 2


@pytest.mark.parametrize(
    "line",
    [
        "INFO wbot=6 491511234567@lid: [ERROR] Bad MAC",
        "ERROR wbot=10 cannot answer who wrote 'don't Bad MAC'",
        'ERROR wbot=9 cannot answer who wrote "hi" Bad MAC "x"',
    ],
)
def test_a_contacts_words_are_no_error(line):
    assert read_log_line(line) is None


@pytest.mark.parametrize(
    "line",
    [
        '[ERROR] Bad MAC of "%s" from 491511234567@s.whatsapp.net',
        '{"level":50,"body":"%s","key":{"participant":"491511234567:3@lid"},"msg":"Bad MAC"}',
        '{"level":50,"body":"%s","err":{"message":"Bad MAC","stack":"E\\n at'
        ' 491511234567.3 [as awaitable]"}}',
    ],
)
def test_words_that_a_line_quotes_name_no_contact(line):
    found = read_log_line(line % "from 4915199999999@lid at 4915199999999.0 [as awaitable]")
    assert (found.name, found.peer) == ("bad_mac", "491511234567")


@pytest.mark.parametrize(
    ("tried", "name"),
    [
        pytest.param([DUPLICATE, BAD_MAC], "duplicate", id="the older session does not fit it"),
        pytest.param([BAD_MAC, FAR, BAD_MAC], "far_future", id="the one that needs new keys"),
    ],
)
def test_a_message_is_judged_by_what_says_most(tried, name):
    found = read([HEADER, *(line for error in tried for line in (error, STACK)), "next"])
    assert [one.name for one in found] == ["known_header", name]
    assert found[-1].peer == "5511888888888"


def test_settings_add_patterns_as_plain_text():
    own = own_pattern("counts: strange (mac")
    found = read_line("a Strange (MAC appeared", [own])
    assert found.effect is Effect.COUNTS
    assert read_line(found.name, [own]) == found, "its name is read as the same again"
    assert (
        read_line("Bad MAC again", [own_pattern("benign: bad mac again")]).effect is Effect.BENIGN
    )


@pytest.mark.parametrize(
    "entry",
    [
        *("bad mac", "kills: bad mac", "summary: x y z", "counts:", "counts: " + "x" * 121),
        "counts: code 'E17'",
    ],
)
def test_a_pattern_that_says_nothing_is_refused(entry):
    with pytest.raises(ValueError, match="must"):
        own_pattern(entry)


@given(st.lists(st.text(max_size=200), max_size=30))
def test_no_text_breaks_the_reader(lines):
    for one in read(lines):
        assert one.name in {pattern.name for pattern in PATTERNS}


# --- the window ------------------------------------------------------------------------------


def noted(made, *findings, at=NOW):
    for finding in findings:
        made = note_error(made, finding, POLICY, at)
    return made


def window(errors, messages=0, at=NOW):
    """errors: peer → how many"""
    made = CryptoWindow()
    for peer, count in errors.items():
        made = noted(made, *[CryptoFinding("bad_mac", Effect.COUNTS, peer)] * count, at=at)
    for _ in range(messages):
        made = note_message(made, POLICY, at)
    return made


@pytest.mark.parametrize(
    ("errors", "messages", "signal", "peers"),
    [
        pytest.param({}, 10, None, (), id="none"),
        pytest.param({"a": 1}, 10, "crypto_errors", (), id="one error is benign"),
        pytest.param({"a": 3}, 10, "crypto_peer", ("a",), id="one peer out of step"),
        pytest.param({"a": 500}, 0, "crypto_peer", ("a",), id="one peer, however loud"),
        pytest.param({"a": 3, "b": 2}, 900, "crypto_peer", ("a",), id="two peers"),
        pytest.param({"a": 2, "b": 1, "c": 1, "d": 1}, 9, "crypto_corrupted", (), id="many peers"),
        pytest.param(
            {"a": 2, "b": 1, "c": 1, "d": 1}, 900, "crypto_errors", (), id="many peers of many more"
        ),
        pytest.param({"a": 1, "b": 1, "c": 1, "d": 1}, 900, "crypto_errors", (), id="four errors"),
        pytest.param({"": 5}, 9, "crypto_corrupted", (), id="five without a peer"),
        pytest.param({"": 5}, 900, "crypto_errors", (), id="five without a peer, 900 read"),
        pytest.param({"a": 4, "b": 4}, 20, "crypto_corrupted", ("a", "b"), id="over a fifth"),
        pytest.param({"a": 4, "b": 4}, 40, "crypto_peer", ("a", "b"), id="under a fifth"),
    ],
)
def test_key_errors_add_up_to_a_finding(errors, messages, signal, peers):
    state = judge_crypto(window(errors, messages), POLICY, NOW)
    assert (state.signal.name if state.signal else None, set(state.peers)) == (signal, set(peers))


def test_the_window_slides():
    assert judge_crypto(window({"": 9}), POLICY, NOW + 320).signal is None


def test_a_summary_line_is_part_of_a_single_error_before_it_and_of_no_other_summary():
    summary = CryptoFinding("decrypt_failed", Effect.SUMMARY, "a")
    assert len(noted(window({"a": 1}), summary).errors) == 1
    assert len(noted(CryptoWindow(), *[summary] * 5).errors) == 5


# --- messages that their senders send again ------------------------------------------------------

LATER = NOW + POLICY.answer


def judge(made, now=NOW, **more):
    return judge_crypto(made, POLICY, now, **more)


def unread(made, peer, *ids, group="", at=NOW):
    """The engine names messages of this peer that could not be read."""
    findings = [CryptoFinding("bad_mac", Effect.COUNTS, peer, group, id) for id in ids]
    return noted(made, *findings, at=at)


def from_peers(count, *ids):
    made = CryptoWindow()
    for number in range(count):
        made = unread(made, f"peer {number}", *(f"{number}-{id}" for id in ids))
    return made


def test_a_burst_of_one_peer_is_no_trouble_while_its_answer_may_come():
    made = unread(CryptoWindow(), "a", *"12345")
    assert (judge(made).signal, judge(made).peers) == (None, ())
    assert judge(made, LATER).peers == ("a",), "it was never read"


def test_an_old_copy_put_back_is_not_corrupted_while_its_contacts_renew_their_keys():
    """Twelve write at once; ten are there to send it again, two are away."""
    made = from_peers(12, "only")
    assert judge(made).signal is None
    for number in range(10):
        made = note_message(made, POLICY, NOW, peers=(f"peer {number}",))
    state = judge(made, LATER)
    assert (state.signal.name, state.signal.level, state.peers) == (
        "crypto_errors", Health.DEGRADED, (),
    )  # fmt: skip


def test_contacts_that_wrote_a_night_long_and_are_away_are_no_corrupted_session():
    """Nothing was read since, and only new keys of theirs would help."""
    state = judge(from_peers(12, *"123"), LATER)
    assert (state.signal.name, len(state.peers)) == ("crypto_peer", 12)


def test_what_stays_unreadable_when_it_came_again_is_a_corrupted_session():
    made = from_peers(12, *"1111")
    assert judge(made).signal is None, "the next try may be the one that is read"
    assert judge(made, LATER).signal.name == "crypto_corrupted"
    for _ in range(99):
        made = note_message(made, POLICY, NOW, peers=("another",))
    assert judge(made, LATER).signal.name == "crypto_corrupted", "a third of all messages"
    for _ in range(100):
        made = note_message(made, POLICY, NOW)
    assert judge(made, LATER).signal.name == "crypto_peer", "it reads nearly all"


def test_a_peer_is_the_same_by_its_number_and_by_its_other_name():
    made = unread(CryptoWindow(), "1551_1", "x")
    assert not note_message(made, POLICY, NOW, peers=("551", "1551_1")).errors
    assert note_message(made, POLICY, NOW, peers=("551", "")).errors


def test_a_message_to_a_group_proves_nothing_of_the_keys_to_this_session():
    made = unread(unread(CryptoWindow(), "a", *"123"), "a", "4", group="g")
    made = note_message(made, POLICY, NOW, peers=("a",), group="g")
    assert (len(made.errors), judge(made, LATER).peers) == (3, ("a",))
    assert not note_message(made, POLICY, NOW, peers=("a",)).errors


def test_an_engine_that_names_no_messages_is_judged_at_once():
    """It never hears that a message was read after all."""
    made = window({"a": 2, "b": 1, "c": 1, "d": 1})
    assert judge(made, counts_messages=False).signal.name == "crypto_corrupted"
    assert judge(window({"a": 3}), counts_messages=False).peers == ("a",)


def test_the_keys_of_a_peer_are_regenerated_once_per_interval():
    made = note_regenerated(window({"a": 9}), ("a",), NOW)
    assert not made.errors
    for _ in range(9):
        made = note_error(made, CryptoFinding("bad_mac", Effect.COUNTS, "a"), POLICY, NOW + 60)
    assert judge_crypto(made, POLICY, NOW + 60).peers == ()


@given(st.lists(st.tuples(st.text(max_size=3), st.floats(0, 1e6)), max_size=400))
def test_no_flood_and_no_clock_makes_the_window_grow(errors):
    made = CryptoWindow()
    for peer, at in errors:
        made = note_error(made, CryptoFinding("bad_mac", Effect.COUNTS, peer), POLICY, at)
        assert len(made.errors) <= 1000


def of_log(made):
    return judge_crypto(made, POLICY, NOW, counts_messages=False)


def of_prekeys(*peers, made=None, at=NOW):
    findings = [CryptoFinding("prekey", Effect.REGENERATES, peer) for peer in peers]
    return noted(made or CryptoWindow(), *findings, at=at)


def test_in_a_servers_log_the_share_of_errors_is_unknown() -> None:
    """Four errors of two contacts are 100 % of nothing that was counted."""
    unknown = of_log(window({"a": 2, "b": 2}))
    assert unknown.signal.level is Health.DEGRADED
    assert "%" not in str(unknown.signal)


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(of_prekeys(*"abcde"), id="pre-keys of five contacts"),
        pytest.param(of_prekeys("a", "a", "b", "", ""), id="pre-keys, mixed"),
        pytest.param(window({"a": 5}), id="one contact"),
    ],
)
def test_five_errors_of_any_kind_in_a_servers_log_are_a_corrupted_session(made) -> None:
    assert of_log(made).signal.level is Health.CORRUPTED


def test_what_a_step_did_not_heal_asks_for_none_until_regenerate_every_is_over() -> None:
    made = note_regenerated(of_prekeys(*[""] * 6), ("",), NOW)
    made = of_prekeys(*[""] * 6, made=made)
    assert of_log(made).signal.level is Health.DEGRADED
    later = NOW + POLICY.regenerate_every
    made = of_prekeys(*[""] * 5, made=made, at=later)
    assert judge_crypto(made, POLICY, later, counts_messages=False).signal.level is Health.CORRUPTED
