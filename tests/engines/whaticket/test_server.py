"""Requests against the stand-in: tokens, states, faults, what a session is told and tells."""

import asyncio
import ssl
import subprocess

import pytest

from agent.core.model import ConnectionStatus as Status
from agent.errors import EngineError, InvalidRequest

PEER = "5511999990001"


async def up(bench, id="7", *, eventually):
    session = await bench.paired(id)
    await eventually(lambda: session.status, "CONNECTED")
    return session


async def test_a_check_reports_the_server_and_its_sessions(open_bench, eventually):
    bench = await open_bench()
    await up(bench, eventually=eventually)
    backend = await bench.open()
    await eventually(lambda: bench.heard.servers)
    [claim] = bench.heard.servers
    assert (claim.up, claim.sessions) == (True, 1)
    [listed] = await backend.sessions()
    assert (listed.name, listed.status, listed.account) == ("7", "CONNECTED", "55110000000" + "7")


async def test_an_expired_token_is_renewed_once_for_all(open_bench, eventually):
    bench = await open_bench()
    await up(bench, eventually=eventually)
    await bench.open()
    sessions = [bench.hold(f"s{n}", "7") for n in range(20)]
    assert {(await s.probe()).claim.status for s in sessions} == {Status.CONNECTED}
    assert bench.stand_in.logins == 1
    bench.stand_in.expire_tokens()
    answers = await asyncio.gather(*(session.probe() for session in sessions))
    assert {answer.claim.status for answer in answers} == {Status.CONNECTED}
    assert bench.stand_in.logins == 2


async def test_a_refused_password_is_not_tried_again_and_again(open_bench, eventually):
    bench = await open_bench(password="wrong")
    await up(bench, eventually=eventually)
    backend = await bench.open()
    sessions = [bench.hold(f"s{n}", "7") for n in range(10)]
    told = await asyncio.gather(*(s.probe() for s in sessions), return_exceptions=True)
    assert {getattr(each, "code", None) for each in told} == {"backend_down"}
    claim = await backend.check()
    assert (claim.up, claim.reason) == (False, "refused_key")
    assert bench.stand_in.requests.count("POST /auth/login") == 1
    assert "wrong" not in repr(claim) + str(told)


@pytest.mark.parametrize(
    ("fault", "value", "reason"),
    [
        ("dead", True, "unreachable"),
        ("garbage", True, "garbage"),
    ],
)
async def test_a_server_that_is_not_well(open_bench, eventually, fault, value, reason):
    bench = await open_bench(timeout=0.7 if fault == "slow" else 20.0)
    await up(bench, eventually=eventually)
    backend = await bench.open()
    session = bench.hold("shop", "7")

    async def is_well():
        return (await backend.check()).up

    # With a check of its own, which began before, it shares the answer.
    await eventually(is_well)
    await session.probe()
    setattr(bench.stand_in.faults, fault, value)
    claim = await backend.check()
    assert (claim.up, claim.reason) == (False, reason)
    for asked in (session.probe, session.connect, session.restart, session.qr):
        with pytest.raises(EngineError) as caught:
            await asked()
        assert caught.value.code == "backend_down"
    setattr(bench.stand_in.faults, fault, type(value)(0))
    await eventually(is_well)
    assert (await session.probe()).claim.status is Status.CONNECTED


async def test_another_program_on_that_port_is_no_missing_session(open_bench, eventually):
    bench = await open_bench(
        list_route="GET /nowhere", state_route="GET /nowhere/{id}", start_route="PUT /no/{id}"
    )
    await up(bench, eventually=eventually)
    backend = await bench.open()
    session = bench.hold("shop", "7")
    assert (await backend.check()).reason == "not_found"
    with pytest.raises(EngineError) as caught:
        await session.probe()
    assert caught.value.code == "backend_down"


def certificate(folder, name):
    key, place = folder / f"{name}.key", folder / f"{name}.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(key), "-out", str(place)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place, key)
    return place, context


async def test_f60_a_certificate_that_is_not_trusted(open_bench, tmp_path):
    place, context = certificate(tmp_path, "server")
    bench = await open_bench(tls=context)
    https = bench.stand_in.url.replace("http:", "https:")
    backend = await bench.open(url=https)
    claim = await backend.check()
    assert (claim.up, claim.reason) == (False, "tls")
    await bench.close()
    backend = await bench.open(url=https, ca_file=str(place))
    assert (await backend.check()).up


# --- one session -----------------------------------------------------------------------------


