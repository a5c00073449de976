"""A session's life on the real library: pairing, talking, restarts, WhatsApp's refusals."""

import asyncio
import hashlib
import json
import re
from contextlib import suppress
from urllib.error import HTTPError

import pytest

from agent.core.words import SessionFiles
from agent.engines import base
from agent.engines.baileys.node import CLIENT
from agent.errors import EngineError
from agent.vault.tree import inspect
from tests.engines.baileys.conftest import ACCOUNT, PEER, Bench, run_node

pytestmark = pytest.mark.slow


async def test_a_session_is_paired_talks_and_comes_back_without_a_code(bench: Bench) -> None:
    await bench.pair()
    assert bench.heard.last.paired
    assert bench.heard.last.account == ACCOUNT
    await bench.talk("hello")
    answer = await bench.engine.probe(deep=True)
    assert answer.detail["ping_seconds"] >= 0
    assert answer.claim.proof_age is not None
    await bench.restart()
    assert not any(claim.status == "QR_REQUIRED" for claim in bench.heard.claims)
    await bench.talk("again")
    await bench.until(lambda: bench.heard.count("ack", ack="server") >= 1)


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


REFUSALS = {503: "service_unavailable", 402: "temporary_ban", 406: "banned", 401: "logout"}


async def test_every_refusal_of_a_login_has_its_reason(bench: Bench) -> None:
    await bench.lay_paired()
    for tries, (code, reason) in enumerate(REFUSALS.items(), 1):
        bench.whatsapp.trouble(ACCOUNT, "refuse", code=code)
        await (bench.start() if tries == 1 else bench.engine.connect())
        await bench.is_now("DISCONNECTED", reason)
        logins = len([claim for claim in bench.heard.claims if claim.phase == "login"])
        assert logins == tries, "the engine tries once"


REPLACED = {"tag": "conflict", "attrs": {"type": "replaced"}}
DOWNGRADE = {"tag": "downgrade_webclient", "attrs": {}}


async def test_no_word_on_an_open_connection_ends_a_pairing_but_the_devices_removal(
    bench: Bench,
) -> None:
    """The next login proves what is so."""
    await bench.come_paired()
    words = [
        ({"tag": "stream:error", "attrs": {"code": "401"}}, "connection_lost"),
        ({"tag": "stream:error", "attrs": {"code": "401"}, "content": [REPLACED]}, "conflict"),
        ({"tag": "stream:error", "attrs": {"code": "403"}}, "connection_lost"),
        ({"tag": "stream:error", "attrs": {"code": "503"}}, "service_unavailable"),
        ({"tag": "failure", "attrs": {"reason": "401", "location": "atn"}}, "connection_lost"),
        ({"tag": "failure", "attrs": {"reason": "406"}}, "connection_lost"),
        ({"tag": "ib", "attrs": {}, "content": [DOWNGRADE]}, "connection_lost"),
    ]
    for stanza, reason in words:
        word = {"stage": "now", "kind": "last", "stanza": stanza}
        await asyncio.to_thread(bench.whatsapp.tell, "/ambush", {"user": ACCOUNT, **word})
        await bench.is_now("DISCONNECTED", reason)
        assert bench.heard.last.paired, stanza
        await bench.come_back()
    bench.whatsapp.trouble(ACCOUNT, "conflict", type="device_removed")
    await bench.is_now("DISCONNECTED", "logout")


async def test_a_silent_server_is_seen_by_a_probe_and_confirms_no_logout(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Node says so a fifth of it earlier: time enough for that on a machine that pauses.
    monkeypatch.setattr(base, "probe_limit", lambda: 6.0)
    await bench.come_paired()
    bench.whatsapp.trouble(ACCOUNT, "silence")
    logout = asyncio.create_task(bench.engine.logout())
    with pytest.raises(Exception, match="did not answer a ping"):
        await bench.engine.probe(deep=True)
    with pytest.raises(EngineError, match="did not confirm the logout"):
        await logout
    assert bench.heard.last.paired


def test_a_refusal_of_whatsapp_shows_nothing_of_its_text() -> None:
    log = CLIENT / "log.mjs"
    told = (
        f'import {{ toldOf, masked }} from "{log}";'
        'const said = "5511977770055@s.whatsapp.net not acceptable, token 2@SECRETKEY";'
        "const boom = Object.assign(new Error(said), { isBoom: true, data: 406, output: {} });"
        "console.log(toldOf(boom), toldOf(new TypeError(said)), masked(said));"
    )
    shown = run_node("--input-type=module", "-e", told)
    assert "406" in shown
    assert not re.search(r"\d{5}|SECRET", shown)


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
    assert inspect(bench.folder.parent, "baileys", paired=False).files is SessionFiles.UNPAIRED
    # The same client, and another, begin again: a login with half a pairing would be a logout.
    await bench.engine.disconnect()
    await bench.engine.connect()
    await bench.is_now("QR_REQUIRED")
    await bench.stop()
    await bench.pair()
    assert "logout" not in {claim.reason for claim in bench.heard.claims}


async def test_a_file_is_fetched_by_https_only_never_from_this_machine(bench: Bench) -> None:
    await bench.come_paired()
    for url in ("file:///etc/hostname", "http://127.0.0.1/x"):
        message = {"to": PEER, "type": "media", "mimetype": "text/plain", "url": url}
        with pytest.raises(EngineError, match="url is not https"):
            await bench.engine.send(message)
