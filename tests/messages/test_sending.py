"""Messages to send: taken onto the disk, sent once and in order, whatever happens meanwhile."""

import asyncio
import base64
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest

from agent.core.model import ClaimFact, ConnectionStatus
from agent.core.words import Claim
from agent.engines.catalog import CATALOG
from agent.errors import EngineError, StoreError, TryLater, WaError
from agent.files import VARIABLE, FailpointHit
from agent.messages.outcomes import LOCK_TRY
from agent.messages.sending import FOLDER, MARK_EVERY, TIDY_EVERY
from agent.messages.settings import MessagesSettings, PaceSettings
from tests.messages.bench import AWAY, ID, UNKNOWN, Agent, Phone, code_of, until
from tests.messages.records import file_at, messages

A, B = "4915100000001", "4915100000002"
LID = "123456789012345@lid"
MEDIA = {"type": "media", "to": A, "mimetype": "a/b", "content": "eHh4" * 99_000}
CONNECTED = ConnectionStatus.CONNECTED


@pytest.fixture
def phone() -> Phone:
    return Phone()


@pytest.fixture
async def agent(tmp_path: Path, phone: Phone) -> AsyncIterator[Agent]:
    agent = await Agent(tmp_path, phone).start()
    yield agent
    await agent.stop()


async def test_a_message_is_kept_at_once_and_sent_when_the_session_can(
    agent: Agent, phone: Phone
) -> None:
    phone.show(status=AWAY, reason="temporary_ban", sentence="the network is down")
    taken = await agent.say(A, "hello")
    assert (await agent.sending.answer(taken, 0))[0] == 202
    await asyncio.sleep(100)
    row, held = await agent.row(taken), agent.sending.waiting(ID)
    assert ("the network is down" in row["sentence"], held["reason"]) == (True, "temporary_ban")
    phone.show(status=CONNECTED)
    agent.tell("status")
    await until(lambda: phone.texts() == ["hello"], 1.0)
    await asyncio.sleep(1)
    sent = (await agent.row(taken))["message_id"]
    assert (sent in phone.heard, (await agent.sending.show(ID, sent))["to"]) == (True, A)


async def test_what_a_message_said_is_wiped_when_it_was_sent(agent: Agent, phone: Phone) -> None:
    phone.show(status=AWAY)
    await agent.say(A, "a secret of ours" * 999)

    def left() -> bytes:
        return b"".join(each.read_bytes() for each in agent.folder.glob("outbox.db*"))

    assert b"a secret of ours" in left()
    phone.show(status=CONNECTED)
    await until(phone.texts)
    await asyncio.sleep(10)
    assert b"a secret of ours" not in left()
    assert {each.stat().st_mode & 0o777 for each in agent.folder.glob("outbox.db*")} == {0o600}


async def test_a_chat_keeps_its_order_and_delays_no_other(agent: Agent, phone: Phone) -> None:
    phone.refuses["a1"] = [EngineError("x", code="browser_gone")] * 3
    for text, to in (("a1", A), ("a2", A), ("b1", B), ("b2", B)):
        await agent.say(to, text)
    await until(lambda: len(phone.heard) == 4)
    texts = phone.texts()
    assert texts.index("b2") < texts.index("a1") < texts.index("a2")
    assert phone.tried.count("a1") == 4


async def test_chats_take_turns_and_four_at_most_at_once(agent: Agent, phone: Phone) -> None:
    phone.takes = 1.0
    for number in range(30):
        await agent.say(A, f"a{number}")
    for number in range(8):
        await agent.say(f"49151111000{number}", f"b{number}")
    begun = time.time()
    await until(lambda: sum(text[0] == "b" for text in phone.texts()) == 8)
    assert time.time() - begun < 6
    await until(lambda: len(phone.heard) == 38)
    assert [text for text in phone.texts() if text[0] == "a"] == [f"a{n}" for n in range(30)]


async def test_both_names_of_a_person_are_one_chat(agent: Agent, phone: Phone) -> None:
    file = file_at(agent.session)
    file.append(messages([1], chat=LID, alias=f"{A}@s.whatsapp.net"))
    file.close()
    phone.refuses["1"] = [EngineError("x", code="browser_gone")]
    for text, to in (("1", A), ("2", LID), ("3", f"+{A}"), ("4", f"{A}:7@s.whatsapp.net")):
        await agent.say(to, text)
    await until(lambda: len(phone.heard) == 4)
    assert phone.texts() == ["1", "2", "3", "4"]


