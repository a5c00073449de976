"""The sandbox's engine under any order of requests and faults."""

import asyncio

from agent.core.words import ConnectionStatus
from agent.engines.sandbox.engine import open_engine
from tests.engines.heard import Heard

QUICK = {
    "scan_after": 0.005,
    "login_seconds": 0.002,
    "sync_seconds": 0.004,
    "messages_per_minute": 6000,
}


async def test_a_pairing_that_is_being_written_does_not_ask_for_a_code(tmp_path):
    """Or a check in between takes the new session for a lost one."""
    session = tmp_path / "sales" / "session"
    session.mkdir(parents=True)
    heard = Heard()
    engine = open_engine(session, QUICK, heard)
    await engine.connect()
    claim = (await engine.probe()).claim
    async with asyncio.timeout(60):
        while not claim.paired:
            await asyncio.sleep(0)
            claim = (await engine.probe()).claim
    assert claim.status is not ConnectionStatus.QR_REQUIRED
    await engine.close()
    both = [one for one in heard.claims if one.paired]
    assert all(one.status is not ConnectionStatus.QR_REQUIRED for one in both)
