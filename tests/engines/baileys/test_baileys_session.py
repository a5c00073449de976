"""A session's life on the real library: pairing, talking, restarts, WhatsApp's refusals."""

import asyncio
import hashlib
import json
import re
import subprocess
from contextlib import suppress
from urllib.error import HTTPError

import pytest

from agent.core.phases import PhaseDeadlines
from agent.core.words import InstanceId, SessionFiles
from agent.engines.baileys import client_life
from agent.engines.baileys.node import find_node
from agent.engines.baileys.packages import CLIENT
from agent.errors import EngineError, InvalidRequest
from agent.link.messages import Claimed, parse_from_worker
from agent.vault.check import check_files
from tests.engines.baileys.conftest import ACCOUNT, OTHER, PEER, Bench

pytestmark = pytest.mark.slow


async def test_a_session_is_paired_talks_and_comes_back_without_a_code(bench: Bench) -> None:
    await bench.pair()
    assert bench.heard.last.paired
    assert bench.heard.last.account == ACCOUNT
    await bench.talk("hello")
    answer = await bench.engine.probe(deep=True)
    assert answer.detail["ping_seconds"] >= 0
    assert answer.claim.proof_age is not None
    assert answer.claim.proof_age < 5
    await bench.restart()
    assert not any(claim.status == "QR_REQUIRED" for claim in bench.heard.claims)
    await bench.talk("again")
    await bench.until(lambda: bench.heard.count("ack", ack="server") >= 1)


async def test_of_two_phones_that_scan_one_code_at_once_the_first_is_linked_and_the_other_told(
    bench: Bench,
) -> None:
    await bench.start()
    await bench.is_now("QR_REQUIRED")
    code = await bench.engine.qr()
    assert code is not None
    await asyncio.to_thread(bench.whatsapp.scan, code.text, [ACCOUNT, OTHER])
    await bench.is_now("DISCONNECTED", "restart_required")
    await bench.engine.connect()
    await bench.is_now("CONNECTED")
    assert bench.heard.last.account == ACCOUNT
    assert bench.whatsapp.device(ACCOUNT)["logins"] == 1
    assert bench.heard.count("scanned_again") == 1
    assert bench.whatsapp.device(OTHER) == {}
    await bench.talk("it reads and is read")


async def test_a_message_of_one_key_has_one_id_that_only_this_session_knows(bench: Bench) -> None:
    await bench.come_paired()
    message = {"to": PEER, "type": "text", "text": "once"}

    async def id_of(**key: str) -> str:
        return str((await bench.engine.send({**message, **key}))["id"])

    first = await id_of(key="a")
    await bench.restart()
    assert await id_of(key="a") == first
    assert len({first, await id_of(key="b"), await id_of(), await id_of()}) == 4
    assert re.fullmatch("3EB0[0-9A-F]{18}", first)
    assert hashlib.sha256(b"a").hexdigest()[:18].upper() not in first


async def test_a_ban_until_no_moment_at_all_is_a_ban_that_the_agent_can_read(bench: Bench) -> None:
    await bench.come_paired()
    for expire, seconds in (("1e300", None), ("-5", None), ("x", None), ("60", 60)):
        attrs = {"reason": "402", "expire": expire}
        word = {"stage": "finish", "kind": "last", "stanza": {"tag": "failure", "attrs": attrs}}
        await asyncio.to_thread(bench.whatsapp.tell, "/ambush", {"user": ACCOUNT, **word})
        bench.whatsapp.trouble(ACCOUNT, "drop")
        await bench.is_now("DISCONNECTED", "connection_closed")
        await bench.engine.connect()
        await bench.is_now("DISCONNECTED", "temporary_ban")
        parse_from_worker(Claimed(InstanceId("sales"), "run", bench.heard.last).wire())
        assert (bench.heard.last.until_wall is None) == (seconds is None)
        await bench.engine.connect()
        await bench.is_now("CONNECTED")


async def test_a_connect_that_comes_too_late_changes_nothing(bench: Bench) -> None:
    """What asks for a connection may have looked before it was there."""
    await bench.start()
    await bench.is_now("QR_REQUIRED")
    code = await bench.engine.qr()
    await bench.engine.connect()
    again = await bench.engine.qr()
    assert code is not None and again is not None and again.text == code.text
    await bench.pair_with(code.text)
    claims = len(bench.heard.claims)
    await bench.engine.connect()
    assert bench.heard.claims[claims:] == []
    assert (await bench.engine.probe()).claim.status == "CONNECTED"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (401, "logout"),
        (402, "temporary_ban"),
        (403, "account_locked"),
        (405, "client_outdated"),
        (406, "banned"),
        (409, "bad_client"),
        (411, "multidevice_mismatch"),
        (500, "bad_session"),
        (503, "service_unavailable"),
    ],
)
async def test_every_refusal_of_a_login_has_its_reason(
    bench: Bench, code: int, reason: str
) -> None:
    await bench.lay_paired()
    bench.whatsapp.trouble(ACCOUNT, "refuse", code=code)
    await bench.start()
    await bench.is_now("DISCONNECTED", reason)
    logins = len([claim for claim in bench.heard.claims if claim.phase == "login"])
    await asyncio.sleep(0)
    assert logins == 1, "the engine tries once"


