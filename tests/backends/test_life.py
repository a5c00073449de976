"""One session as lists and looks tell it, without a webhook, on both versions of Evolution."""

import asyncio

from tests.backends.conftest import AT_ONCE, Watch

CONNECT = "GET /instance/connect"
SCAN = "QR_REQUIRED"


async def test_an_open_session_is_connected_while_whatsapp_answers_through_it(
    watch: Watch, version: str
) -> None:
    at = await watch(version)
    one = await at.connected()
    assert at.asked("POST /chat/fetchBusinessProfile") == 1
    assert at.claim().paired and at.claim().account in one.wuid
    assert at.asked(CONNECT) == 0 and at.said[-1].status == "CONNECTED"
    await asyncio.sleep(30)
    assert ((await at.do("probe"))["claim"].proof_age or 0.0) > 29.0, "its own, not the look's"
    await asyncio.sleep(30)
    assert ((await at.do("probe"))["claim"].proof_age or 0.0) < 1.0
    assert at.asked("POST /chat/fetchBusinessProfile") == 2
    one.dead = "silent"
    assert (await at.do("probe"))["claim"].status == "CONNECTED"
    assert await at.refusal("probe", deep=True) == "zombie"
    assert at.says() == "unproved"
    one.dead = ""
    await at.standin.front.set("slow", 30.0, only="fetchBusinessProfile")
    assert await at.refusal("logout", confirmed=False) == "busy"


async def test_a_scan_counts_at_once(watch: Watch, version: str) -> None:
    at = await watch(version)
    one = await at.hold("one", "connecting")
    await at.until_it_says(SCAN, 20)
    for _ in range(2):
        before = one.code
        await at.until(lambda before=before: one.code != before, 60)  # type: ignore[misc]
        await asyncio.sleep(AT_ONCE)
        qr = (await at.do("qr"))["qr"]
        assert qr is not None and qr["text"] == one.code and at.says() == SCAN
    assert one.scan()
    await at.until(lambda: one.state == "open", 2)
    await at.until_it_says("CONNECTED", AT_ONCE)
    assert (await at.do("qr"))["qr"] is None and one.second_logins == 0


async def test_an_answer_about_its_account_that_was_late_is_asked_for_again(watch: Watch) -> None:
    at = await watch("1.8.6")
    await at.standin.front.set("slow", 9.0, "/instance/setPresence")
    await at.hold("one", "connecting")
    await asyncio.sleep(20)
    assert at.claim().pairing_unknown
    await at.standin.front.set("")
    await at.until_it_says(SCAN, 30)


async def test_an_outage_of_whatsapp_costs_no_pairing_and_no_login_more(
    watch: Watch, version: str
) -> None:
    at = await watch(version)
    names = [f"line{number}" for number in range(5)]
    those = [await at.hold(name) for name in names]
    await at.until(lambda: all(at.says(name) == "CONNECTED" for name in names), AT_ONCE)
    at.standin.silence(True)
    await asyncio.sleep(240)
    for name in names:
        assert at.says(name) in ("INITIALIZING", "unproved") and at.claim(name).paired
    at.standin.silence(False)
    await at.until(lambda: all(one.state == "open" for one in those), 60)
    await at.until(lambda: all(at.says(name) == "CONNECTED" for name in names), AT_ONCE)
    assert at.asked(CONNECT) == 0 and at.asked("DELETE /instance/logout") == 0
    assert all(one.creds and one.broken_logins == 0 for one in those)


async def test_the_end_of_a_pairing_is_told_with_its_reason(watch: Watch) -> None:
    at = await watch()
    one = await at.connected()
    one.end(401)
    await at.until_it_says("DISCONNECTED logout", AT_ONCE)
    assert not at.claim().paired and not at.claim().pairing_unknown
    assert at.claim().account in one.wuid


async def test_an_end_that_1_8_does_not_tell_is_seen_at_the_code_after_it(watch: Watch) -> None:
    at = await watch("1.8.6")
    one = await at.hold("one")
    one.logins = 1
    await at.until_it_says("CONNECTED", AT_ONCE)
    one.end(401)
    await at.until_it_says("DISCONNECTED connection_lost", 60)
    assert not at.claim().paired
    await at.do("connect")
    await at.until_it_says(f"{SCAN} logout", AT_ONCE)


async def test_a_session_that_ended_before_an_earlier_success_is_not_ended(watch: Watch) -> None:
    at = await watch()
    one = await at.hold("one")
    one.end(401)  # its columns stay
    one.creds = True
    one.connect()
    await at.until_it_says("CONNECTED", 2 * AT_ONCE)
    one.drop(428)
    await asyncio.sleep(2 * AT_ONCE)
    assert at.says() == "CONNECTED"


async def test_an_answer_about_another_session_is_none(watch: Watch, version: str) -> None:
    at = await watch(version)
    (await at.connected()).name = "two"
    assert await at.refusal("probe") == "wrong_session"


async def test_one_look_that_misses_a_session_ends_nothing(watch: Watch, version: str) -> None:
    at = await watch(version)
    (await at.connected()).denied = 1
    claim = (await at.do("probe"))["claim"]
    assert (claim.status, claim.reason, claim.paired) == ("INITIALIZING", "", True)
    await at.until_it_says("CONNECTED", AT_ONCE)


async def test_a_session_that_its_process_has_not_loaded_is_waited_for(
    watch: Watch, version: str
) -> None:
    at = await watch(version)
    one = await at.connected()
    one.unload()
    await at.do("probe")
    assert at.says() == "INITIALIZING" and at.claim().paired
    assert await at.refusal("connect") == "remote_refused"
    one.load(connects=True)
    await at.until_it_says("CONNECTED", AT_ONCE)
    assert at.asked(CONNECT) == 0


async def test_a_scan_before_an_outage_is_kept(watch: Watch, version: str) -> None:
    at = await watch(version)
    one = await at.hold("one", "connecting")
    await at.until_it_says(SCAN, 20)
    one.silence(True)
    one.scan()
    one._stop()  # it hangs between the scan and its first login
    await asyncio.sleep(70)
    claim = at.claim()
    assert (claim.status, claim.phase, claim.pairing_unknown) == ("INITIALIZING", "pairing", True)
    before = at.asked(CONNECT)
    await asyncio.sleep(60)
    assert at.asked(CONNECT) == before


async def test_used_up_codes_are_told(watch: Watch) -> None:
    at = await watch()
    one = await at.hold("one", "connecting")
    await at.until_it_says(SCAN, 20)
    one._codes_used_up()
    await at.until_it_says(f"{SCAN} qr_idle", 200)


async def test_a_paired_session_in_close_is_left_to_its_server(watch: Watch, version: str) -> None:
    at = await watch(version)
    one = await at.connected()
    one._stop()
    one.state = "close"
    await at.until_it_says("INITIALIZING", 30)
    await asyncio.sleep(2 * AT_ONCE)
    for action in ("connect", "restart"):
        assert await at.refusal(action) == "remote_refused"
    assert (await at.do("qr"))["qr"] is None
    assert at.asked(CONNECT) == 0
    await at.until_it_says("DISCONNECTED connection_lost", 200)  # it makes no more tries
    await at.do("connect")
    await at.until_it_says("CONNECTED", AT_ONCE)
    assert at.asked(CONNECT) == 1
