"""The first seconds of a pairing: what is published as paired survives every kill."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from agent.core.model import ConnectionStatus
from agent.engines.web.profile.notes import read_note
from agent.engines.web.save_pairing import holds_mark
from tests.engines.web.bench import ACCOUNT, Bench
from tests.standin.web.stand_in import StandIn

Status = ConnectionStatus
SETTLED = (Status.CONNECTED, Status.QR_REQUIRED, Status.AUTH_FAILURE)


@pytest.mark.parametrize("killed", ["browser", "worker"])
@pytest.mark.parametrize("seconds", [0.1, 0.7, 1.5, 3.0, 5.0])
async def test_a_kill_at_any_moment_after_the_scan_loses_no_pairing_that_was_published(
    bench: Bench, stand_in: StandIn, seconds: float, killed: str
) -> None:
    await bench.start()
    await bench.claimed(Status.QR_REQUIRED)
    browser = await bench.browser()
    stand_in.scan(ACCOUNT)
    page = stand_in.page()
    await asyncio.sleep(seconds)
    published = any(claim.paired for claim in bench.claims)
    if killed == "browser":
        os.kill(browser, signal.SIGKILL)
    else:
        await bench.kill_worker()
        await bench.start(paired=published)
    # What the next browser shows, not what the first one said last.
    await bench.until(lambda: stand_in.clients and stand_in.page().number > page.number, within=60)
    await bench.until(lambda: bench.claims[-1].status in SETTLED, within=60)
    if published:
        assert bench.claims[-1].status is Status.CONNECTED
    # What was not published yet may be lost: then it asks for a scan as any new session does.
    assert bench.claims[-1].status is not Status.AUTH_FAILURE


async def test_a_pairing_whose_way_to_the_disk_cannot_be_seen_is_saved_by_closing_the_browser(
    bench: Bench, stand_in: StandIn
) -> None:
    blind = "import agent.engines.web.save_pairing as web; web._MARK_LIMIT, web._MARKS = 0.5, 1"
    unseen = f"{blind}; web.holds_mark = lambda profile, mark: False"
    await bench.start(first=unseen)
    await bench.claimed(Status.QR_REQUIRED)
    first = await bench.browser()
    stand_in.scan(ACCOUNT)
    await bench.claimed(Status.CONNECTED)
    second = await bench.browser()
    assert second != first
    heard = len(bench.claims)
    os.kill(second, signal.SIGKILL)
    await bench.came(Status.RECONNECTING, heard)
    await bench.claimed(Status.CONNECTED)


async def test_a_pairing_is_in_the_note_of_the_session_and_leaves_no_mark_in_the_page(
    bench: Bench, stand_in: StandIn
) -> None:
    await bench.pair(stand_in)
    await bench.until(lambda: read_note(bench.session).paired)
    await bench.stop()
    await bench.start(paired=True)
    await bench.claimed(Status.CONNECTED)
    assert [claim.status for claim in bench.claims if claim.phase == "sync"] == [], "nothing waits"


def test_a_mark_is_found_in_either_spelling_and_in_every_file(tmp_path: Path) -> None:
    store = tmp_path / "Default" / "Local Storage" / "leveldb"
    assert not holds_mark(tmp_path, "abc")
    store.mkdir(parents=True)
    (store / "000003.log").write_bytes(b"\x01abd")
    assert not holds_mark(tmp_path, "abc")
    (store / "000005.ldb").write_bytes(b"\x00" + "abc".encode("utf-16-le"))
    assert holds_mark(tmp_path, "abc")