@pytest.mark.parametrize("code", ["number_unknown", "invalid_request", "file_too_large"])
async def test_what_is_about_the_message_fails_at_once_and_frees_its_key(
    agent: Agent, phone: Phone, code: str
) -> None:
    phone.refuses["a1"] = [EngineError("no such number", code=code)]
    with pytest.raises(WaError) as caught:
        await agent.ask(A, "a1", key="k")
    assert caught.value.http in (400, 409, 413)
    assert (await agent.ask(A, "a1", key="k"))[1]["message_id"] == next(iter(phone.heard))
    rows = await agent.sending.page(ID)
    assert [row["state"] for row in rows] == ["sent", "failed"]
    assert agent.sending.ended(ID)["reasons"] == {rows[1]["reason"]: 1}


async def test_one_key_is_one_message(agent: Agent, phone: Phone) -> None:
    phone.takes = 2.0
    first, second = await asyncio.gather(*(agent.ask(A, "once", key="k") for _ in range(2)))
    assert (first, phone.tried) == (second, ["once"])
    assert await agent.ask(A, "once", wait=0, key="k") == first
    assert first[1]["message_id"] in phone.heard and first[1]["id"][:4] == "out_"
    assert await code_of(agent.ask(A, "another", key="k")) == "idempotency_key_reused"
    phone.show(status=AWAY)
    taken = await agent.say(A, "back", whose=("operator", ID, "c"), digest="back")
    assert (await agent.sending.cancel(ID, taken.row.id))["state"] == "cancelled"
    assert await code_of(agent.ask(A, "back", wait=0, key="c")) == "cancelled"
    assert await code_of(agent.sending.cancel(ID, taken.row.id)) == "message_ended"
    assert await code_of(agent.sending.cancel(ID, "out_none")) == "message_unknown"


async def test_an_unknown_outcome_is_sent_again_as_the_same(agent: Agent, phone: Phone) -> None:
    phone.refuses["a1"] = [UNKNOWN, UNKNOWN]
    taken = await agent.say(A, "a1")
    await agent.say(A, "a2")
    await until(lambda: phone.tried == ["a1"])
    assert await agent.state(taken) == "sending unknown_outcome"
    await until(lambda: len(phone.tried) == 4)
    await asyncio.sleep(1)
    assert len({message["key"] for message in phone.got}) == 2
    assert (phone.texts(), await agent.state(taken)) == (["a1", "a2"], "sent")


async def test_a_refusal_after_an_unknown_outcome_is_unknown(agent: Agent, phone: Phone) -> None:
    phone.refuses["a1"] = [UNKNOWN, EngineError("no", code="number_unknown")]
    for _ in range(2):
        assert await code_of(agent.ask(A, "a1", key="k")) == "unknown_outcome"
    assert len(phone.tried) == 2, "its key does not send it again"


async def test_an_engine_that_cannot_repeat_is_never_asked_twice(
    agent: Agent, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOG, "sandbox", CATALOG["sandbox"]._replace(repeats=False))
    phone.refuses["a1"] = [UNKNOWN]
    assert await code_of(agent.ask(A, "a1")) == "unknown_outcome"
    assert (await agent.sending.page(ID))[0]["state"] == "unknown"
    assert (await agent.ask(A, "a2"))[0] == 200
    assert phone.tried == ["a1", "a2"]


# Kills


