"""Claims and actions of sessions on a whaticket server."""

import asyncio

import pytest

from tests.backends.whaticket.conftest import PEER, OpenBench


async def test_one_list_tells_of_all_sessions(bench: OpenBench) -> None:
    at = await bench()
    at.standin.under = "whatsapps"
    assert (await at.server.check()).up, "an empty list under a name"
    for id in ("1", "2", "3"):
        await at.paired(id)
    assert at.standin.logins == 1
    at.standin.expire_tokens()
    begun = len(at.standin.requests)
    await at.until(lambda: len(at.standin.requests) >= begun + 6, 60)
    assert set(at.standin.requests[begun + 2 :]) == {"GET /whatsapp/"} and at.standin.logins == 2
    assert [it.name for it in at.server.sessions] == ["1", "2", "3"]


async def test_a_life(bench: OpenBench) -> None:
    at = await bench()
    theirs = at.standin.add("7", "Shop")
    await asyncio.sleep(6)  # its next list has it
    await at.hold("Shop")
    await at.do("connect", "Shop")
    # It is on its way: a second socket would fight the first.
    await at.do("connect", "Shop")
    assert theirs.starts == 1
    await at.until(lambda: at.status("Shop") == "QR_REQUIRED", 6)
    assert (await at.do("qr", "Shop"))["qr"]["text"] == theirs.qrcode
    theirs.scan()
    await at.until(lambda: at.status("Shop") == "CONNECTED", 6)
    assert at.claim("Shop").paired and (await at.do("qr", "Shop"))["qr"] is None
    await at.do("disconnect", "Shop")
    await at.until(lambda: at.status("Shop") == "DISCONNECTED", 6)
    assert (at.claim("Shop").reason, at.claim("Shop").paired) == ("", True)
    await at.do("restart", "Shop")
    await at.until(lambda: at.status("Shop") == "CONNECTED", 6)
    # A session that changed since the last look may have another pairing.
    theirs.pace.restart_after = 6.0
    await theirs.drop()
    await at.until(lambda: at.status("Shop") == "RECONNECTING", 6)
    await at.until(lambda: theirs.status == "CONNECTED", 7)
    assert await at.refusal("logout", "Shop") == "pairing_kept"
    theirs.number = "5511000000008"
    assert await at.refusal("renew", "Shop") == "pairing_kept" and theirs.logouts == 0
    at.server.seats["Shop"].session.known.row_at -= 100.0  # it was slow
    assert await at.refusal("logout", "Shop", confirmed=False) == "busy"
    await at.do("logout", "Shop")
    await at.until(lambda: at.claim("Shop").reason == "logout", 6)


@pytest.mark.parametrize("own", [{"password": "wrong"}, {}], ids=["password", "token"])
async def test_a_refused_login_is_not_tried_again(bench: OpenBench, own: dict[str, str]) -> None:
    at = await bench(**own)
    await asyncio.sleep(1)
    at.standin._tokens = type("NoneHolds", (dict,), {"get": lambda *_: 0.0})()
    for _ in range(4):
        claim = await at.server.check()
        assert (claim.up, claim.reason) == (False, "refused_key") and "wrong" not in claim.sentence
    assert at.standin.requests.count("POST /auth/login") <= 2


async def test_a_missing_session_is_made_only_where_the_agent_made_it(bench: OpenBench) -> None:
    at = await bench()
    at.standin.add("1", "Twin")
    at.standin.add("2", "Twin")
    await asyncio.sleep(6)
    names = ("44", "Old", "Twin", "New")
    for name in names:
        await at.hold(name, adopted=name != "New")
    await at.until(lambda: at.status("44") and at.status("New") and at.status("Old"), 6)
    assert {at.claim(name).reason for name in ("44", "New", "Old")} == {"remote_missing"}
    for name, code in zip(names, ["missing", "missing", "ambiguous"], strict=False):
        assert await at.refusal("connect", name) == f"remote_{code}"
    await at.do("connect", "New")
    twin, made = at.standin.add("4", "New"), at.standin.sessions["3"]
    await asyncio.sleep(12)
    assert at.status("New") == "QR_REQUIRED", "which one is known"
    twin.name = made.name = "Another"  # by a person, or others have these ids now
    await asyncio.sleep(6)
    assert await at.refusal("logout", "New") == "remote_missing"


async def test_an_answer_about_another_session_names_none_to_act_on(bench: OpenBench) -> None:
    at = await bench()
    at.standin.add("1").id = "77"
    await asyncio.sleep(6)  # its next list has it
    await at.hold("1")
    for act in ("connect", "disconnect", "restart", "logout", "renew", "regenerate_keys", "qr"):
        assert await at.refusal(act, "1") == "wrong_session"
    at.server.leave("1")
    await asyncio.gather(at.server.start("1"), return_exceptions=True)
    assert "for session '77'" in at.server.unit("1").status_text, "why it is not watched"
    assert not at.acts and not any("77" in it for it in at.standin.requests)


@pytest.mark.parametrize("preset", ["community", "ticketz"])
async def test_a_disconnect_that_logs_out_is_never_used(bench: OpenBench, preset: str) -> None:
    at = await bench(preset=preset)
    theirs = await at.paired()
    before = set(at.auth())
    for repair in ("disconnect", "regenerate_keys", "disconnect"):
        assert await at.refusal(repair, "7", peers=[PEER]) == "not_supported"
        theirs.pace.restart_after = 0.3
        await theirs.drop()  # it is down, and comes back by itself
    assert at.claim("7").useless == ("reconnect",)
    await at.until(lambda: theirs.status == "CONNECTED", 10)
    await at.do("restart", "7")
    await at.until(lambda: theirs.status == "CONNECTED", 10)
    route = {"ticketz": "GET /whatsappsession/refresh/7"}.get(preset, "POST /whatsappsession/7")
    assert at.acts == [route] and theirs.logouts == 0 and set(at.auth()) == before
