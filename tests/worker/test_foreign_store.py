"""A worker's first look at its store: the credentials of another account never log in."""

import asyncio
from pathlib import Path

from agent.core.words import ConnectionStatus, InstanceId
from agent.instance_file import NAME, InstanceFile, render_instance_file
from agent.worker.empty_store import open_engine
from agent.worker.identity import read_identity
from agent.worker.reports import Pairing, Reports
from tests.engines.baileys.conftest import ACCOUNT, OTHER
from tests.engines.baileys.test_baileys_creds import linked, write

REFUSED = (ConnectionStatus.AUTH_FAILURE, "session_foreign")


async def test_a_store_of_another_account_is_refused_by_the_record(tmp_path: Path) -> None:
    (tmp_path / "sales").mkdir()
    file = InstanceFile(InstanceId("sales"), "baileys", True, paired=True, account=ACCOUNT)
    (tmp_path / "sales" / NAME).write_bytes(render_instance_file(file, {}))
    write(tmp_path / "sales" / "session", linked(OTHER))
    identity = read_identity("sales", tmp_path)
    engine = open_engine(
        identity, Reports(identity.id, asyncio.Event(), lambda _error: None, Pairing(False))
    )
    await engine.connect()
    claim = (await engine.probe()).claim
    assert (claim.status, claim.reason) == REFUSED
    assert "is of the account …0003" in claim.raw
    assert not (tmp_path / "sales" / "session" / "baileys.json").exists()