@pytest.mark.parametrize("repeats", [True, False])
@pytest.mark.parametrize("point", ["file", "begun", "sent", "noted"])
async def test_an_agent_killed_on_the_way_of_a_message_sends_it_once(
    agent: Agent, phone: Phone, monkeypatch: pytest.MonkeyPatch, point: str, repeats: bool
) -> None:
    """Or not at all: what an engine that cannot repeat may have sent is not sent again."""
    monkeypatch.setitem(CATALOG, "sandbox", CATALOG["sandbox"]._replace(repeats=repeats))
    monkeypatch.setenv(VARIABLE, f"outbox_{point}:raise")
    with suppress(FailpointHit):
        await agent.say(A, "order", whose=("operator", ID, "k"), digest="order")
    await asyncio.sleep(0.5)
    await agent.kill()
    monkeypatch.delenv(VARIABLE)
    await agent.start()
    unknown = not repeats and point in ("begun", "sent")
    assert await code_of(agent.ask(A, "order", key="k")) == "unknown_outcome" * unknown
    assert phone.texts() == ["order"] * (repeats or point != "begun")
    (row,) = await agent.sending.page(ID)
    assert unknown or row["message_id"] in phone.heard
    await agent.ask(A, "the next one")
    assert phone.tried == phone.texts() or (repeats and point == "sent")


# Holds


async def test_a_failed_try_comes_no_sooner_for_anything(agent: Agent, phone: Phone) -> None:
    phone.refuses["a1"] = [EngineError("x", code="browser_gone")] * 99
    taken = await agent.say(A, "a1")
    await agent.say(A, "a2")
    await asyncio.sleep(1000)
    tries, row = len(phone.tried), (await agent.sending.page(ID))[0]
    await agent.sending.cancel(ID, row["id"])
    await asyncio.sleep(10)
    await agent.restart()
    await asyncio.sleep(10)
    assert len(phone.tried) == tries
    await agent.say(A, "a3")
    await agent.sending.cancel(ID, taken.row.id)
    await asyncio.sleep(1)
    assert phone.texts() == ["a3"], "its chat is free at once"


async def test_a_client_that_has_gone_ends_no_message(agent: Agent, phone: Phone) -> None:
    phone.takes, phone.refuses["a1"] = 5.0, [EngineError("x", code="browser_gone")]
    assert (await agent.ask(A, "a1", wait=2))[0] == 202
    await until(lambda: phone.texts() == ["a1"])


async def test_a_client_that_waits_hears_of_a_hold_and_nothing_is_kept(
    agent: Agent, phone: Phone
) -> None:
    phone.show(status=AWAY, sentence="the network is down")
    await agent.say(A, "a1")
    assert await code_of(agent.ask(B, "b1")) == "not_connected"
    status, body = await agent.ask(A, "a2", wait=5)  # it overtakes no earlier one of its chat
    assert (status, body["next_try"], phone.tried) == (202, None, [])
    phone.show(status=CONNECTED)
    await until(lambda: phone.texts() == ["a1", "a2"])
    assert agent.sending.failed(ID) == 0, "b1 is neither late nor lost"


async def test_a_202_holds_though_the_first_request_of_its_key_waits_and_is_refused(
    agent: Agent, phone: Phone
) -> None:
    phone.show(status=AWAY)
    both = agent.ask(A, "once", wait=5, key="k"), agent.ask(A, "once", wait=0, key="k")
    first, second = await asyncio.gather(*both, return_exceptions=True)
    assert first[0] == second[0] == 202
    assert (await agent.sending.show(ID, second[1]["id"]))["state"] == "accepted"
    agent.limits.sure = lambda _: False  # another machine may have it by now, and sends it
    waits = asyncio.create_task(agent.ask(B, "goes on there", wait=5))
    await asyncio.sleep(1)
    await agent.sending.let_go(await agent.sending.ready(), ID, 0.0, moved=True)
    assert (await waits)[0] == 202
    phone.show(status=CONNECTED)
    phone.refuses["b1"] = [EngineError("its worker has ended", code="not_running")]
    assert (await agent.ask(B, "b1"))[0] == 200, "a try that was refused holds it as well"


async def test_error_463_holds_the_session_and_lets_one_be_tried_each_hour(
    agent: Agent, phone: Phone
) -> None:
    refusal = EngineError("cannot send: WhatsApp refused it with error 463", code="refused")
    phone.refuses |= {"a1": [refusal], "b1": [refusal]}
    await agent.say(A, "a1")
    await asyncio.sleep(1)
    for text in ("b1", "c1", "d1"):
        await agent.say(f"49151000001{ord(text[0])}", text)
    assert await code_of(agent.ask("4915122222222", "a hold holds each way")) == "refused"
    agent.tell("status")  # a change lifts no lock
    await asyncio.sleep(LOCK_TRY - 60)
    assert phone.tried == ["a1"] and "463" in agent.sending.waiting(ID)["sentence"]
    await asyncio.sleep(120)
    assert phone.tried == ["a1", "b1"]
    await asyncio.sleep(LOCK_TRY)
    assert sorted(phone.texts()) == ["a1", "b1", "c1", "d1"]


