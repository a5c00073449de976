"""A real client's pairing: its folder, its logins, and what WhatsApp may answer."""

import os
from pathlib import Path

import pytest

from agent.core.model import SessionFiles
from agent.engines.files import FilesReport
from agent.vault.formats import check_session
from tests.baileys.conftest import ACCOUNT, PEER, Bed, one_package

pytestmark = pytest.mark.slow


def look(folder: Path) -> FilesReport:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return check_session(folder, fd, "baileys", True)
    finally:
        os.close(fd)


async def test_a_paired_folder_is_whole_and_outlives_a_kill_without_a_code(bed: Bed) -> None:
    await bed.pair()
    await bed.talk(PEER, "hello")
    # Not at every instant: Baileys empties creds.json each time before it writes it.
    await bed.eventually(lambda: look(bed.auth), FilesReport(SessionFiles.WHOLE))
    assert bed.whatsapp.device(ACCOUNT)["logins"] == 1

    bed.server.kill()
    bed.restart_server()
    await bed.connected()
    assert bed.whatsapp.device(ACCOUNT)["logins"] == 2
    assert bed.codes_shown() == 1
    await bed.talk(PEER, "again")


async def test_a_cut_short_creds_file_costs_the_pairing_unless_it_is_put_back(bed: Bed) -> None:
    await bed.pair()
    bed.server.end()
    creds = bed.auth / "creds.json"
    whole = creds.read_bytes()
    creds.write_bytes(whole[: len(whole) // 2])
    assert look(bed.auth).files is SessionFiles.DAMAGED

    # The client takes what it cannot read for a new session and shows a code.
    bed.restart_server()
    await bed.eventually(bed.server.qr, within=60)
    assert bed.codes_shown() == 2

    bed.server.end()
    creds.write_bytes(whole)
    bed.restart_server()
    await bed.connected()
    assert bed.codes_shown() == 2


@one_package
async def test_a_pairing_that_whatsapp_refuses_for_good_is_not_tried_again(bed: Bed) -> None:
    await bed.pair()
    for code in (401, 402, 403, 405, 406, 409):
        bed.whatsapp.trouble(ACCOUNT, "refuse", code=code)
        await bed.disconnected(code)
        await bed.eventually(bed.server.status, "DISCONNECTED")
        bed.whatsapp.trouble(ACCOUNT, "none")
        bed.server.start_session()
        await bed.connected()
    assert bed.codes_shown() == 1
    await bed.eventually(lambda: look(bed.auth).files, SessionFiles.WHOLE)


@one_package
async def test_a_passing_failure_is_tried_again_without_a_code(bed: Bed) -> None:
    await bed.pair()
    for kind, told, code in (
        ("refuse", 500, 500),
        ("stream_error", 503, 503),
        ("drop", 0, 428),
    ):
        logins = bed.whatsapp.device(ACCOUNT)["logins"]
        bed.whatsapp.trouble(ACCOUNT, kind, code=told)
        await bed.disconnected(code)
        bed.whatsapp.trouble(ACCOUNT, "none")
        await bed.eventually(
            lambda logins=logins: bed.whatsapp.device(ACCOUNT)["logins"] > logins, within=60
        )
        await bed.connected()
    assert bed.codes_shown() == 1


@one_package
@pytest.mark.parametrize(("kind", "code"), [("replaced", 440), ("device_removed", 401)])
async def test_a_conflict_ends_the_session(bed: Bed, kind: str, code: int) -> None:
    await bed.pair()
    bed.whatsapp.trouble(ACCOUNT, "conflict", type=kind)
    await bed.disconnected(code)
    await bed.eventually(bed.server.status, "DISCONNECTED")
    assert "Stream Errored (conflict)" in bed.log.read_text()
    await bed.eventually(lambda: look(bed.auth).files, SessionFiles.WHOLE)
