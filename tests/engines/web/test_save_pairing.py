"""The first seconds of a pairing: what is published as paired survives every kill."""

import os
import signal
from pathlib import Path

import pytest

from agent.core.model import ConnectionStatus as Status
from agent.engines.web.session import holds_mark
from tests.engines.web.bench import ACCOUNT, Bench
from tests.standin.web.stand_in import StandIn

SETTLED = (Status.CONNECTED, Status.QR_REQUIRED, Status.AUTH_FAILURE)


@pytest.mark.parametrize("killed", ["browser", "worker"])
async def test_a_kill_as_soon_as_a_pairing_is_published_loses_it_not(
    bench: Bench, stand_in: StandIn, killed: str
) -> None:
    await bench.start()
    await bench.claimed(Status.QR_REQUIRED)
    browser = await bench.browser()
    stand_in.scan(ACCOUNT)
    page = stand_in.page()
    await bench.until(lambda: any(claim.paired for claim in bench.claims))
    if killed == "browser":
        os.kill(browser, signal.SIGKILL)
    else:
        await bench.kill_worker()
        await bench.start(paired=True)
    # Wait for claims of the next browser: the first one's last claim is still there.
    await bench.until(lambda: stand_in.clients and stand_in.page().number > page.number)
    await bench.until(lambda: bench.claims[-1].status in SETTLED)
    assert bench.claims[-1].status is Status.CONNECTED


def test_a_mark_is_found_in_either_spelling_and_in_every_file(tmp_path: Path) -> None:
    store = tmp_path / "Default" / "Local Storage" / "leveldb"
    assert not holds_mark(tmp_path, "abc")
    store.mkdir(parents=True)
    (store / "000003.log").write_bytes(b"\x01abd")
    assert not holds_mark(tmp_path, "abc")
    (store / "000005.ldb").write_bytes(b"\x00" + "abc".encode("utf-16-le"))
    assert holds_mark(tmp_path, "abc")