async def test_a_time_lock_holds_until_whatsapp_lifts_it(agent: Agent, phone: Phone) -> None:
    claim = Claim(CONNECTED, "restricted", until_wall=time.time() + 7200)
    phone.show(reason="restricted", claim=ClaimFact(claim, 10.0, 5.0))
    await agent.say(A, "a1")
    await asyncio.sleep(1800)
    assert (phone.tried, agent.sending.waiting(ID)["reason"]) == ([], "restricted")
    phone.show(reason="healthy")
    agent.tell("verdict")
    await until(phone.texts, 1)


async def test_a_limit_of_messages_a_minute_outlives_the_agent(agent: Agent, phone: Phone) -> None:
    agent.limits.pace = PaceSettings(per_minute=2.0)
    for number in range(3):
        await agent.say(f"49151222222{number}0", str(number))
    await asyncio.sleep(1)
    assert (len(phone.tried), agent.sending.waiting(ID)["reason"]) == (1, "paced")
    await agent.restart()
    for seconds, tries in ((25, 1), (10, 2), (30, 3)):
        await asyncio.sleep(seconds)
        assert len(phone.tried) == tries


# Ends


async def test_what_could_not_be_sent_in_time_expires(agent: Agent, phone: Phone) -> None:
    phone.refuses["a2"] = [UNKNOWN] * 99
    phone.show(status=AWAY)
    first = await agent.say(A, "a1", expires_in=60)
    await asyncio.sleep(70)
    assert await agent.state(first) == "expired expired"
    phone.show(status=CONNECTED)
    agent.tell("status")
    second = await agent.say(A, "a2", expires_in=60)
    await asyncio.sleep(500)
    assert await agent.state(second) == "unknown unknown", "an earlier try may have sent it"
    phone.refuses["a3"], phone.takes = [], 30.0
    third = await agent.say(B, "a3")
    await asyncio.sleep(1)
    assert await code_of(agent.sending.cancel(ID, third.row.id)) == "being_sent"


