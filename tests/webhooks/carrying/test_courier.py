"""Webhooks: every event arrives, in order, whatever the target does meanwhile."""

import asyncio
import logging
import re
import socket
import textwrap
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import VERSION
from agent.core.model import InstanceId
from agent.core.session import show_event
from agent.webhooks.courier import CIRCUIT, Parcel, RequestLine
from agent.webhooks.settings import WebhookDeclaration
from tests.conftest import Eventually
from tests.listener import listening
from tests.webhooks.carrying.bench import Bench, delivered, hook, only, results, settings
from tests.webhooks.receiver import Receiver

SECRET = "a secret of sixteen or more"
README = Path(__file__).parents[3] / "agent/webhooks/README.md"


async def test_events_arrive_in_order_as_the_api_shows_them(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    webhooks = await bench.begin(hook(target))
    said = [await bench.say(f"event {number}") for number in range(250)]
    more = {"instance": InstanceId("a"), "wall": time.time() - 60.5, "detail": {"x": 1}}
    last = await bench.say("it is connected", "verdict", **more)
    await eventually(lambda: target.sentences()[-1:] == ["it is connected"])
    assert target.ids() == sorted(target.ids())
    assert [one.cursor for one in (*said, last)] == target.ids()[-251:]
    found = target.taken[-1]
    shown = show_event(last)
    sender = {"machine": socket.gethostname(), "agent": VERSION}
    assert found.body == {"id": shown.pop("cursor"), **shown, **sender}
    assert found.headers["webhook-id"] == f"{last.cursor}-{round(last.wall * 1000)}"
    assert found.headers["Content-Type"] == "application/json"
    assert "webhook-signature" not in found.headers
    await eventually(lambda: (only(webhooks)["waiting"], only(webhooks)["state"]), (0, "idle"))
    assert results(webhooks)[delivered("delivered")] == len(target.taken)


async def test_the_check_of_the_readme_takes_what_is_signed_and_nothing_else(
    bench: Bench, target: Receiver, eventually: Eventually, tmp_path: Path
) -> None:
    """As Standard Webhooks has it: https://www.standardwebhooks.com."""
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    file.chmod(0o600)
    await bench.begin(hook(target, secret_file=str(file)))
    await bench.say("signed")
    await eventually(lambda: "signed" in target.sentences())
    found = target.taken[-1]
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    made: dict[str, Any] = {}
    exec(textwrap.dedent(code), made)
    good, headers = made["is_ours"], found.headers
    assert good(SECRET.encode(), headers, found.raw)
    assert not good(SECRET.encode(), headers, found.raw + b" ")
    assert not good(b"another", headers, found.raw)
    for name, other in (("webhook-id", "2-2"), ("webhook-timestamp", "1763650000")):
        assert not good(SECRET.encode(), {**headers, name: other}, found.raw)


async def test_f61_a_target_that_is_down_gets_everything_when_it_is_back(
    bench: Bench, eventually: Eventually
) -> None:
    target = Receiver()
    async with target.open() as open_now:
        port = open_now.port
    webhooks = await bench.begin(hook(target))
    for number in range(120):
        await bench.say(f"event {number}")
    await eventually(lambda: only(webhooks)["circuit"] != "closed", within=900)
    view = only(webhooks)
    assert view["state"] == "failing"
    assert "cannot be reached" in view["problem"]
    await eventually(lambda: only(webhooks)["waiting"] >= 120)
    assert results(webhooks)['wa_agent_outbox_length{kind="webhook"}'] >= 120
    assert (webhooks.oldest() or ())[1:] == ("ops",)
    async with target.open(port):
        await eventually(lambda: only(webhooks)["waiting"], 0, within=900)
        ours = [one for one in target.sentences() if one.startswith("event")]
        assert ours == [f"event {number}" for number in range(120)]
        assert webhooks.oldest() is None
        assert only(webhooks)["problem"] == ""


async def test_f61_a_wait_that_the_target_asks_for_is_kept(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    at, until = "Fri, 15 Jan 2027 08:00:00 GMT", "Fri, 15 Jan 2027 08:02:00 GMT"
    target.status, target.headers = lambda body: 429, {"Date": at, "Retry-After": until}
    webhooks = await bench.begin(hook(target))
    await bench.say("later")
    begun = time.time()
    await eventually(lambda: only(webhooks)["next_try"])
    await eventually(lambda: len(target.asked) == 2, within=900)
    assert 119 < time.time() - begun < 180
    target.status, target.headers = lambda body: 200, {}
    webhooks.retry("ops")
    await eventually(lambda: "later" in target.sentences())


ODD = (
    b"204 No Content\r\nContent-Length: 2\r\n\r\nOK",
    b"204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n",
    b"204 No Content\r\n\r\nOK",
    b"200 OK\r\nContent-Length: 2\r\n\r\nOK",
    b"200 OK\r\nContent-Length: 2\r\n\r\nOK and more",
    b"202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\nnot a chunk",
)


@pytest.mark.parametrize("closes", [False, True])
async def test_what_is_answered_with_2xx_is_taken_whatever_follows(closes: bool) -> None:
    answers = iter(9 * ODD)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while not writer.is_closing():
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
                writer.write(b"HTTP/1.1 " + next(answers))
                if closes:  # without a word of it in the head
                    writer.close()

    async with listening(serve) as port:
        declared = WebhookDeclaration("odd", url=f"http://127.0.0.1:{port}/", private=True)
        line = await RequestLine.open(declared)
        for _ in range(9 * len(ODD)):
            reply = await line.post(Parcel("status", "1", 0.0, b"{}", "it"))
            assert (reply.taken, reply.problem) == (True, "")
        await line.close()


async def test_f61_what_is_refused_is_given_up_and_the_next_goes_on(
    bench: Bench, target: Receiver, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    target.status = lambda body: 422 if body["sentence"].startswith("bad") else 200
    webhooks = await bench.begin(hook(target))
    bad = [await bench.say("bad one"), await bench.say("bad two")]
    await bench.say("good")
    await eventually(lambda: "good" in target.sentences())
    tried = [one.body["sentence"] for one in target.asked]
    assert (tried.count("bad one"), tried.count("bad two")) == (3, 3)
    counted = results(webhooks)
    assert (counted[delivered("dead")], counted[delivered("failed")]) == (2, 6)
    assert only(webhooks)["dead"] == 2
    words = "(status), which is given up: it answered 422"
    told = [f"webhook ops: it refused event {one.cursor} {words}" for one in bad]
    assert [line for line in caplog.messages if "422" in line] == told, "one line each"
    assert await bench.told("webhook_dead") == told


async def test_f61_a_target_that_refuses_everything_is_tried_until_it_does_not(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    target.status = lambda body: 401
    webhooks = await bench.begin(declared := hook(target, kinds=("status",), tries=1))
    for number in range(30):
        await bench.say(f"event {number}")
    await eventually(lambda: only(webhooks)["circuit"] != "closed", within=900)
    assert (only(webhooks)["dead"], only(webhooks)["waiting"] >= 20) == (10, True)
    await bench.end()
    webhooks = await bench.begin(declared)
    await eventually(lambda: only(webhooks)["circuit"] != "closed", within=900)
    assert only(webhooks)["dead"] == 0, "ten in all, by whichever agent"
    tried = len(target.asked)
    await asyncio.sleep(CIRCUIT.pause - 5)
    assert len(target.asked) == tried, "its circuit is open"
    target.status = lambda body: 200
    webhooks.retry("ops")
    await eventually(target.sentences, [f"event {number}" for number in range(10, 30)])


async def test_an_event_beyond_the_longest_age_is_dropped_and_counted(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    webhooks = await bench.begin(hook(target, longest_age=1.0))
    await bench.say("old", wall=time.time() - 3700)
    await bench.say("young", wall=time.time() - 3500)
    await eventually(lambda: target.sentences()[-1:], ["young"])
    assert "old" not in target.sentences()
    assert results(webhooks)[delivered("expired")] == 1


async def test_f61_what_left_the_journal_before_its_turn_is_said(
    bench: Bench, target: Receiver, eventually: Eventually
) -> None:
    webhooks = await bench.begin(hook(target))
    await eventually(lambda: only(webhooks)["cursor"], (await bench.say("one")).cursor)
    await bench.end()
    gone = [await bench.say(f"gone {number}") for number in range(7)]
    await bench.say("still there")
    await bench.store._writer.write(
        lambda db: db.execute("delete from journal where cursor <= ?", [gone[-1].cursor])
    )
    webhooks = await bench.begin(hook(target))
    await eventually(lambda: "still there" in target.sentences())
    assert results(webhooks)[delivered("expired")] == 7
    (said,) = await bench.told("webhook_gap")
    assert "7 entries left the journal" in said


async def test_a_reload_begins_changes_and_ends_webhooks(
    bench: Bench, target: Receiver, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    webhooks = await bench.begin(hook(target))
    assert await bench.told("webhook_begun") == ["webhook ops: it starts with the next event"]
    assert "WARNING" not in caplog.text, "nothing is wrong"
    await eventually(lambda: only(webhooks)["cursor"], (await bench.say("first")).cursor)
    async with Receiver().open() as other:
        webhooks.reload(settings(replace(hook(target), url=other.url)))
        await bench.say("second")
        await eventually(lambda: "second" in other.sentences())
        assert "first" not in other.sentences(), "it goes on at its place"
        other.answering.clear()
        await bench.say("third")
        await eventually(lambda: other.asked[-1].body["sentence"], "third")
        webhooks.reload(settings())
        assert webhooks.views() == []
        await eventually(lambda: bench.told("webhook_gone"))
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("webhook.")]
        assert results(webhooks)[delivered("delivered")] >= 2
    webhooks.reload(settings(hook(target)))
    await eventually(lambda: "third" in target.sentences())
    assert "first" not in target.sentences()[1:]


async def test_a_secret_that_cannot_be_read_sends_nothing_unsigned(
    bench: Bench, target: Receiver, eventually: Eventually, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    webhooks = await bench.begin(hook(target, secret_file=str(file)))
    await bench.say("waits for its signature")
    await eventually(lambda: "secret_file of webhook ops" in only(webhooks)["problem"])
    assert target.asked == []
    file.write_text(SECRET)
    file.chmod(0o600)
    await eventually(lambda: "waits for its signature" in target.sentences())
    assert "webhook-signature" in target.taken[-1].headers


async def test_no_secret_is_in_a_log_an_error_or_the_journal(
    bench: Bench,
    eventually: Eventually,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    target: Receiver,
) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "secret"
    file.write_text(SECRET)
    file.chmod(0o600)
    closed = f"http://127.0.0.1:1/services/{SECRET}?token=T-{SECRET}"

    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"no http at all\r\n\r\n")
        writer.close()

    answers = iter([500, 302, 404])
    target.status = lambda body: next(answers, 200)
    more = {"secret_file": str(file)}
    async with listening(garbage) as port:
        declared = [
            hook(target, "a", **more, url=closed),
            hook(target, "b", **more, url=f"http://127.0.0.1:{port}/?token={SECRET}"),
            hook(target, "c", **more, url=f"{target.url}?token={SECRET}", kinds=("*", "statsu")),
        ]
        webhooks = await bench.begin(*declared)
        await bench.say("something")
        await eventually(lambda: all(one["problem"] for one in webhooks.views()[:2]))
        await eventually(lambda: "something" in target.sentences())
        said = [await webhooks.test(name) for name in ("a", "b", "c")]
        await eventually(lambda: webhooks.views()[0]["circuit"] != "closed", within=900)
        assert webhooks.views()[0]["problem"] == "it cannot be reached: connection refused"
    journal = await bench.store.history(limit=1000)
    everything = (caplog.text, str(journal), str(webhooks.views()), repr(declared), str(said))
    assert not any(SECRET in text for text in everything)
    assert "cannot use 'statsu' in kinds of webhook c: no event is of it; did you" in caplog.text