@pytest.mark.parametrize(
    ("kind", "more", "reason"),
    [
        ("conflict", {"type": "replaced"}, "conflict"),
        ("conflict", {"type": "device_removed"}, "logout"),
        ("stream_error", {"code": 503}, "service_unavailable"),
        ("stream_error", {"code": 515}, "restart_required"),
        ("drop", {}, "connection_closed"),
    ],
)
async def test_every_end_of_a_connection_has_its_reason(
    bench: Bench, kind: str, more: dict[str, object], reason: str
) -> None:
    await bench.come_paired()
    bench.whatsapp.trouble(ACCOUNT, kind, **more)
    await bench.is_now("DISCONNECTED", reason)


REPLACED = {"tag": "conflict", "attrs": {"type": "replaced"}}


async def test_no_word_on_an_open_connection_ends_a_pairing_but_the_devices_removal(
    bench: Bench,
) -> None:
    """The next login proves what is so."""
    await bench.come_paired()
    words = [
        ({"tag": "stream:error", "attrs": {"code": "401"}}, "connection_closed"),
        ({"tag": "stream:error", "attrs": {"code": "401"}, "content": [REPLACED]}, "conflict"),
        ({"tag": "stream:error", "attrs": {"code": "403"}}, "connection_closed"),
        ({"tag": "failure", "attrs": {"reason": "401", "location": "atn"}}, "connection_closed"),
        ({"tag": "failure", "attrs": {"reason": "406"}}, "connection_closed"),
        (
            {"tag": "ib", "attrs": {}, "content": [{"tag": "downgrade_webclient", "attrs": {}}]},
            "connection_closed",
        ),
    ]
    for stanza, reason in words:
        word = {"stage": "now", "kind": "last", "stanza": stanza}
        await asyncio.to_thread(bench.whatsapp.tell, "/ambush", {"user": ACCOUNT, **word})
        await bench.is_now("DISCONNECTED", reason)
        assert bench.heard.last.paired, stanza
        await bench.engine.connect()
        await bench.is_now("CONNECTED")
    bench.whatsapp.trouble(ACCOUNT, "conflict", type="device_removed")
    await bench.is_now("DISCONNECTED", "logout")


async def test_a_server_that_cannot_be_reached_is_a_lost_connection(bench: Bench) -> None:
    await bench.lay_paired()
    await bench.start(url="ws://127.0.0.1:9/ws/chat")
    await bench.is_now("DISCONNECTED", "connection_lost")


