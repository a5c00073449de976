"""A session's own worker keeps what arrives in it, and answers for it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from agent.core.words import InstanceId
from agent.errors import WaError
from agent.wings.messages.worker import open_worker_part
from tests.wings.messages.conftest import KeepingBench
from tests.wings.messages.spools import message, numbers_of, read_all, segments, spool_at


async def test_what_arrived_is_kept_across_a_kill_and_read_over_the_link(
    keeping: KeepingBench,
) -> None:
    await keeping.connected()
    await keeping.arrive(0, 3)
    keeping.process.kill()
    await keeping.ended()
    await keeping.until(lambda: keeping.closed)
    link = await keeping.again()
    page = await keeping.page()
    assert numbers_of(page["records"]) == [0, 1, 2] and page["more"] is False
    await keeping.arrive(2, 2)
    later = await keeping.page(page["next"])
    assert numbers_of(later["records"]) == [3]
    assert (later["oldest"], later["newest"]) == (page["oldest"], page["newest"] + 1)
    state = await link.call("messages_state")
    assert (state["waiting"], state["lost"], state["newest"]) == (4, 0, later["newest"])
    assert state["keeps"] is True and state["bytes"] > 0
    await link.call("messages_settled", {"cursor": page["next"]})
    assert (await link.call("messages_state"))["waiting"] == 1


async def test_a_reader_that_waits_hears_of_a_message_when_it_comes(keeping: KeepingBench) -> None:
    await keeping.connected()
    waiting = asyncio.ensure_future(keeping.page(wait=30))
    await keeping.link.call("probe")
    assert not waiting.done()
    await keeping.arrive(7)
    assert numbers_of((await waiting)["records"]) == [7]
    newest = (await keeping.page())["next"]
    assert (await keeping.page(newest, wait=0.05))["records"] == []


async def test_what_waits_when_a_worker_ends_is_on_the_disk_before_it_does(tmp_path: Path) -> None:
    part = open_worker_part(tmp_path, InstanceId("a"), {}, lambda _happening: None)
    keeping = [
        asyncio.ensure_future(part.keep([message(number), message(number + 1)]))
        for number in range(0, 100, 2)
    ]
    await asyncio.sleep(0)  # each has begun to wait
    await part.close()
    assert sorted(numbers_of(read_all(spool_at(tmp_path)))) == list(range(100))
    await asyncio.gather(*keeping)


@pytest.mark.parametrize(
    ("do", "args"),
    [
        ("messages", {"after": -1}),
        ("messages", {"after": 1 << 60}),
        ("messages", {"limit": 1.5}),
        ("messages_settled", {"cursor": None}),
    ],
)
async def test_a_call_that_makes_no_sense_is_refused(
    keeping: KeepingBench, do: str, args: dict[str, Any]
) -> None:
    await keeping.connected()
    with pytest.raises(WaError) as caught:
        await keeping.link.call(do, args)
    assert caught.value.code == "invalid_request"
    assert (await keeping.page())["records"] == []


async def test_a_record_without_an_id_is_the_engines_fault_and_stops_nothing(
    keeping: KeepingBench,
) -> None:
    await keeping.connected()
    with pytest.raises(WaError) as caught:
        await keeping.link.call("command", {"name": "bad", "arguments": {}})
    assert caught.value.code == "bad_record"
    await keeping.arrive(1)
    assert len((await keeping.page())["records"]) == 1


async def test_no_text_and_no_number_is_in_the_log(keeping: KeepingBench) -> None:
    await keeping.connected()
    await keeping.arrive(1, text="a secret word")
    keeping.process.kill()
    await keeping.ended()
    (file,) = segments(keeping.folder)
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw + raw)
    await keeping.again()
    await keeping.page()
    keeping.process.terminate()
    await keeping.ended()
    errors = keeping.errors()
    assert "was set aside" in errors
    assert "secret" not in errors and "5511900000002" not in errors
    assert "secret" not in json.dumps([dict(each.detail) for each in keeping.happened])
