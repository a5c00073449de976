"""Faults of a page, a phone or an account, in the real worker."""

import asyncio
import json
import os
import shutil
import signal
import struct
import zlib
from base64 import b64decode
from typing import Any

import pytest

from agent.core.model import ConnectionStatus as Status
from agent.errors import EngineError
from tests.engines.web.bench import ACCOUNT, Bench, renderers_below
from tests.standin.web.stand_in import StandIn


async def test_codes_are_replaced_and_the_last_one_is_idle_until_a_new_request(
    bench: Bench, stand_in: StandIn, eventually: Any
) -> None:
    stand_in.qr_codes = 2
    link = await bench.start()
    await bench.claimed(Status.QR_REQUIRED)
    first = (await link.call("qr"))["qr"]
    stand_in.show_next_code(stand_in.page())

    async def another() -> Any:
        shown = (await link.call("qr"))["qr"]
        return shown if shown["text"] != first["text"] else None

    second = await eventually(another)
    assert second["number"] == 2 and second["expires_in"] <= 20
    stand_in.qr_every = 0.5
    await bench.claimed(Status.QR_REQUIRED, "qr_idle")

    stand_in.qr_every = 60
    assert (await link.call("qr"))["qr"]["text"].startswith(stand_in.page().code)
    await bench.claimed(Status.QR_REQUIRED)
    stand_in.scan(ACCOUNT)
    await bench.claimed(Status.CONNECTED)


async def test_a_phone_number_gets_a_pairing_code(bench: Bench, stand_in: StandIn) -> None:
    link = await bench.start()
    await bench.claimed(Status.QR_REQUIRED)
    told = await link.call(
        "command", {"name": "pairing_code", "arguments": {"phone": "+55 11 99999-9999"}}
    )
    assert len(told["code"]) == 8 and told["expires_in"] > 60
    await bench.until(lambda: stand_in.page().link_code == told["code"])
    stand_in.enter_code(told["code"])
    assert (await bench.claimed(Status.CONNECTED)).account == ACCOUNT
    with pytest.raises(EngineError) as caught:
        await link.call("command", {"name": "pairing_code", "arguments": {"phone": ACCOUNT}})
    assert caught.value.code == "not_waiting"


async def test_a_passkey_that_the_page_asks_for_is_reported_and_not_answered(
    bench: Bench, stand_in: StandIn
) -> None:
    link = await bench.start()
    await bench.claimed(Status.QR_REQUIRED)
    stand_in.passkey = "ask"
    stand_in.scan(ACCOUNT)
    assert not (await bench.claimed(Status.QR_REQUIRED, "passkey_required")).paired
    heard = stand_in.page().received
    await bench.until(lambda: heard[-1]["do"].startswith("passkey_"))
    assert heard[-1] == {"do": "passkey_refused", "why": "NotAllowedError"}
    assert bench.claims[-1].reason == "passkey_required"

    # Who asks for a code gets a new one; here a phone without a passkey scans it.
    stand_in.passkey = ""
    assert (await link.call("qr"))["qr"] is None
    await bench.claimed(Status.QR_REQUIRED)
    stand_in.scan(ACCOUNT)
    assert (await bench.claimed(Status.CONNECTED)).paired


async def test_f06_a_page_that_hangs_fails_its_probes_and_comes_back_by_a_connect(
    bench: Bench, stand_in: StandIn
) -> None:
    await bench.pair(stand_in)
    stand_in.page().tell("hang", seconds=60)
    assert await refused_probe(bench) == "browser_silent"
    assert bench.process is not None and bench.process.poll() is None
    heard = len(bench.claims)
    await bench.link.call("connect")
    await bench.came(Status.RECONNECTING, heard)
    await bench.claimed(Status.CONNECTED)
    await bench.probe()


async def test_f04_a_crashed_page_comes_back_by_itself(bench: Bench, stand_in: StandIn) -> None:
    await bench.pair(stand_in)
    browser = await bench.browser()
    heard = len(bench.claims)
    os.kill(renderers_below(browser)[0], signal.SIGKILL)
    assert (await bench.came(Status.RECONNECTING, heard)).reason == "page_crashed"
    await bench.claimed(Status.CONNECTED)
    assert await bench.browser() != browser


async def test_a_dialog_does_not_stop_the_page(bench: Bench, stand_in: StandIn) -> None:
    await bench.pair(stand_in)
    stand_in.page().tell("dialog", text="hello")
    await bench.until(
        lambda: any(each["do"] == "closed_dialog" for each in stand_in.page().received)
    )
    await bench.probe()


