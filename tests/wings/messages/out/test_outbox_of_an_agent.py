"""The outbox of a real agent: what is accepted is sent once, over drops and deletions."""

import asyncio
import hashlib
import json
import os
import signal
from typing import Any

import pytest

from tests.daemon.test_vault import cli
from tests.wings.messages.out.sending import (
    ID,
    OUTBOX,
    PATH,
    TO,
    connected,
    goes_away,
    heard,
    left_in,
    say,
    send_file,
    state,
)


async def test_a_message_is_accepted_at_once_and_followed_to_the_phone(agent, eventually):
    await connected(agent, eventually, read_after=0.2)
    id = await say(agent, "on its way")
    await eventually(lambda: state(agent, id), "read")
    shown = await agent.do("GET", f"{OUTBOX}/{id}")
    assert shown["message_id"].startswith("3EB0")
    assert await heard(agent) == ["on its way"]
    by_whatsapp = await agent.do("GET", f"{OUTBOX}/{shown['message_id']}")
    assert by_whatsapp["id"] == id
    assert (await agent.do("GET", OUTBOX))["messages"] == [by_whatsapp]
    status, sent = await agent.ask("POST", f"{PATH}?wait=30", {"to": TO, "text": "now"})
    assert (status, sent["id"][:4]) == (200, "3EB0")


async def test_a_repeat_names_the_message_as_the_first_answer_did(agent, eventually):
    await connected(agent, eventually)
    key, body = {"Idempotency-Key": "order-7"}, {"to": TO, "text": "once"}
    status, first = await agent.ask("POST", PATH, body, key)
    assert status == 202
    await eventually(lambda: heard(agent), ["once"])
    await eventually(lambda: state(agent, first["id"]), "delivered")
    status, again = await agent.ask("POST", PATH, body, key)
    assert (status, again["id"], again["state"]) == (200, first["id"], "delivered")
    status, waited = await agent.ask("POST", f"{PATH}?wait=5", body, key)
    assert (status, waited["id"]) == (200, again["message_id"])
    assert waited["id"].startswith("3EB0")
    assert await heard(agent) == ["once"]


@pytest.mark.parametrize("key", [b"n\xba 7", "nº 7".encode(), b"\xed\xa0\x80", b"\xff\xfe"])
async def test_a_key_is_a_key_in_whatever_bytes_it_is_written(agent, eventually, key):
    await connected(agent, eventually)
    status, first = await with_key(agent, key)
    assert status == 202, first
    await eventually(lambda: heard(agent), ["once"])
    await eventually(lambda: state(agent, first["id"]), "delivered")
    assert (await with_key(agent, key))[1]["id"] == first["id"]
    assert await heard(agent) == ["once"]
    assert "Traceback" not in agent.log.read_text()


async def with_key(agent, key: bytes) -> tuple[int, dict[str, Any]]:
    """The bytes of the key as they are, which no client library sends."""
    body = json.dumps({"to": TO, "text": "once"}).encode()
    reader, writer = await asyncio.open_unix_connection(str(agent.state / "api.sock"))
    writer.write(
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n".encode()
        + b"Idempotency-Key: %s\r\n\r\n%s" % (key, body)
    )
    async with asyncio.timeout(30):
        head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(answer)


async def test_a_key_of_the_command_line_is_never_dropped(agent, eventually):
    await connected(agent, eventually)
    status, said = await cli(agent, "send", ID, TO, "hello", "--idempotency-key", "")
    assert (status, "Idempotency-Key" in said) == (2, True), said
    status, said = await cli(agent, "send", ID, TO, "hello", "--idempotency-key", "a\nb")
    assert (status, "Idempotency-Key" in said) == (2, True), said
    for _ in range(2):
        status, said = await cli(agent, "send", ID, TO, "hello", "--idempotency-key", "注文 7")
        assert status == 0, said
    assert await heard(agent) == ["hello"]
    assert (await cli(agent, "send", ID, TO, "hello", "--wait", "-1"))[0] == 2
    status, said = await cli(agent, "send", ID, TO, "--file", "/dev/zero")
    assert (status, "it has more than 64 MiB" in said) == (2, True), said


async def test_what_said_a_message_is_wiped_when_it_was_sent(agent, eventually):
    await connected(agent, eventually)
    await say(agent, "a most secret sentence")
    await eventually(lambda: heard(agent), ["a most secret sentence"])

    await eventually(lambda: b"secret sentence" not in left_in(agent), within=30)
    assert (agent.state / "outbox.db").stat().st_mode & 0o777 == 0o600
    assert "secret sentence" not in agent.log.read_text()


