"""A session's life in the real worker: real browser, unmodified bundle, stand-in page."""

import asyncio
import base64
import os
import signal
from pathlib import Path

import pytest

from agent.core.model import ConnectionStatus
from agent.engines.web.kept import read_note
from agent.engines.web.standin.server import StandIn
from agent.errors import EngineError
from tests.engines.web.bench import ACCOUNT, Bench, lives, processes_below

Status = ConnectionStatus


async def test_a_new_session_shows_a_code_and_connects_when_a_phone_scans_it(
    bench: Bench, stand_in: StandIn
) -> None:
    link = await bench.start()
    claim = await bench.claimed(Status.QR_REQUIRED)
    assert not claim.paired
    assert [each.phase for each in bench.claims][-1] == "login"
    told = (await link.call("qr"))["qr"]
    assert told["text"].startswith(stand_in.page().code + ",")
    assert told["text"].count(",") == 3
    assert told["number"] == 1 and 30 < told["expires_in"] <= 60

    stand_in.scan(ACCOUNT)
    claim = await bench.claimed(Status.CONNECTED)
    assert claim.paired and claim.account == ACCOUNT
    assert claim.proof_age is not None and claim.proof_age < 5
    assert (await link.call("qr"))["qr"] is None
    await bench.until(lambda: read_note(bench.session).account == ACCOUNT)


async def test_a_restart_needs_no_new_scan(bench: Bench, stand_in: StandIn) -> None:
    device = await bench.pair(stand_in)
    assert await bench.stop() == 0
    await bench.start()
    claim = await bench.claimed(Status.CONNECTED)
    assert claim.account == ACCOUNT
    assert stand_in.page().device == device
    assert not any(each.status is Status.QR_REQUIRED for each in bench.claims)


async def test_a_killed_worker_takes_its_browser_along_and_the_next_one_connects(
    bench: Bench, stand_in: StandIn
) -> None:
    await bench.pair(stand_in)
    assert bench.process is not None
    tree = list(processes_below(bench.process.pid))
    assert len(tree) > 2
    bench.kill_worker()
    await bench.until(lambda: not any(lives(pid) for pid in tree), within=5)
    await bench.start()
    await bench.claimed(Status.CONNECTED)


async def test_f03_a_killed_browser_is_started_anew_by_the_same_worker(
    bench: Bench, stand_in: StandIn
) -> None:
    await bench.pair(stand_in)
    first = await bench.browser()
    os.kill(first, signal.SIGKILL)
    await bench.until(lambda: bench.claims[-1].status is Status.RECONNECTING)
    assert bench.claims[-1].reason == "page_crashed"
    await bench.claimed(Status.CONNECTED)
    assert await bench.browser() != first
    assert bench.process is not None and bench.process.poll() is None


async def test_f03_a_browser_that_dies_too_often_is_left_to_the_agent(
    bench: Bench, stand_in: StandIn
) -> None:
    await bench.pair(stand_in, browser_starts=1)
    os.kill(await bench.browser(), signal.SIGKILL)
    await bench.until(lambda: bench.claims[-1].status is Status.RECONNECTING)
    await bench.claimed(Status.CONNECTED)
    os.kill(await bench.browser(), signal.SIGKILL)
    await bench.claimed(Status.DISCONNECTED, "page_crashed")


