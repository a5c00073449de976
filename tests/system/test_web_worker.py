"""The web engine in its hardened unit, as the unprivileged user, with the real browser."""

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agent.engines.web.browser.process import find_browser
from agent.engines.web.fetch import bundle_path, fetch_bundle
from agent.errors import ConfigError, EngineError
from tests.engines.web.bench import renderers_below
from tests.lacking import lacks
from tests.standin.web.stand_in import StandIn
from tests.system.bed import SOURCE, Bed
from tests.system.fleet import AGENT, Fleet

ID = "web1"
ACCOUNT = "5511999999999"
CACHE = "/var/lib/wa-agent/cache"
QUIET = 300.0
"""Seconds in which no code is replaced."""


class Played:
    """The stand-in in a thread of its own: the tests of this folder block."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.stand_in = self._do(StandIn.open(qr_every=QUIET, alive_every=1))

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def play(self, act: Callable[[], Any]) -> Any:
        async def in_loop() -> Any:
            return act()

        return self._do(in_loop())

    def close(self) -> None:
        self._do(self.stand_in.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()


@pytest.fixture
def played(bed: Bed) -> Iterator[Played]:
    cache = Path(os.environ.get("WA_CACHE_PATH", SOURCE / ".cache"))
    try:
        find_browser("headless-shell")
        fetch_bundle(cache)
    except (ConfigError, EngineError) as error:
        lacks(str(error))
    there = bundle_path(bed.path(CACHE))
    there.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(bundle_path(cache), there)
    found = Played()
    yield found
    found.close()


@pytest.fixture
def fleet(bed: Bed, played: Played) -> Iterator[Fleet]:
    """Connected."""
    fleet = Fleet(bed, (ID,))
    bed.run("systemctl", "start", "wa-agent.socket", AGENT)
    fleet.until_it_answers()
    fleet.cli("create", ID, "--engine", "web", "--set", f"url={played.stand_in.url}?name={ID}")
    bed.until(lambda: fleet.statuses()[ID] == "QR_REQUIRED")
    played.play(lambda: played.stand_in.scan(ACCOUNT, ID))
    fleet.until_connected()
    yield fleet
    fleet.forget(ID)


def test_a_web_session_lives_in_its_hardened_unit(bed: Bed, played: Played, fleet: Fleet) -> None:
    # The session's browser keeps its own sandbox inside of ours.
    worker = bed.outside_pid(fleet.pid(ID))
    outside = _user_namespace(worker)
    found = []
    for pid in renderers_below(worker):
        with suppress(OSError):  # one that is no longer needed ends
            status = Path(f"/proc/{pid}/status").read_text()
            found.append((status, _user_namespace(pid)))
    assert found
    for status, inside in found:
        assert "Seccomp:\t2" in status and "CapEff:\t0000000000000000" in status
        assert inside != outside

    # The agent can copy files that the browser kept to its own user.
    assert fleet.cli("snapshot", ID)["state"] == "whole"

    # Stopped, it ends in order and comes back without a scan.
    run = fleet.runs()[ID]
    bed.run("systemctl", "stop", fleet.unit(ID), within=120)
    assert bed.show(fleet.unit(ID), "Result") == "success"
    assert "closed in order" in bed.journal_of(run)
    bed.until(lambda: fleet.list()[ID]["override"] == "stopped")
    fleet.cli("start", ID)
    fleet.until_connected()
    assert len(played.stand_in.devices) == 1, "no second scan was made"


def _user_namespace(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/user").readlink()