async def test_a_session_that_is_away_holds_its_messages_and_says_why(agent, eventually):
    await connected(agent, eventually)
    await goes_away(agent, eventually)
    texts = [f"number {n}" for n in range(5)]
    ids = [await say(agent, text) for text in texts]
    waits = (await agent.do("GET", f"/api/instance/{ID}"))["outbox"]
    assert waits["waiting"] == 5
    assert waits["sentence"].startswith("the session is ")
    shown = await agent.do("GET", f"{OUTBOX}/{ids[0]}")
    assert shown["state"] == "accepted"
    assert shown["sentence"]
    # With a client that waits, the session's own refusal is the answer, and nothing is kept.
    status, refused = await agent.ask(
        "POST", f"{PATH}?wait=30", {"to": "5511888888888", "text": "now or never"}
    )
    assert (status, refused["error"]) == (409, "not_connected")
    await agent.clear(ID)
    await eventually(lambda: heard(agent), texts)
    assert (await agent.do("GET", f"/api/instance/{ID}"))["outbox"] == {}


async def test_too_much_that_waits_is_refused_with_its_setting(make_agent, eventually):
    agent = make_agent("\n[messages]\noutbox_most = 3\noutbox_megabytes = 1\n")
    await agent.start()
    await connected(agent, eventually)
    await goes_away(agent, eventually)
    for number in range(3):
        await say(agent, f"number {number}")
    status, refused = await agent.ask("POST", PATH, {"to": TO, "text": "one more"})
    assert (status, refused["error"]) == (429, "outbox_full")
    assert "outbox_most" in refused["message"]
    last = (await agent.do("GET", f"{OUTBOX}?limit=1"))["messages"][0]["id"]
    assert (await agent.do("DELETE", f"{OUTBOX}/{last}"))["state"] == "cancelled"
    status, refused = await send_file(agent, bytes(1 << 20))
    assert (status, refused["error"]) == (507, "outbox_full")
    assert "outbox_megabytes" in refused["message"]
    assert not list((agent.state / "outbox").glob("*"))
    await say(agent, "this one fits")


async def test_a_large_file_waits_on_the_disk_and_goes_when_it_was_sent(agent, eventually):
    await connected(agent, eventually)
    await goes_away(agent, eventually)
    content = os.urandom(3 << 20)
    status, answer = await send_file(agent, content)
    assert status == 202
    (kept,) = (agent.state / "outbox").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.read_bytes() == content
    assert (agent.state / "outbox").stat().st_mode & 0o777 == 0o700
    assert (agent.state / "outbox.db").stat().st_size < 1 << 20
    await agent.kill()
    (agent.state / "outbox" / "out_of_a_kill").write_bytes(b"left")
    await agent.start()
    await agent.clear(ID)

    async def gone_out() -> bool:
        return await state(agent, answer["id"]) not in ("accepted", "failed")

    await eventually(gone_out, within=60)
    await eventually(lambda: not list((agent.state / "outbox").iterdir()))
    (got,) = (await agent.do("GET", f"/api/instance/{ID}/sandbox/heard"))["messages"]
    assert hashlib.sha256(content).hexdigest() in str(got) or str(len(content)) in str(got), got


async def test_a_cancelled_and_an_expired_message_are_never_sent(agent, eventually):
    await connected(agent, eventually)
    await goes_away(agent, eventually)
    kept, cancelled = await say(agent, "kept"), await say(agent, "cancelled")
    expired = await say(agent, "expired", expires_in=1)
    assert (await agent.do("DELETE", f"{OUTBOX}/{cancelled}"))["state"] == "cancelled"
    await eventually(lambda: state(agent, expired), "expired")
    for gone in (cancelled, expired):
        status, refused = await agent.ask("DELETE", f"{OUTBOX}/{gone}")
        assert (status, refused["error"]) == (409, "message_ended")
    status, missing = await agent.ask("DELETE", f"{OUTBOX}/out_nobody")
    assert (status, missing["error"]) == (404, "message_unknown")
    keyed = {"Idempotency-Key": "order-7"}
    order = {"to": TO, "text": "taken back"}
    _, taken = await agent.ask("POST", PATH, order, keyed)
    await agent.do("DELETE", f"{OUTBOX}/{taken['id']}")
    status, refused = await agent.ask("POST", PATH, order, keyed)
    assert (status, refused["error"]) == (409, "cancelled"), "a client's repeat undoes no cancel"
    await agent.clear(ID)
    await eventually(lambda: state(agent, kept), "read", within=60)
    await say(agent, "the last")
    await eventually(lambda: heard(agent), ["kept", "the last"])


