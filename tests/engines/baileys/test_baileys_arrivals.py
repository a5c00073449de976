"""What arrives is kept before WhatsApp hears that it was taken: each thing once, and none lost."""

import asyncio
import time
from typing import Any

import pytest

from tests.engines.baileys.conftest import ACCOUNT, PEER, Bench
from tests.engines.baileys.keepers import Spool, spool_of

pytestmark = pytest.mark.slow
GROUP = "120363000000000007@g.us"
LID, NUMBER = f"1{PEER}@lid", f"{PEER}@s.whatsapp.net"


@pytest.fixture
async def keeping(bench: Bench) -> Bench:
    """A connected session whose worker keeps what arrives."""
    bench.hearing = Spool
    await bench.come_paired()
    return bench


async def say(bench: Bench, message: dict[str, Any] | str, sender: str = PEER) -> str:
    told = {"conversation": message} if isinstance(message, str) else message
    return await asyncio.to_thread(bench.whatsapp.say_message, sender, ACCOUNT, told)


async def test_a_message_is_kept_before_its_receipt_leaves(keeping: Bench) -> None:
    spool = spool_of(keeping)
    spool.goes_on.clear()
    id = await say(keeping, "hello")
    await asyncio.sleep(1.0)
    assert keeping.whatsapp.receipts(ACCOUNT, id) == []
    assert keeping.whatsapp.device(ACCOUNT)["unconfirmed"] == 1
    spool.goes_on.set()
    await keeping.until(lambda: keeping.whatsapp.receipts(ACCOUNT, id))
    await keeping.until(lambda: keeping.heard.count("message", id=id))
    assert spool.given == [f"m:{LID}:{LID}:{id}"]
    record = dict(spool.of("message")[0])
    assert abs(record.pop("at") - time.time()) < 60
    assert record == {
        "kind": "message",
        "id": f"m:{LID}:{LID}:{id}",
        "chat": LID,
        "from_me": False,
        "sender": LID,
        "alias": NUMBER,
        "message_id": id,
        "type": "text",
        "text": "hello",
        "fresh": True,
        "name": PEER,
    }