async def test_a_clock_that_is_set_expires_nothing(
    agent: Agent, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone.show(status=AWAY)
    taken, real = await agent.say(A, "a1", expires_in=3600), time.time
    monkeypatch.setattr(time, "time", lambda: real() + 10**6)
    await asyncio.sleep(60)
    assert await agent.state(taken) == "accepted"
    await agent.stop()
    monkeypatch.setattr(time, "time", lambda: real() - 10**6)
    await agent.start()
    await asyncio.sleep(60)
    assert await agent.state(taken) == "accepted"
    monkeypatch.setattr(time, "time", lambda: real() - 10**7)
    at_once = await agent.say(B, "b1", expires_in=3600)
    await agent.kill()
    await agent.start()
    await asyncio.sleep(3500)
    assert await agent.state(at_once) == "accepted"
    await asyncio.sleep(101)
    assert {await agent.state(each) for each in (taken, at_once)} == {"expired expired"}


async def test_a_message_makes_the_outbox_read_no_other_one(agent: Agent, phone: Phone) -> None:
    phone.show(status=AWAY)
    for number in range(200):
        await agent.say(f"{A}{number}", "x")
    outbox, steps = await agent.sending.ready(), list[int]()
    count = partial(steps.append, 100)
    await outbox.writer.read(lambda db: db.conn.set_progress_handler(count, 100))
    await agent.ask(A, "x", wait=0, key="k")
    await outbox.note_acks(ID, [("W1", "read")])
    await outbox.find(ID, "out_1")
    assert sum(steps) < 1000


async def test_acknowledgements_move_a_message_forward_only(agent: Agent, phone: Phone) -> None:
    phone.takes = 5.0
    taken = await agent.say(A, "a1")
    await asyncio.sleep(1)  # the first one comes before the answer to the message
    for word, state in (("delivered", "delivered"), ("played", "read"), ("server", "read")):
        agent.tell("ack", id=f"WA{phone.got[0]['key'][:20]}", ack=word)
        await asyncio.sleep(10)
        assert await agent.state(taken) == state


async def test_an_acknowledgement_from_a_time_without_an_agent_counts(
    agent: Agent, phone: Phone
) -> None:
    taken = await agent.say(A, "a1")
    await until(phone.texts)
    (id,) = phone.heard
    kept = file_at(agent.session, ID)
    kept.append([{"id": "k", "kind": "message_ack", "message_id": id, "state": "read"}])
    kept.close()

    await agent.restart()
    await asyncio.sleep(60)
    assert await agent.state(taken) == "read"


def paired_with(phone: Phone, account: str, status: ConnectionStatus = CONNECTED) -> None:
    record = replace(phone.shown[ID].record, paired=bool(account), account=account)
    phone.show(record=record, status=status)


async def test_another_account_sends_nothing_that_was_accepted_before_it(
    agent: Agent, phone: Phone
) -> None:
    paired_with(phone, "4915100000009", AWAY)
    taken = [await agent.say(A, "a"), await agent.say(B, "b")]
    paired_with(phone, "", ConnectionStatus.QR_REQUIRED)
    await asyncio.sleep(60)
    paired_with(phone, "4915100000008:3@s.whatsapp.net")
    await asyncio.sleep(60)
    assert [await agent.state(each) for each in taken] == ["failed other_account"] * 2
    assert (await agent.ask(A, "of the second"))[0] == 200
    assert phone.texts() == ["of the second"]


async def test_a_deleted_session_takes_its_messages_with_it(agent: Agent, phone: Phone) -> None:
    phone.show(status=AWAY)
    await agent.sending.accept(ID, MEDIA)
    assert len(list((agent.folder / FOLDER).iterdir())) == 1
    phone.show(instance=replace(phone.shown[ID].instance, created_wall=3e9))
    agent.tell("deleted")
    await asyncio.sleep(1)
    assert (list((agent.folder / FOLDER).iterdir()), await agent.sending.page(ID)) == ([], [])
    entries = await agent.store.history(ID, limit=5, kinds=("outbox_dropped",))
    assert [entry.detail["count"] for entry in entries] == [1]
    assert [await agent.sending.forget(ID) for _ in range(2)] == [1, 0]
    phone.show(status=CONNECTED)
    assert (await agent.ask(A, "of the new one"))[0] == 200
    for ends in (True, False):
        phone.show(status=AWAY)
        await agent.say(A, "of it as well")
        phone.show(instance=replace(phone.shown[ID].instance, created_wall=4e9 + ends))
        if ends:
            await agent.restart()
            assert all(row["state"] == "sent" for row in await agent.sending.page(ID))
            (entry,) = await agent.store.history(ID, limit=1, kinds=("outbox_dropped",))
            assert "in outbox.db are not sent: their instance is gone, or another" in entry.sentence
        phone.show(status=CONNECTED)
        await asyncio.sleep(60)
    assert phone.texts() == ["of the new one"], "another instance sends none of it"


async def test_a_file_goes_when_its_message_was_sent(agent: Agent, phone: Phone) -> None:
    for size in (10, 300_000):
        message = {**MEDIA, "content": base64.b64encode(b"y" * size).decode()}
        taken = await agent.sending.accept(ID, message, wait=30)
        assert (await agent.sending.answer(taken, 30))[0] == 200
        await asyncio.sleep(1)
    assert list((agent.folder / FOLDER).iterdir()) == []
    assert phone.files == [b"y" * 10, b"y" * 300_000]
    (agent.folder / FOLDER / "out_left_by_a_kill").write_bytes(b"1")
    await agent.restart()
    assert list((agent.folder / FOLDER).iterdir()) == []


async def test_a_file_that_is_not_whole_any_more_is_not_sent(agent: Agent, phone: Phone) -> None:
    phone.show(status=AWAY)
    taken = [await agent.sending.accept(ID, MEDIA) for _ in range(4)]
    cut, flipped, huge, shut = (agent.folder / FOLDER / each.row.file for each in taken)
    os.truncate(cut, 9)
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"y")
    os.truncate(huge, 1 << 42)
    # As chmod 0 for another user than root: it is there and cannot be read.
    shut.symlink_to(shut.rename(agent.folder / "aside"))
    phone.show(status=CONNECTED)
    await asyncio.sleep(1200)
    states = [await agent.state(each) for each in taken]
    assert (states, phone.tried) == (["failed file_lost"] * 3 + ["accepted file_unreadable"], [])
    assert agent.sending.waiting(ID)["reason"] == "file_unreadable", "`why` and its page name it"
    (agent.folder / "aside").rename(shut)
    await asyncio.sleep(300)
    assert (await agent.state(taken[3]), len(phone.tried)) == ("sent", 1)


