"""A session's life in the real worker: real browser, unmodified bundle, stand-in page."""

from pathlib import Path
from typing import Any

from agent.core.model import ConnectionStatus as Status
from agent.engines.web.session import read_note
from tests.engines.web.bench import ACCOUNT, Bench, entries, processes_below
from tests.standin.web.stand_in import StandIn


async def test_a_new_session_shows_a_code_and_connects_when_a_phone_scans_it(
    bench: Bench, stand_in: StandIn, eventually: Any
) -> None:
    link = await bench.start()
    claim = await bench.claimed(Status.QR_REQUIRED)
    assert (claim.paired, claim.phase) == (False, "login")
    told = (await link.call("qr"))["qr"]
    assert told["text"].startswith(stand_in.page().code + ",")
    assert told["text"].count(",") == 3
    assert told["number"] == 1 and 30 < told["expires_in"] <= 60

    stand_in.scan(ACCOUNT)
    claim = await bench.claimed(Status.CONNECTED)
    assert claim.paired and claim.account == ACCOUNT
    assert claim.proof_age is not None

    async def is_fresh() -> bool:
        return bool((await bench.probe())["claim"]["proof_age"] < 1)

    await eventually(is_fresh)
    assert (await link.call("qr"))["qr"] is None
    await bench.until(lambda: read_note(bench.session).account == ACCOUNT)


async def test_f84_no_process_of_a_session_listens_on_a_port(
    bench: Bench, stand_in: StandIn
) -> None:
    await bench.pair(stand_in)
    mine = set()
    for pid in processes_below(bench.process.pid):
        for fd in entries(Path(f"/proc/{pid}/fd")):
            try:
                target = str(fd.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                mine.add(target[8:-1])
    listening = {
        fields[9]
        for table in ("tcp", "tcp6")
        for fields in (row.split() for row in Path(f"/proc/net/{table}").read_text().splitlines())
        if fields[3] == "0A"
    }
    assert mine and not mine & listening
