"""Snapshots and archives from the command line."""

import hashlib
import os
import stat
from pathlib import Path

import pytest

from agent.core.model import InstanceId
from agent.errors import Refused, TryLater
from tests.api.conftest import House
from tests.cli.conftest import Cli
from tests.fakes.supervisor import make_view


@pytest.fixture
def sales(house: House) -> InstanceId:
    id = InstanceId("sales")
    house.supervisor.known[id] = make_view(id)
    return id


async def test_a_snapshot_is_made_listed_and_restored(
    house: House, cli: Cli, sales: InstanceId
) -> None:
    assert (await cli("snapshots", "sales")).out == "no snapshots of sales\n"
    made = await cli("snapshot", "sales")
    assert made.out == "snapshot 20260115T103000Z of sales: whole, 1 file, 3 bytes\n"
    assert "20260115T103000Z" in (await cli("snapshots", "sales")).out
    assert (await cli("snapshots", "sales", "--json")).json()[0]["good"] is True
    done = await cli("restore", "sales", "20260115T103000Z")
    assert done.status == 0
    assert done.out.startswith("sales is as it was at ")
    assert house.supervisor.keeping.forced == [False]


async def test_a_newer_session_is_replaced_only_with_force(
    house: House, cli: Cli, sales: InstanceId
) -> None:
    await cli("snapshot", "sales")
    house.supervisor.keeping.breaks_with = Refused(
        "cannot restore: the session is newer", code="newer_session"
    )
    refused = await cli("restore", "sales", "20260115T103000Z")
    assert (refused.status, refused.err) == (4, "wa-agent: cannot restore: the session is newer\n")
    assert (await cli("restore", "sales", "20260115T103000Z", "--force")).status == 0
    assert house.supervisor.keeping.forced == [True]


async def test_an_export_is_whole_private_and_can_be_imported(
    house: House, cli: Cli, sales: InstanceId, elsewhere
) -> None:
    done = await cli("export", "sales", "sales.tar.gz")
    assert done.status == 0, done.err
    file = elsewhere / "sales.tar.gz"
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert done.out.splitlines()[0] == f"{sha256}  sales.tar.gz"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not list(elsewhere.glob(".*"))
    again = await cli("export", "sales", "sales.tar.gz")
    assert (again.status, again.err) == (
        4,
        "wa-agent: cannot write sales.tar.gz: it exists; --force replaces it\n",
    )
    nowhere = await cli("export", "sales", "nowhere/x")
    assert (nowhere.status, "/x: nowhere is no folder" in nowhere.err) == (4, True)
    assert (await cli("export", "sales", "sales.tar.gz", "--force")).status == 0
    refused = await cli("import", "sales.tar.gz")
    assert (refused.status, refused.err) == (4, "wa-agent: cannot import sales: it exists\n")
    replaced = await cli("import", "sales.tar.gz", "--replace", "--json")
    assert replaced.json()["trash"].startswith("sales.")
    assert replaced.json()["sha256"] == sha256
    assert (await cli("import", "sales.tar.gz", "other")).out.startswith("other imported")
    assert InstanceId("other") in house.supervisor.known


@pytest.mark.parametrize("kind", ["link", "fifo", "dash"])
async def test_an_export_takes_no_devices_place_and_follows_no_link(
    cli: Cli, sales: InstanceId, elsewhere: Path, kind: str
) -> None:
    """With --force too: root who exported to /dev/null replaced the machine's device."""
    target = elsewhere / kind
    match kind:
        case "link":
            (elsewhere / "other").write_text("other")
            target.symlink_to("other")
        case "fifo":
            os.mkfifo(target)
        case "dash":
            target = Path("-")
    before = sorted(elsewhere.iterdir())
    refused = await cli("export", sales, str(target), "--force")
    assert refused.status == 4 and "cannot write " in refused.err
    assert sorted(elsewhere.iterdir()) == before
    assert kind != "link" or (elsewhere / "other").read_text() == "other"
    assert kind == "dash" or not stat.S_ISREG(target.lstat().st_mode)


async def test_a_failed_export_leaves_no_file(
    house: House, cli: Cli, sales: InstanceId, elsewhere
) -> None:
    house.supervisor.keeping.breaks_with = TryLater("cannot copy: it changes", code="changing")
    assert (await cli("export", "sales", "x.tar.gz")).status == 75
    assert not [*elsewhere.glob("*.gz"), *elsewhere.glob(".*")]
