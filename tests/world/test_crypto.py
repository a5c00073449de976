"""Crypto errors by the real agent: one peer out of step is that peer's trouble, many are not."""

import asyncio
import re

import pytest

from agent.redaction import mark_of
from tests.waiting import connected

PEER = "4915100000001@s.whatsapp.net"
MANY = [f"49151000000{n:02}@s.whatsapp.net" for n in range(8)]


@pytest.fixture
async def agent(agent, eventually):
    await connected(agent, eventually, "a")
    return agent


@pytest.mark.parametrize("fault", ["bad-mac", "prekey"])
async def test_a_single_peer_gets_new_keys_and_other_sessions_stay_as_they_are(
    agent, eventually, caplog, fault
):
    run = await agent.run_of("a")
    await agent.fault("a", fault, peers=[PEER], per_minute=300)
    await eventually(lambda: agent.told("a", "repair_over"), ["recovered: connected"])
    assert await agent.steps() == ["regenerate_keys"]
    assert await agent.run_of("a") == run
    shown = await agent.show("a")
    assert shown["key_regenerations"] == {"done": 1, "failed": 0}
    assert (shown["paired"], shown["health"]["verdict"]) == (True, "healthy")
    assert shown["crypto_errors_lately"] == 0, "what was before the new keys says nothing"
    errors = shown["crypto_operations"]["failed"]
    assert errors >= 2
    story = await agent.story("a")
    assert "CONNECTED" not in {s.split(" → ")[0] for k, s in story if k == "status"}, "it stayed"
    assert re.search(r"crypto error \S+ of " + re.escape(mark_of(PEER)), caplog.text)
    metrics = await agent.do("GET", "/metrics")
    assert f'wa_session_crypto_operations_total{{result="failed",session="a"}} {errors}' in metrics
    assert 'wa_session_repairs_total{result="done",session="a",step="regenerate_keys"} 1' in metrics


async def test_many_peers_are_a_corrupted_session_and_climb_its_ladder(agent, eventually):
    await agent.fault("a", "bad-mac", peers=MANY, per_minute=120)
    await eventually(lambda: agent.told("a", "repair_over"), ["recovered: connected"])
    verdicts = await agent.told("a", "verdict")
    assert any(re.match(r"corrupted: \d+ crypto errors in 5 min, 8 peers", one) for one in verdicts)
    assert set(await agent.steps()) == {"reconnect", "regenerate_keys"}
    shown = await agent.show("a")
    assert (shown["paired"], shown["connection_status"]) == (True, "CONNECTED")


async def test_crossing_the_threshold_repairs_at_once_and_every_round_reports_its_result(
    agent, eventually, caplog
):
    """Long before the next check, which is half a minute away."""
    caplog.set_level("INFO")
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await agent.fault("a", "bad-mac", peers=[PEER], per_minute=600)
    await eventually(agent.steps, ["regenerate_keys"])
    assert loop.time() - begun < 15
    await eventually(lambda: agent.told("a", "repair_over"), ["recovered: connected"])
    line = (
        "key check: 1 sessions, the keys of 0 fail;"
        " since the last check 1 repaired, 0 repairs failed"
    )
    await eventually(lambda: line in caplog.text)