async def test_states_through_a_life(open_bench, eventually):
    bench = await open_bench()
    theirs = bench.stand_in.add("7", "Shop")
    await bench.open()
    session = bench.hold("shop", "Shop")
    claim = (await session.probe()).claim
    assert (claim.status, claim.paired) == (Status.DISCONNECTED, False)
    bench.stand_in.faults.stuck_opening = True
    await session.connect()
    assert (await session.probe()).claim.status is Status.INITIALIZING
    assert (await session.probe()).claim.phase == "", "the general limit holds"
    await session.connect()  # it is on its way: a second socket would fight the first
    assert theirs.starts == 1
    bench.stand_in.faults.stuck_opening = False
    await eventually(lambda: theirs.status, "qrcode")
    assert (await session.probe()).claim.status is Status.QR_REQUIRED
    code = await session.qr()
    assert code is not None
    assert code.text == theirs.qrcode
    assert code.number == 1
    assert code.text not in repr(code)
    theirs.scan()
    await eventually(lambda: theirs.status, "CONNECTED")
    claim = (await session.probe()).claim
    assert (claim.status, claim.paired, claim.proof_age) == (Status.CONNECTED, True, 0.0)
    assert claim.account == "5511000000000"
    assert await session.qr() is None
    await session.disconnect()
    claim = (await session.probe()).claim
    assert (claim.status, claim.reason, claim.paired) == (Status.DISCONNECTED, "", True)
    await session.connect()
    await eventually(lambda: theirs.status, "CONNECTED")
    await session.logout()
    claim = (await session.probe()).claim
    assert (claim.status, claim.reason, claim.paired) == (Status.DISCONNECTED, "logout", False)
    assert bench.of["shop"].claims[-1].reason == "logout"


async def test_a_missing_session_is_missing_and_one_with_a_name_is_made(open_bench, eventually):
    bench = await open_bench()
    await bench.open()
    number, named = bench.hold("number", "44"), bench.hold("named", "New Shop")
    for session in (number, named):
        claim = (await session.probe()).claim
        assert (claim.status, claim.reason) == (Status.DISCONNECTED, "remote_missing")
    with pytest.raises(EngineError) as caught:
        await number.connect()
    assert caught.value.code == "remote_missing"
    with pytest.raises(EngineError) as caught:
        await bench.hold("found", "Old Shop", adopted=True).connect()
    assert caught.value.code == "remote_missing"
    assert not bench.stand_in.sessions
    await named.connect()
    [theirs] = bench.stand_in.sessions.values()
    assert theirs.name == "New Shop"
    await eventually(lambda: theirs.status, "qrcode")


async def test_a_name_that_two_have_is_refused(open_bench):
    bench = await open_bench()
    bench.stand_in.add("1", "Twin")
    bench.stand_in.add("2", "Twin")
    await bench.open()
    with pytest.raises(EngineError, match="several have that name") as caught:
        await bench.hold("shop", "Twin").probe()
    assert caught.value.code == "remote_ambiguous"


@pytest.mark.parametrize(
    ("preset", "key"),
    [
        ("saas", ""),
    ],
    ids=[
        "own token",
    ],
)
async def test_a_message_is_sent(open_bench, eventually, preset, key):
    bench = await open_bench(preset=preset, key=key)
    theirs = await up(bench, eventually=eventually)
    if preset == "community":
        theirs.token = ""
    await bench.open()
    session = bench.hold("shop", "7")
    assert (await session.send({"to": "+55 11 99999-0001", "text": "hi"}))["outcome"] == "sent"
    assert bench.stand_in.sent == [{"number": PEER, "body": "hi", "whatsappId": "7"}]
    for message in ({"to": "1203@g.us", "text": "x"}, {"to": PEER}, {"to": "x", "text": "x"}):
        with pytest.raises(InvalidRequest):
            await session.send(message)
    await theirs.log_out()
    with pytest.raises(EngineError, match="not connected"):
        await session.send({"to": PEER, "text": "hi"})


async def test_unknown_commands_are_refused(open_bench):
    bench = await open_bench()
    bench.stand_in.add("7")
    backend = await bench.open()
    session = bench.hold("shop", "7")
    with pytest.raises(InvalidRequest, match="removed and restore_removed"):
        await session.command("dance", {})
    for name in ("../..", "20260101T000000Z", 7, None):
        with pytest.raises(InvalidRequest, match="cannot put back"):
            await session.command("restore_removed", {"name": name})
    with pytest.raises(EngineError, match="send none"):
        await backend.hook({})
    with pytest.raises(InvalidRequest):
        backend.hold(session.id, {"remote": 7}, bench.of["shop"])
    backend.release(session.id)


async def test_a_session_that_the_server_does_not_run_needs_no_logout(open_bench, eventually):
    bench = await open_bench(preset="community")
    theirs = await up(bench, eventually=eventually)
    await bench.open()
    session = bench.hold("shop", "7")
    await theirs.end()
    theirs.status = "DISCONNECTED"
    await session.logout()
    assert [each.split()[0] for each in bench.stand_in.requests].count("DELETE") == 1
    assert bench.of["shop"].claims == [], "no session was logged out"