async def test_no_more_waits_than_the_limits_allow(agent: Agent, phone: Phone) -> None:
    phone.show(status=AWAY)
    agent.limits.messages = MessagesSettings(outbox_most=9)
    at_once = [agent.ask(A, str(it % 20), wait=0, key=str(it % 20)) for it in range(40)]
    codes = await asyncio.gather(*map(code_of, at_once))
    assert codes == [*[""] * 9, *["outbox_full"] * 11] * 2, "a repeat is no new one"
    with pytest.raises(TryLater, check=lambda it: (it.http, it.code) == (429, "outbox_full")):
        await agent.say(A, "3")
    agent.limits.messages = MessagesSettings(outbox_megabytes=1)
    await agent.say(A, "3" * 500_000)
    with pytest.raises(StoreError, check=lambda it: (it.http, it.code) == (507, "outbox_full")):
        await agent.say(A, "4" * 600_000)


async def test_a_reply_has_whatsapps_id_and_the_writer_of_what_it_is_about(
    agent: Agent, phone: Phone
) -> None:
    mine = await agent.say(A, "first")
    phone.messages["THEIRS"] = {"from_me": False, "sender": "7@lid", "text": "hi", "type": "text"}
    for more in ({"quote": mine.row.id}, {"quote": "THEIRS"}, {"quote": "NONE"}):
        await agent.sending.accept(ID, {"type": "text", "to": A, "text": "re", **more})
    await agent.sending.accept(ID, {"type": "delete", "to": A, "message_id": mine.row.id})
    await until(lambda: len(phone.got) == 5)
    assert phone.got[1]["quote"] in phone.heard
    assert phone.got[1]["quote_from"] == phone.got[4]["sender"] == "me"
    assert (phone.got[2]["quote_from"], phone.got[2]["quote_text"]) == ("7@lid", "hi")
    assert "quote_from" not in phone.got[3]
    elsewhere = {"type": "text", "to": B, "text": "re", "quote": mine.row.id}
    taken = await agent.sending.accept(ID, elsewhere, wait=5)
    assert await code_of(agent.sending.answer(taken, 5)) == "message_not_found"


# The file


@pytest.mark.parametrize("said", ["an older copy", "another agent's"])
@pytest.mark.parametrize("killed", [True, False])
async def test_rows_of_a_copy_are_sent_only_if_no_try_had_begun(
    agent: Agent, phone: Phone, killed: bool, said: str
) -> None:
    phone.refuses["begun"] = [UNKNOWN] * 99
    begun = await agent.say(A, "begun")
    await asyncio.sleep(1)
    phone.show(status=AWAY)
    accepted = await agent.say(B, "accepted")
    copy, tries, was = agent.folder / "copy", len(phone.tried), agent.sending._outbox.mark
    sqlite3.connect(agent.file).execute("vacuum into ?", [str(copy)])
    if "another" in said:
        sqlite3.connect(copy, isolation_level=None).execute("update opened set id = 'other'")
    if killed:
        await asyncio.sleep(MARK_EVERY + TIDY_EVERY)
        await agent.kill()
    copy.rename(agent.file)
    if killed:
        await agent.start()
    assert killed or await code_of(agent.say(B, "no")) == "damaged"
    await asyncio.sleep(5)
    phone.show(status=CONNECTED)
    await asyncio.sleep(600)
    assert (await agent.state(begun), await agent.state(accepted)) == ("unknown unknown", "sent")
    assert phone.tried[tries:] == ["accepted"]
    assert said in await agent.repaired() and agent.sending._outbox.mark.id != was.id
    await agent.restart()
    assert ("outbox.db.back has what the agent had" in agent.sending.lost) != killed