async def test_f84_no_process_of_a_session_listens_on_a_port(
    bench: Bench, stand_in: StandIn
) -> None:
    await bench.pair(stand_in)
    assert bench.process is not None
    mine = set()
    for pid in processes_below(bench.process.pid):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(fd.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                mine.add(target[8:-1])
    listening = {
        fields[9]
        for table in ("tcp", "tcp6")
        for fields in (row.split() for row in Path(f"/proc/net/{table}").read_text().splitlines())
        if fields[3] == "0A"
    }
    assert mine and not mine & listening


async def test_messages_go_out_and_come_in_and_are_counted_without_their_text(
    bench: Bench, stand_in: StandIn
) -> None:
    await bench.pair(stand_in)
    told = await bench.link.call(
        "send", {"message": {"type": "text", "to": "+55 11 88888-8888", "text": "very secret"}}
    )
    assert told["outcome"] == "sent" and told["ack"] == "server"
    sent = next(each for each in stand_in.page().received if each["do"] == "send")
    assert (sent["to"], sent["body"]) == ("5511888888888@c.us", "very secret")
    assert sent["id"] == told["id"]
    page = stand_in.page()
    page.tell("receipt", ack=3, **{"from": "5511888888888@c.us"}, ids=[told["id"]])
    page.tell("message", **{"from": "5511777777777@c.us"}, body="also secret")

    def seen(kind: str, **detail: str) -> bool:
        return any(
            each.kind == kind and detail.items() <= each.detail.items() for each in bench.happened
        )

    await bench.until(lambda: seen("message", direction="in", type="chat"))
    await bench.until(lambda: seen("message", direction="out", id=told["id"]))
    await bench.until(lambda: seen("ack", id=told["id"], ack="read"))
    assert "secret" not in repr(bench.happened) and "5511" not in repr(bench.happened)


async def test_a_file_is_sent(bench: Bench, stand_in: StandIn) -> None:
    await bench.pair(stand_in)
    content = base64.b64encode(b"x" * 1000).decode()
    told = await bench.link.call(
        "send",
        {
            "message": {
                "type": "media",
                "to": "5511888888888",
                "content": content,
                "mimetype": "text/plain",
                "filename": "x.txt",
            }
        },
    )
    assert told["outcome"] == "sent"
    sent = next(each for each in stand_in.page().received if each["do"] == "send")
    assert sent["size"] == 1000


async def test_a_message_without_a_connection_is_refused(bench: Bench, stand_in: StandIn) -> None:
    await bench.start()
    await bench.claimed(Status.QR_REQUIRED)
    with pytest.raises(EngineError) as caught:
        await bench.link.call("send", {"message": {"to": "5511888888888", "text": "hi"}})
    assert caught.value.code == "not_connected"


async def test_a_message_that_a_crash_leaves_open_is_unknown_and_has_its_id(
    bench: Bench, stand_in: StandIn
) -> None:
    await bench.pair(stand_in)
    pid = await bench.browser()
    stand_in.answers_sends = False
    asked = asyncio.ensure_future(
        bench.link.call("send", {"message": {"to": "5511888888888", "text": "hi"}}, timeout=15)
    )
    await bench.until(lambda: any(each["do"] == "send" for each in stand_in.page().received))
    sent = next(each for each in stand_in.page().received if each["do"] == "send")
    os.kill(pid, signal.SIGKILL)
    told = await asked
    assert told["outcome"] == "unknown" and told["id"] == sent["id"]


async def test_a_file_whose_answer_is_late_is_unknown_and_has_its_id(
    bench: Bench, stand_in: StandIn
) -> None:
    await bench.start(first="import agent.engines.web.engine as web; web._FILE_ANSWER = 0.5")
    await bench.claimed(Status.QR_REQUIRED)
    stand_in.scan(ACCOUNT)
    await bench.claimed(Status.CONNECTED)
    stand_in.answers_sends = False
    file = {"type": "media", "content": "eA==", "mimetype": "text/plain", "filename": "x.txt"}
    told = await bench.link.call("send", {"message": {"to": "5511888888888", **file}})
    sent = next(each for each in stand_in.page().received if each["do"] == "send")
    assert (told["outcome"], told["id"]) == ("unknown", sent["id"])


async def test_a_logout_on_our_side_reaches_whatsapp(bench: Bench, stand_in: StandIn) -> None:
    device = await bench.pair(stand_in)
    await bench.link.call("logout")
    claim = await bench.claimed(Status.DISCONNECTED, "logout")
    assert not claim.paired
    assert device not in stand_in.devices
    await bench.until(lambda: not read_note(bench.session).paired)


async def test_a_stop_leaves_a_profile_without_locks(bench: Bench, stand_in: StandIn) -> None:
    await bench.pair(stand_in)
    assert await bench.stop() == 0
    assert (bench.session / "profile" / "Default" / "IndexedDB").is_dir()
    assert not list((bench.session / "profile").glob("Singleton*"))
