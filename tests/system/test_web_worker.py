"""The web engine in its hardened unit, as the unprivileged user, with the real browser."""

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.engines.web.arguments import find_browser
from agent.engines.web.bundle import bundle_path
from agent.engines.web.fetch import fetch_bundle
from agent.engines.web.standin.server import StandIn
from agent.errors import ConfigError, EngineError
from tests.lacking import lacks
from tests.system.bed import SOURCE, Bed
from tests.system.fleet import AGENT, Fleet

ID = "web1"
ACCOUNT = "5511999999999"
CACHE = "/var/lib/wa-agent/cache"


class Played:
    """The stand-in in a thread of its own: the tests of this folder block."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.stand_in = self._do(StandIn.open(qr_every=300, alive_every=1))

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def play(self, act: Callable[[], Any]) -> Any:
        async def in_loop() -> Any:
            return act()

        return self._do(in_loop())

    def close(self) -> None:
        self._do(self.stand_in.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
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
    if ID in Fleet(bed, (ID,)).list():
        Fleet(bed, (ID,)).cli("delete", ID)
    found.close()


def test_a_web_session_lives_in_its_hardened_unit(bed: Bed, played: Played) -> None:
    fleet = Fleet(bed, (ID,))
    bed.run("systemctl", "start", "wa-agent.socket", AGENT)
    bed.until(lambda: bed.try_run("wa-agent", "list").returncode == 0)
    url = f"{played.stand_in.url}?name={ID}"
    fleet.cli("create", ID, "--engine", "web", "--set", f"url={url}")
    bed.until(lambda: fleet.statuses()[ID] == "QR_REQUIRED", within=60)
    played.play(lambda: played.stand_in.scan(ACCOUNT, ID))
    fleet.until_connected()
    assert fleet.accounts()[ID] == ACCOUNT

    # Its browser keeps its own sandbox inside of ours.
    worker = bed.outside_pid(fleet.pid(ID))
    renderers = [pid for pid in _below(worker) if b"--type=renderer" in _line(pid)]
    assert renderers
    for pid in renderers:
        status = Path(f"/proc/{pid}/status").read_text()
        assert "Seccomp:\t2" in status and "CapEff:\t0000000000000000" in status
        assert _user_namespace(pid) != _user_namespace(worker)

    # What its browser kept to its own user, the agent can copy, and throw away in the end.
    assert fleet.cli("snapshot", ID)["state"] == "whole"

    # Killed, it comes back without a scan; stopped, it ends in order.
    run = fleet.runs()[ID]
    tree = list(_below(worker))
    bed.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", fleet.unit(ID))
    bed.until(lambda: fleet.runs()[ID] not in ("", run))
    bed.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in tree))
    fleet.until_connected()
    bed.run("systemctl", "stop", fleet.unit(ID), within=60)
    assert bed.show(fleet.unit(ID), "Result") == "success"
    assert "closed in order" in bed.journal("-u", fleet.unit(ID), "-n", "20")
    trashed = fleet.cli("delete", ID)["trash"]
    bed.run("rm", "-r", f"/var/lib/wa-agent/sessions/.trash/{trashed}", user="wa-agent")


def _below(pid: int) -> Iterator[int]:
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text().split():
            yield from _below(int(child))


def _line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _user_namespace(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/user").readlink()