async def test_a_logout_from_the_phone_is_reported_with_its_reason(
    bench: Bench, stand_in: StandIn
) -> None:
    await bench.pair(stand_in)
    stand_in.log_out(ACCOUNT, "account_locked")
    claim = await bench.claimed(Status.DISCONNECTED, "banned")
    assert not claim.paired
    # The page shows a new code soon; the claim stays until a person connects it again.
    await bench.until(lambda: stand_in.clients and stand_in.page().code)
    await bench.probe()
    assert bench.claims[-1].reason == "banned"
    await bench.link.call("connect")
    await bench.claimed(Status.QR_REQUIRED)


async def test_a_logout_that_happened_while_stopped_is_seen_at_the_next_start(
    bench: Bench, stand_in: StandIn
) -> None:
    await bench.pair(stand_in)
    await bench.stop()
    stand_in.log_out(ACCOUNT)
    await bench.start()
    await bench.claimed(Status.DISCONNECTED, "logout")


async def test_f42_a_profile_without_its_login_shows_no_code(bench: Bench) -> None:
    await bench.start()
    await bench.claimed(Status.QR_REQUIRED)
    await bench.stop()
    link = await bench.start(paired=True)
    await bench.claimed(Status.AUTH_FAILURE, "unpaired_suspect")
    assert await link.call("qr") == {"qr": None}
    given = {"name": "pairing_code", "arguments": {"phone": ACCOUNT}}
    with pytest.raises(EngineError, match="came up unpaired"):
        await link.call("command", given)
    assert Status.QR_REQUIRED not in [claim.status for claim in bench.claims]


async def test_f42_a_lost_profile_is_never_made_again(bench: Bench, stand_in: StandIn) -> None:
    await bench.pair(stand_in)
    await bench.stop()
    shutil.rmtree(bench.session / "profile")
    for paired in (True, False):  # the engine's own note knows it too
        await bench.start(paired=paired)
        claim = await bench.claimed(Status.AUTH_FAILURE, "unpaired_suspect")
        assert "IndexedDB holds nothing" in claim.raw
        await bench.stop()
    assert not (bench.session / "profile").exists()


async def test_a_failed_injection_is_reported_and_leaves_evidence(bench: Bench) -> None:
    bench.url += "&missing=WAWebBuildConstants"
    await bench.start(first="import agent.engines.web.view as web; web.SLOW_INJECTION = 1.5")
    failed = Status.DISCONNECTED, "injection_failed"
    while "A stand-in for WhatsApp Web" not in (await bench.claimed(*failed)).raw:
        bench.claims.clear()  # a busy machine had no page in that time: the agent's next try
        await bench.link.call("connect")
    kept = bench.session / "diagnostics"
    await bench.until(lambda: list(kept.glob("*.jpg")))
    told = json.loads(max(kept.glob("*.json")).read_text())
    assert told["why"].startswith("injection_failed")
    assert told["missing"] == ["BuildConstants"]
    assert max(kept.glob("*.jpg")).read_bytes().startswith(b"\xff\xd8\xff")


async def refused_probe(bench: Bench) -> str:
    """Probe until one fails; the code it failed with."""
    async with asyncio.timeout(60):
        while True:
            try:
                await bench.link.call("probe")
            except EngineError as error:
                return error.code


async def test_a_picture_shows_the_page_and_never_its_code(bench: Bench, stand_in: StandIn) -> None:
    link = await bench.start()
    await bench.claimed(Status.QR_REQUIRED)

    async def picture() -> bytes:
        asked = {"name": "screenshot", "arguments": {"format": "png"}}
        return b64decode((await link.call("command", asked))["content"])

    first = await picture()
    assert len(set(rows_of(first))) > 20, "the page's words are there"
    code = stand_in.page().code
    stand_in.show_next_code(stand_in.page())
    await link.call("command", {"name": "pairing_code", "arguments": {"phone": ACCOUNT}})
    assert stand_in.page().code != code
    assert rows_of(await picture()) == rows_of(first), "another code, the same picture"


async def test_the_proof_grows_old_when_no_frame_comes(
    bench: Bench, stand_in: StandIn, eventually: Any
) -> None:
    await bench.pair(stand_in)
    stand_in.alive_every = 3600

    async def is_old() -> bool:
        return bool((await bench.probe())["claim"]["proof_age"] > 2)

    await eventually(is_old)


def rows_of(png: bytes) -> list[bytes]:
    """The picture's rows, filtered as they are in the file: the same pixels are the same rows."""
    at, packed, width, depth = 8, b"", 0, 4
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        body = png[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            width, _, _, colour = struct.unpack(">IIBB", body[:10])
            depth = {2: 3, 6: 4}[colour]
        elif kind == b"IDAT":
            packed += body
        at += size + 12
    raw, stride = zlib.decompress(packed), width * depth + 1
    return [raw[start : start + stride] for start in range(0, len(raw), stride)]