async def test_a_silent_server_is_seen_by_a_probe(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Node says so a fifth of it earlier: time enough for that on a machine that pauses.
    monkeypatch.setattr(client_life, "probe_limit", lambda: 6.0)
    await bench.come_paired()
    bench.whatsapp.trouble(ACCOUNT, "silence")
    with pytest.raises(Exception, match="did not answer a ping"):
        await bench.engine.probe(deep=True)


async def test_a_login_that_whatsapp_took_has_more_time_than_one_that_it_did_not(
    bench: Bench,
) -> None:
    """The library waits twice for answers about keys before it says that it is connected."""
    await bench.pair()
    await bench.stop()
    bench.whatsapp.trouble(ACCOUNT, "queries", xmlns="encrypt")
    await bench.start()
    await bench.until(lambda: bench.heard.last.phase == "sync")
    assert PhaseDeadlines().sync > 2 * 60 > PhaseDeadlines().login
    bench.whatsapp.trouble(ACCOUNT, "none")
    await bench.restart()


def test_a_refusal_of_whatsapp_shows_nothing_of_its_text() -> None:
    log = CLIENT / "log.mjs"
    told = (
        f'import {{ toldOf, masked }} from "{log}";'
        'const said = "5511977770055@s.whatsapp.net not acceptable, token 2@SECRETKEY";'
        "const boom = Object.assign(new Error(said), { isBoom: true, data: 406, output: {} });"
        "console.log(toldOf(boom), toldOf(new TypeError(said)), masked(said));"
    )
    run = (find_node(), "--input-type=module", "-e", told)
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert "406" in done.stdout
    assert not re.search(r"\d{5}|SECRET", done.stdout)


async def test_a_group_and_several_peers_are_read(bench: Bench) -> None:
    await bench.come_paired()
    group = "120363000000000001@g.us"
    await asyncio.to_thread(bench.whatsapp.make_group, group, [ACCOUNT, PEER, OTHER])
    for sender in (PEER, OTHER):
        before = bench.heard.count("message", direction="in")
        await asyncio.to_thread(bench.whatsapp.say_in_group, sender, ACCOUNT, group, f"by {sender}")
        await bench.until(lambda: bench.heard.count("message", direction="in") > before)  # noqa: B023


async def test_an_account_that_must_show_a_passkey_waits_for_its_owner(bench: Bench) -> None:
    bench.whatsapp.asks_for_passkey(ACCOUNT, True)
    await bench.start()
    await bench.is_now("QR_REQUIRED")
    code = await bench.engine.qr()
    assert code is not None
    await asyncio.to_thread(bench.whatsapp.scan, code.text, ACCOUNT)
    await bench.is_now("QR_REQUIRED", "passkey_required")
    assert not bench.heard.last.paired
    bench.whatsapp.asks_for_passkey(ACCOUNT, False)
    await bench.stop()
    await bench.pair()


async def begin_with_code(bench: Bench) -> None:
    """A login whose pairing code the phone has taken."""
    await bench.start()
    await bench.is_now("QR_REQUIRED")
    await bench.engine.command("pairing_code", {"phone": ACCOUNT})
    await bench.until(lambda: _entered(bench))


def _entered(bench: Bench) -> bool:
    with suppress(HTTPError):  # its request for a code is under way
        bench.whatsapp.enter_code(ACCOUNT)
        return True
    return False


async def test_a_pairing_code_that_was_taken_and_led_nowhere_is_reported_and_is_no_pairing(
    bench: Bench,
) -> None:
    await begin_with_code(bench)
    await bench.until(lambda: bench.heard.last.phase == "pairing")
    assert bench.heard.last.status == "INITIALIZING"
    assert await bench.engine.qr() is None, "a code that is shown would be scanned in vain"
    creds = bench.folder / "creds.json"
    await bench.until(lambda: creds.exists() and json.loads(creds.read_text()).get("registered"))
    assert check_files(bench.folder.parent, "baileys", paired=False) is SessionFiles.UNPAIRED
    # The same client, and another, begin again: a login with half a pairing would be a logout.
    await bench.engine.disconnect()
    await bench.engine.connect()
    await bench.is_now("QR_REQUIRED")
    await bench.stop()
    await bench.pair()
    assert "logout" not in {claim.reason for claim in bench.heard.claims}


async def test_a_passkey_that_is_asked_for_after_a_pairing_code_is_reported(bench: Bench) -> None:
    bench.whatsapp.asks_for_passkey(ACCOUNT, True)
    await begin_with_code(bench)
    await bench.is_now("QR_REQUIRED", "passkey_required")


async def test_a_logout_is_one_when_whatsapp_confirmed_it(bench: Bench) -> None:
    await bench.come_paired()
    await bench.engine.logout()
    await bench.is_now("DISCONNECTED", "logout")
    assert not bench.heard.last.paired


async def test_a_logout_that_whatsapp_does_not_confirm_is_none(bench: Bench) -> None:
    await bench.come_paired()
    bench.whatsapp.trouble(ACCOUNT, "silence")
    with pytest.raises(EngineError, match="did not confirm the logout"):
        await bench.engine.logout()
    assert bench.heard.last.paired


async def test_a_receiver_is_a_number_as_people_write_it(bench: Bench) -> None:
    await bench.come_paired()
    written = f"+{PEER[:2]} {PEER[2:4]} {PEER[4:9]}-{PEER[9:]}"
    assert written == "+55 11 90000-0002"
    await bench.engine.send({"to": written, "type": "text", "text": "hello"})
    await bench.until(
        lambda: any(h["text"] == "hello" for h in bench.whatsapp.person(PEER).get("heard", []))
    )
    with pytest.raises(InvalidRequest, match="neither a phone number nor"):
        await bench.engine.send({"to": "Ann", "type": "text", "text": "hello"})


@pytest.mark.parametrize("url", ["/etc/hostname", "file:///etc/hostname", "http://127.0.0.1/x"])
async def test_a_file_is_fetched_by_https_only_never_from_this_machine(
    bench: Bench, url: str
) -> None:
    await bench.come_paired()
    message = {"to": PEER, "type": "media", "mimetype": "text/plain", "url": url}
    with pytest.raises(EngineError, match="url is not https"):
        await bench.engine.send(message)


@pytest.mark.parametrize(
    ("file", "code", "words"),
    [
        ({"content": "AAAA"}, "media_not_taken", "media server did not take the file"),
        ({"url": "https://127.0.0.1:1/x"}, "url_unreachable", "cannot be loaded from its url"),
    ],
    ids=["no media server takes it", "nobody has it"],
)
async def test_a_file_that_cannot_be_sent_says_which_side_failed(
    bench: Bench, file: dict[str, str], code: str, words: str
) -> None:
    await bench.come_paired()
    message = {"to": PEER, "type": "media", "mimetype": "text/plain", **file}
    with pytest.raises(EngineError, match=words) as refused:
        await bench.engine.send(message)
    assert refused.value.code == code
    await bench.send("and goes on")
