"""A kill at each step of a message: it is kept once, and the pairing stays."""

from pathlib import Path

import pytest

from tests.engines.baileys.conftest import ACCOUNT, Bench
from tests.engines.baileys.keepers import Spool, spool_of
from tests.engines.baileys.test_baileys_full_disk import disk

__all__ = ["disk"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(580)]

GROUP = "120363000000000007@g.us"
WRITER = "5511910000000"


@pytest.mark.parametrize("group", [False, True], ids=["to it alone", "to a group"])
async def test_a_kill_at_each_step_of_a_message_costs_no_message_even_if_nobody_sends_it_again(
    bench: Bench, disk: Path, group: bool
) -> None:
    """Before its record is kept, before its key is stored, and before its receipt leaves."""
    kept: dict[str, object] = {}
    bench.hearing = lambda: Spool(kept)  # type: ignore[arg-type]
    await bench.come_paired(client_starts=100)
    whatsapp, writer = bench.whatsapp, WRITER
    whatsapp.make_group(GROUP, [ACCOUNT, writer])
    if group:
        whatsapp.say_in_group(writer, ACCOUNT, GROUP, "first")
    else:
        whatsapp.say(writer, ACCOUNT, "first")
    await bench.until(lambda: len(spool_of(bench).of("message")) == 1)
    await bench.until(lambda: whatsapp.device(ACCOUNT)["unconfirmed"] == 0)
    whatsapp.answers_retries(writer, answers=False)

    def is_kept(id: str) -> bool:
        return any(each["message_id"] == id for each in spool_of(bench).of("message"))

    def is_taken() -> bool:
        return not whatsapp.device(ACCOUNT)["unconfirmed"]

    def has_crashed() -> bool:
        return bench.heard.last.reason == "client_crashed"

    at, killed = 0, True
    while killed:
        disk.write_text(f"{at} kill")
        if group:
            id = whatsapp.say_in_group(writer, ACCOUNT, GROUP, f"killed at {at}")
        else:
            id = whatsapp.say(writer, ACCOUNT, f"killed at {at}")
        await bench.until(lambda: has_crashed() or is_taken())
        killed = has_crashed()
        disk.unlink()
        if killed:
            await bench.come_back()
        await bench.until(lambda id=id: is_kept(id))
        await bench.until(is_taken)
        at += 1
    assert at > 4, "a message changes a file in several operations"
    messages = spool_of(bench).of("message")
    assert len(messages) == len({each["message_id"] for each in messages}) == at + 1