async def test_a_deleted_instance_takes_its_messages_along(agent, eventually):
    await connected(agent, eventually)
    await goes_away(agent, eventually)
    await say(agent, "a most secret sentence")
    assert (await send_file(agent, bytes(1 << 20)))[0] == 202
    waiting = asyncio.create_task(
        agent.ask("POST", f"{PATH}?wait=60", {"to": TO, "text": "in the same chat"})
    )

    async def waits() -> bool:
        return (await agent.do("GET", f"/api/instance/{ID}"))["outbox"]["waiting"] == 3

    await eventually(waits)
    await agent.do("DELETE", f"/api/instance/{ID}")
    assert (await waiting)[0] == 404
    await eventually(lambda: not list((agent.state / "outbox").iterdir()))
    await eventually(lambda: b"secret sentence" not in left_in(agent), within=30)
    await connected(agent, eventually)
    assert (await agent.do("GET", OUTBOX))["messages"] == []
    await say(agent, "of the next one")
    await eventually(lambda: heard(agent), ["of the next one"])


async def test_acknowledgements_after_a_restart_of_the_agent_still_count(agent, eventually):
    await connected(agent, eventually, read_after=8)
    id = await say(agent, "read it later")
    await eventually(lambda: state(agent, id), "delivered")
    await agent.kill()
    await agent.start()
    await eventually(lambda: state(agent, id), "read")


async def test_a_damaged_outbox_stops_no_session_and_no_later_message(agent, eventually):
    await connected(agent, eventually)
    await say(agent, "before")
    await eventually(lambda: heard(agent), ["before"])
    await agent.stop()
    (agent.state / "outbox.db").write_bytes(b"\xff" * 65536)
    await agent.start()
    await eventually(lambda: agent.status(ID), "CONNECTED")
    status, _ = await agent.ask("POST", f"{PATH}?wait=30", {"to": TO, "text": "after"})
    assert status == 200
    events = (await agent.do("GET", "/api/events?limit=100"))["events"]
    told = [event["sentence"] for event in events if event["kind"] == "store_repaired"]
    assert [sentence for sentence in told if "outbox.db.damaged-" in sentence]


async def test_people_see_what_waits_and_take_it_back(agent, eventually):
    await connected(agent, eventually)
    await goes_away(agent, eventually)
    status, said = await cli(agent, "send", ID, TO, "hello", "--wait", "0")
    assert status == 0
    id = said.split()[2].rstrip(":")
    status, said = await cli(agent, "why", ID)
    assert "1 message waits to be sent, the oldest for " in said
    status, said = await cli(agent, "outbox", ID)
    assert id in said
    assert "1 wait: the session is " in said
    assert "hello" not in said
    status, said = await cli(agent, "outbox", ID, "--cancel", id)
    assert (status, said.strip()) == (0, f"{id} is cancelled")
    for odd in ("", "../../x", "a?b"):
        status, said = await cli(agent, "outbox", ID, "--cancel", odd)
        assert (status, "--cancel names none" in said) == (2, True), said
    status, said = await cli(agent, "outbox", ID, "--state", "cancelled")
    assert "cancelled by an operator" in said


async def test_a_temporary_ban_holds_the_messages_and_why_says_so(agent, eventually):
    await connected(agent, eventually)
    await agent.fault(ID, "temp-ban", 3600)

    async def banned() -> str:
        await say(agent, "later")
        return (await agent.do("GET", f"/api/instance/{ID}"))["outbox"].get("reason", "")

    await eventually(banned, "temporary_ban")
    _, said = await cli(agent, "why", ID)
    (line,) = [line for line in said.splitlines() if "to be sent" in line]
    assert "WhatsApp banned the account for a time" in line


async def test_acknowledgements_while_no_agent_runs_are_not_lost(agent, eventually):
    await connected(agent, eventually, read_after=3)
    id = await say(agent, "read while nobody looks")
    await eventually(lambda: state(agent, id), "delivered")
    await agent.kill()
    spool = agent.state / "sessions" / ID / "messages"

    def was_read() -> bool:
        return any(b'"state":"read"' in path.read_bytes() for path in spool.glob("*.log"))

    await eventually(was_read)
    await agent.start()
    await eventually(lambda: state(agent, id), "read")


async def test_a_pace_holds_what_waits_over_a_kill_and_ends_with_its_setting(
    make_agent, eventually
):
    agent = make_agent("\n[messages.pace]\nper_minute = 0.1\n")
    await agent.start()
    await connected(agent, eventually)
    await say(agent, "first")
    await say(agent, "second", "5511888888888")
    await eventually(lambda: heard(agent), ["first"])

    async def reason() -> str:
        return str((await agent.do("GET", f"/api/instance/{ID}"))["outbox"].get("reason"))

    await eventually(reason, "paced")
    status, words = await cli(agent, "why", ID)
    assert status == 0 and "[messages.pace] lets one message go in" in words
    status, words = await cli(agent, "outbox", ID)
    assert "1 wait: [messages.pace]" in words
    await agent.kill()
    await agent.start()
    await eventually(reason, "paced")
    assert await heard(agent) == ["first"]
    text = agent.config.read_text()
    agent.config.write_text(text.replace("per_minute = 0.1", "per_minute = 0"))
    agent.process.send_signal(signal.SIGHUP)
    await eventually(lambda: heard(agent), ["first", "second"])
