"""Every fault of the sandbox, through the real worker: what it does and what ends it."""

import asyncio
import json
import signal
import time
from typing import Any

import pytest

from agent.core.model import ConnectionStatus as Status
from agent.errors import EngineError, LinkError


def pings(bench: Any) -> int:
    return sum("WATCHDOG=1" in each for each in bench.notices)


async def test_crash_is_a_sudden_death_and_the_session_comes_back(bench: Any) -> None:
    await bench.connected()
    await bench.fault("crash")
    assert await bench.ended() == -signal.SIGKILL
    await bench.until(lambda: bench.closed)
    await bench.connected()


async def test_hang_stops_the_pings_and_the_watchdogs_signal_shows_where(bench: Any) -> None:
    link = await bench.connected(watchdog=0.4)
    await bench.until(lambda: pings(bench) >= 2)
    await bench.fault("hang")
    with pytest.raises(LinkError):  # it hangs a moment after it said so
        while True:
            await link.call("probe", timeout=0.5)
    before = pings(bench)
    with pytest.raises(LinkError) as caught:
        await link.call("probe", timeout=1.0)
    assert caught.value.code == "timeout"
    assert pings(bench) == before
    bench.process.send_signal(signal.SIGABRT)  # as the manager does
    assert await bench.ended() == -signal.SIGABRT
    assert "Current thread" in bench.errors()


async def test_zombie_claims_connected_while_its_proof_grows_old(bench: Any) -> None:
    link = await bench.connected(watchdog=2.0)
    await bench.fault("zombie")
    for deep in (False, True):
        with pytest.raises(EngineError) as caught:
            await link.call("probe", {"deep": deep})
        assert caught.value.code == "no_answer"
    with pytest.raises(EngineError):
        await link.call("send", {"message": {"to": "x", "text": "y"}})
    # The engine itself answers, so the manager keeps the worker: the session is the agent's.
    before = pings(bench)
    await bench.until(lambda: pings(bench) > before + 1)
    again = await bench.linked()
    await bench.until(lambda: bench.claims)
    assert bench.claims[-1].status is Status.CONNECTED
    assert bench.claims[-1].proof_age > 1
    await again.call("command", {"name": "fault", "arguments": {"name": "clear"}})
    assert (await again.call("probe"))["claim"]["proof_age"] < 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("drop", "connection_lost"), ("conflict", "conflict"), ("logout", "logout")],
)
async def test_a_lost_connection_stays_lost_until_connect(
    bench: Any, fault: str, reason: str
) -> None:
    link = await bench.connected()
    await bench.fault(fault)
    claim = await bench.status(Status.DISCONNECTED, reason)
    assert claim.proof_age is None
    assert claim.paired is (fault != "logout")
    saved = json.loads((bench.session / "sandbox.json").read_text())
    assert saved["paired"] is (fault != "logout")
    await asyncio.sleep(0.3)
    assert bench.claims[-1] == claim, "an engine never retries"
    bench.claims.clear()
    await link.call("connect")
    await bench.status(Status.CONNECTED)
    assert (Status.QR_REQUIRED in [each.status for each in bench.claims]) is (fault == "logout")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("drop", "connection_lost"),
        ("ban", "banned"),
        ("temp-ban", "temporary_ban"),
        ("outdated", "client_outdated"),
        ("conflict", "conflict"),
    ],
)
async def test_a_fault_that_a_restart_does_not_cure_outlives_it(
    bench: Any, fault: str, reason: str
) -> None:
    link = await bench.connected()
    await bench.fault(fault, 600)
    claim = await bench.status(Status.DISCONNECTED, reason)
    assert (claim.until_wall is not None) is (fault == "temp-ban")
    bench.claims.clear()
    await link.call("connect")
    await bench.status(Status.DISCONNECTED, reason)
    bench.process.kill()
    await bench.ended()
    bench.start()
    link = await bench.linked()
    claim = await bench.status(Status.DISCONNECTED, reason)
    assert claim.paired
    assert (claim.until_wall is not None) is (fault == "temp-ban")
    await bench.fault(fault, 0.3)
    over = time.monotonic() + 0.3
    await bench.until(lambda: time.monotonic() > over)
    await link.call("connect")
    await bench.status(Status.CONNECTED)


async def test_leak_takes_real_memory_and_gives_it_back(bench: Any) -> None:
    await bench.connected()

    def anonymous() -> int:
        with open(f"/proc/{bench.process.pid}/status") as status:  # noqa: PTH123
            return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))

    before = anonymous()
    await bench.fault("leak", bytes_per_second=200 * 2**20)
    await bench.until(lambda: anonymous() - before > 60 * 1024)
    await bench.fault("clear")
    await bench.until(lambda: anonymous() - before < 30 * 1024)


@pytest.mark.parametrize(("fault", "code"), [("bad-mac", "bad_mac"), ("prekey", "prekey_error")])
async def test_crypto_errors_stop_for_the_peer_whose_keys_are_new(
    bench: Any, fault: str, code: str
) -> None:
    link = await bench.connected()
    peers = ["1@s.whatsapp.net", "2@s.whatsapp.net"]
    await bench.fault(fault, None, peers=peers, per_minute=3000)

    def errors(peer: str) -> int:
        return sum(
            each.kind == "crypto_error" and each.detail["peer"] == peer for each in bench.happened
        )

    await bench.until(lambda: errors(peers[0]) > 3 and errors(peers[1]) > 3)
    assert {each.detail["pattern"] for each in bench.happened if each.kind == "crypto_error"} == {
        code
    }
    await link.call("regenerate_keys", {"peers": [peers[0]]})
    first, second = errors(peers[0]), errors(peers[1])
    await bench.until(lambda: errors(peers[1]) > second + 5)
    assert errors(peers[0]) == first
    await link.call("regenerate_keys", {"peers": [peers[1]]})
    assert sum(each.kind == "key_regeneration" for each in bench.happened) == 2
    assert await bench.fault("list") == {"faults": {}}


async def test_f43_corrupt_files_are_reported_and_left_as_they_are(bench: Any) -> None:
    await bench.connected()
    await bench.fault("corrupt-files")
    assert await bench.ended() == -signal.SIGKILL
    damaged = (bench.session / "sandbox.json").read_bytes()
    bench.start()
    link = await bench.linked()
    await bench.status(Status.AUTH_FAILURE, "session_damaged")
    await link.call("save")
    with pytest.raises(EngineError, match="was not read"):
        await link.call("logout")
    bench.process.terminate()
    assert await bench.ended() == 0
    assert (bench.session / "sandbox.json").read_bytes() == damaged


async def test_f42_a_session_folder_deleted_under_a_live_worker_is_never_recreated(
    bench: Any,
) -> None:
    link = await bench.connected()
    (bench.session / "sandbox.json").unlink()
    bench.session.rmdir()
    assert (await link.call("probe", {"deep": True}))["detail"]["files"] == "absent"
    with pytest.raises(EngineError) as caught:
        await link.call("save")
    assert caught.value.code == "save_failed" and str(bench.session) in str(caught.value)
    bench.process.terminate()
    assert await bench.ended() == 1
    assert not bench.session.exists()
    assert "not all was saved" in bench.errors()


async def test_a_session_file_that_vanished_is_damage_and_no_new_beginning(bench: Any) -> None:
    link = await bench.connected()
    (bench.session / "sandbox.json").unlink()
    await link.call("disconnect")
    await link.call("connect")
    await bench.status(Status.AUTH_FAILURE, "session_damaged")
    assert not (bench.session / "sandbox.json").exists()