async def test_what_was_just_accepted_outlives_a_copy(agent: Agent, phone: Phone) -> None:
    phone.show(status=AWAY)
    ended, both, late = [await agent.say(A, text) for text in ("ended", "both", "late")]
    await agent.sending.cancel(ID, ended.row.id)
    row, outbox = {**asdict(both.row), "state": "read", "content": ""}, agent.sending._outbox
    await outbox.take_over([row | {"number": None}], ID, 0.0)
    del phone.shown[ID]  # it goes elsewhere while one is taken
    assert await code_of(outbox.take(late.row, "{}", lambda *_: None)) == "not_found"
    agent.limits.sure = lambda _: False
    await agent.restart()  # after a kill before its folder came
    kept = {it["id"]: it["state"] for it in await agent.sending.page(ID)}
    assert kept == {both.row.id: "read", late.row.id: "accepted"}


@pytest.mark.parametrize("what", ["noise", "index", "gone", "other", "empty live"])
async def test_a_damaged_outbox_is_set_aside_and_said(
    agent: Agent, phone: Phone, what: str
) -> None:
    phone.show(status=AWAY)
    await agent.say(A, "lost")
    if "live" not in what:
        await agent.stop()
    if what == "noise":
        agent.file.write_bytes(agent.file.read_bytes()[:4096] + b"\xff" * 9000)
    elif what == "index":  # it says another thing than its table
        head, _, tail = agent.file.read_bytes().rpartition(b"out_")
        agent.file.write_bytes(head + b"tuo_" + tail)
    elif what == "empty live":
        os.truncate(agent.file, 0)
    else:
        agent.file.unlink()
    if what == "other":
        sqlite3.connect(agent.file).execute("create table other (a)")
    if "live" in what:
        assert await code_of(agent.say(B, "no")) == "damaged"
        await asyncio.sleep(5)
    else:
        await agent.start()
    phone.show(status=CONNECTED)
    assert (await agent.ask(A, "new"))[0] == 200
    assert phone.texts() == ["new"]
    assert "waited in it are not sent" in await agent.repaired()
    assert len(list(agent.folder.glob("outbox.db.damaged-*Z-??????"))) == ("gone" not in what)


async def test_an_outbox_that_cannot_be_opened_refuses_messages_until_it_can(
    agent: Agent, phone: Phone
) -> None:
    earlier = await agent.say(A, "earlier")
    agent.file.unlink()  # under its agent, which writes it again
    await agent.stop()
    agent.file.symlink_to(agent.file.rename(agent.folder / "on another disk"))
    (agent.folder / FOLDER).touch()  # a text needs none
    await agent.start()
    assert (await code_of(agent.say(A, "no")), "a link" in agent.sending.refused) == ("store", True)
    (agent.folder / "on another disk").rename(agent.file)
    await asyncio.sleep(15)
    assert ((await agent.ask(A, "yes"))[0], agent.sending.refused) == (200, "")
    assert await agent.state(earlier) == "sent"


async def test_a_full_disk_loses_no_message_that_was_answered(
    agent: Agent, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone.show(status=AWAY)
    kept = await agent.say(A, "kept")
    writer = agent.sending._outbox.writer
    writer._db.execute("pragma max_page_count = 1")  # no more than it has
    large = {"type": "media", "to": A, "content": "eHh4", "text": "x" * 50_000}
    assert await code_of(agent.sending.accept(ID, large)) == "disk_full"
    assert not list((agent.folder / FOLDER).iterdir())
    writer._db.execute("pragma max_page_count = 99999")
    monkeypatch.setenv(VARIABLE, "before_commit:raise")
    phone.show(status=CONNECTED)
    await asyncio.sleep(60)
    assert phone.texts() == [], "its try is on the disk before the session hears of it"
    monkeypatch.delenv(VARIABLE)
    await asyncio.sleep(60)
    assert (phone.texts(), await agent.state(kept)) == (["kept"], "sent")
    agent.limits.pace = PaceSettings(per_minute=0.5)
    waits = asyncio.create_task(code_of(agent.ask(B, "asked", wait=300)))
    await asyncio.sleep(1)
    monkeypatch.setenv(VARIABLE, "before_commit:raise")
    assert (await waits, agent.sending.failed(ID)) == ("store", 0), "it asks again: none is lost"
