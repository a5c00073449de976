"""A worker whose instance is known to be paired never begins again: no code, nothing written."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.core.model import ConnectionStatus as Status
from agent.core.words import Claim, parse_instance_id
from agent.engines.base import Qr
from agent.engines.catalog import file_rules
from agent.engines.sandbox.rules import SessionFile, write_session
from agent.errors import EngineError
from agent.worker.calls import session_works
from agent.worker.empty_store import StillEngine, open_engine
from agent.worker.identity import read_identity
from agent.worker.reports import Pairing, Reports
from tests.engines.baileys.conftest import ACCOUNT, OTHER
from tests.engines.baileys.test_baileys_creds import linked, write

AUTO = {"scan": "auto", "scan_after": 0.01}


def start_paired(bench: Any) -> None:
    """As the host does after a crash: the agent has written down that it is paired."""
    bench.identity(settings={**bench.quick, **AUTO}, paired=True, account="5511900000001")
    bench.start(identity=False)


def files(bench: Any) -> dict[str, bytes]:
    found = bench.session.rglob("*") if bench.session.exists() else ()
    return {path.name: path.read_bytes() for path in found}


async def test_a_paired_session_without_its_folder_ends_its_worker_and_names_the_folder(
    bench: Any,
) -> None:
    start_paired(bench)
    assert await bench.ended() == 66
    assert f"cannot use {bench.session}: it is not there" in bench.errors()
    assert not bench.session.exists()


async def test_f42_a_paired_session_without_a_pairing_is_reported_and_not_touched(
    bench: Any,
) -> None:
    bench.session.mkdir()
    write_session(bench.session, SessionFile(device="never-paired"))
    before = files(bench)
    start_paired(bench)
    link = await bench.linked()
    assert "sandbox.json" in (await bench.status(Status.AUTH_FAILURE, "unpaired_suspect")).raw
    assert await link.call("qr") == {"qr": None}
    for word in ("disconnect", "connect", "save", "free_memory"):
        await link.call(word)
    told = await link.call("probe", {"deep": True})
    assert (told["claim"]["status"], told["claim"]["paired"]) == ("AUTH_FAILURE", False)
    for word, how in (
        ("logout", {}),
        ("send", {"message": {"to": "1", "text": "x"}}),
        ("regenerate_keys", {"peers": []}),
        ("command", {"name": "scan", "arguments": {}}),
    ):
        with pytest.raises(EngineError, match="the session is paired, and"):
            await link.call(word, how)
    bench.process.terminate()
    assert await bench.ended() == 0
    assert files(bench) == before
    assert bench.session.exists()
    assert "QR_REQUIRED" not in bench.errors() + str(bench.claims)


async def test_a_live_session_whose_file_was_unpaired_beneath_it_shows_no_code(bench: Any) -> None:
    link = await bench.connected(settings=AUTO)
    write_session(bench.session, SessionFile(device="another"))
    await link.call("disconnect")
    await link.call("connect")
    await bench.status(Status.AUTH_FAILURE, "session_damaged")
    assert json.loads((bench.session / "sandbox.json").read_bytes())["device"] == "another"


def test_a_code_where_a_pairing_should_be_is_none() -> None:
    """As a browser's profile shows it, which has its store and no login in it."""
    pairing = Pairing(paired=True)
    assert pairing.judge(Claim(Status.INITIALIZING)).status is Status.INITIALIZING
    for reason in ("", "qr_idle"):
        told = pairing.judge(Claim(Status.QR_REQUIRED, reason, phase="login", raw="QR/-/UNPAIRED"))
        assert (told.status, told.reason) == (Status.AUTH_FAILURE, "unpaired_suspect")
        assert told.raw == "QR/-/UNPAIRED"
        assert pairing.suspect
    assert pairing.judge(Claim(Status.CONNECTED, paired=True)).status is Status.CONNECTED
    assert not pairing.suspect


def reports_of(pairing: Pairing) -> Reports:
    return Reports(parse_instance_id("sales"), asyncio.Event(), lambda _error: None, pairing)


async def test_a_store_of_another_account_is_refused_by_the_record(tmp_path: Path) -> None:
    (tmp_path / "sales").mkdir()
    told = {"version": 1, "id": "sales", "engine": "baileys", "enabled": True}
    told |= {"paired": True, "account": ACCOUNT}
    (tmp_path / "sales/instance.json").write_text(json.dumps(told))
    write(tmp_path / "sales/session", linked(OTHER))
    engine = open_engine(read_identity("sales", tmp_path), reports_of(Pairing(False)))
    await engine.connect()
    claim = (await engine.probe()).claim
    assert (claim.status, claim.reason) == (Status.AUTH_FAILURE, "session_foreign")
    assert "is of the account …0003" in claim.raw
    assert not (tmp_path / "sales/session/baileys.json").exists()
    (tmp_path / "web.json").write_text(json.dumps({"account": OTHER}))
    with pytest.raises(EngineError, match="is of the account …0003"):
        file_rules("web").check_login(tmp_path, ACCOUNT)


class Offers(StillEngine):
    """An engine that would show a code and pair by one."""

    async def qr(self) -> Qr | None:
        return Qr("a secret", 20.0, 1)

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"did": name}


async def test_a_code_that_is_not_to_be_scanned_is_not_given_out() -> None:
    reports = reports_of(Pairing(paired=True))
    works = session_works(Offers("", "", reports), reports)
    reports.claim(Claim(Status.QR_REQUIRED))
    assert reports.current().reason == "unpaired_suspect"
    assert await works["qr"]({}) == {"qr": None}
    for name in ("pairing_code", "scan"):
        with pytest.raises(EngineError, match="came up unpaired"):
            await works["command"]({"name": name})
    assert await works["command"]({"name": "screenshot", "arguments": {}}) == {"did": "screenshot"}
    reports.claim(Claim(Status.DISCONNECTED, "logout"))
    reports.claim(Claim(Status.QR_REQUIRED))
    assert (await works["qr"]({}))["qr"]["number"] == 1
    told = await works["command"]({"name": "pairing_code", "arguments": {}})
    assert told == {"did": "pairing_code"}
