"""Messages through the real worker: kept once each, whatever is killed on the way."""

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from agent.core.model import ConnectionStatus as Status
from tests.engines.web.bench import Bench
from tests.engines.web.kept import KEEP, kept
from tests.standin.web.stand_in import StandIn

ANN = "5511777777777@c.us"


def says(stand_in: StandIn, id: str, body: str = "hi", **more: Any) -> None:
    stand_in.deliver("message", **{"from": ANN, "id": id, "body": body, **more})


def messages(bench: Bench) -> dict[str, Mapping[str, Any]]:
    """Those that are kept, by WhatsApp's ids; each is there once."""
    found = [each for each in kept(bench.folder) if each["kind"] == "message"]
    by_id = {str(each["message_id"]): each for each in found}
    assert len(by_id) == len(found)
    return by_id


async def test_200_messages_are_kept_once_each_amid_kills(bench: Bench, stand_in: StandIn) -> None:
    await bench.pair(stand_in, first=KEEP)
    ids = [f"MSG{number}" for number in range(200)]

    async def kill_the_worker() -> None:
        await bench.kill_worker()
        for id in ids[60:80]:
            says(stand_in, id, f"text of {id}")
        await bench.start(first=KEEP, paired=True)

    async def load_it_again() -> None:
        stand_in.page().tell("navigate", to="/?name=sales&again=1")

    at = {50: kill_the_worker, 160: load_it_again}
    for number, id in enumerate(ids):
        if number in at:
            # The last ones are on their way when it is killed.
            before = {*ids[: number - 20]}
            await bench.until(lambda wanted=before: messages(bench).keys() >= wanted)
            await at[number]()
        if not 60 <= number < 80:
            says(stand_in, id, f"text of {id}")
        if number % 10 == 0:
            await asyncio.sleep(0)
    with suppress(AssertionError):  # the next line says what lacks
        await bench.until(lambda: messages(bench).keys() >= {*ids}, within=90)
    assert {id: it["text"] for id, it in messages(bench).items()} == {
        it: f"text of {it}" for it in ids
    }


async def test_what_only_the_page_took_is_kept_after_the_next_start(
    bench: Bench, stand_in: StandIn
) -> None:
    await bench.pair(stand_in, first=KEEP)
    before = [f"BEFORE{number}" for number in range(20)]
    for id in before:
        says(stand_in, id)
    await bench.until(lambda: len(messages(bench)) == 20)
    # The page takes them, and the worker does not come to it any more.
    bench.process.send_signal(signal.SIGSTOP)
    for number in range(30):
        says(stand_in, f"LOST{number}")
    says(stand_in, "PHONE", fromMe=True)
    await bench.until(lambda: not stand_in.waiting[stand_in.page().device])
    await bench.kill_worker()
    assert [*messages(bench)] == before
    await bench.start(first=KEEP, paired=True)
    await bench.until(lambda: len(messages(bench)) == 51)
    found = messages(bench)
    assert found["BEFORE7"]["fresh"] is True and found["LOST0"]["fresh"] is False
    assert found["PHONE"]["from_me"] is True
    order = [each for each in found if each.startswith("LOST")]
    assert order == [f"LOST{number}" for number in range(30)], "as they were written"


async def send(bench: Bench, key: str, text: str = "hi") -> Mapping[str, Any]:
    message = {"to": ANN, "text": text, "key": key}
    return await bench.link.call("send", {"message": message}, timeout=30)


async def test_a_message_that_a_crash_left_open_is_sent_again_as_the_same_one(
    bench: Bench, stand_in: StandIn
) -> None:
    """Also where the page lost it."""
    await bench.pair(stand_in, first=KEEP)
    stand_in.answers_sends = False
    asked = asyncio.ensure_future(send(bench, "key-1", "once"))
    await bench.until(lambda: stand_in.arrived)
    browser, heard = await bench.browser(), len(bench.claims)
    stand_in.page().tell("forget")
    await bench.until(lambda: any(each["do"] == "forgot" for each in stand_in.page().received))
    os.kill(browser, signal.SIGKILL)
    told = await asked
    assert told["outcome"] == "unknown"
    stand_in.answers_sends = True
    await bench.came(Status.RECONNECTING, heard)
    await bench.claimed(Status.CONNECTED)
    again = await send(bench, "key-1", "once")
    assert (again["id"], again["outcome"]) == (told["id"], "sent")
    assert [each["body"] for each in stand_in.arrived.values()] == ["once"]
    await bench.until(lambda: messages(bench).keys() == {told["id"]})


async def test_people_with_a_name_of_whatsapps_are_shown_by_their_number(
    bench: Bench, stand_in: StandIn
) -> None:
    bench.url += "&lids=1"
    await bench.pair(stand_in, first=KEEP)
    told = await send(bench, "key-1")
    assert told["outcome"] == "sent"
    lid = "7777777771155@lid"
    assert [each["to"] for each in stand_in.arrived.values()] == [lid]
    stand_in.deliver("message", **{"from": lid, "id": "IN1", "body": "hi"})
    await bench.until(lambda: len(messages(bench)) == 2)
    sent, got = messages(bench)[told["id"]], messages(bench)["IN1"]
    assert sent["chat"] == got["chat"] == got["sender"] == "5511777777777@s.whatsapp.net"
    assert (got["alias"], got["id"]) == (lid, f"m:{lid}:{lid}:IN1")
