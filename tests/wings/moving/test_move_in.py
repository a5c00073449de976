"""`wa-agent import` of other programs' sessions: shown first, each imported or refused by name."""

import asyncio
import json
from pathlib import Path
from typing import IO, Any

import pytest

from agent.core.model import InstanceId
from agent.vault.archives.found import FoundSession
from agent.wings.moving.archives import pack_found
from tests.cli.conftest import Cli, House
from tests.fakes.supervisor import make_view
from tests.wings.moving.conftest import creds, keys_of, pair_of, write_folder


@pytest.fixture
def three(elsewhere: Path) -> Path:
    """Two sessions that can be moved, one without its pre-keys."""
    write_folder(elsewhere / "bots" / "sales", keys_of())
    write_folder(
        elsewhere / "bots" / "Help Desk",
        keys_of(creds(me={"id": "551188:1@x"}, noiseKey=pair_of(9))),
    )
    write_folder(elsewhere / "bots" / "deaf", keys_of(pre_keys=0))
    return elsewhere / "bots"


async def test_a_dry_run_shows_each_session_and_imports_none(
    house: House, cli: Cli, three: Path
) -> None:
    known = set(house.supervisor.known)
    answer = await cli("import", "bots", "--dry-run")
    assert answer.status == 4, "one of them cannot be imported"
    lines = [line.split() for line in answer.out.splitlines()]
    assert lines[0] == ["NAME", "PROGRAM", "ACCOUNT", "WRITTEN", "PRE-KEYS", "ID", "RESULT"]
    assert [line[0] for line in lines[1:]] == ["Help", "deaf", "sales"]
    told = (await cli("import", "bots", "--dry-run", "--json")).json()
    assert [(one["id"], one["code"]) for one in told] == [
        ("help-desk", ""),
        ("deaf", "no_pre_keys"),
        ("sales", ""),
    ]
    assert "keys" not in told[0], "no key leaves the source"
    assert set(house.supervisor.known) == known


async def test_a_dry_run_says_that_an_id_is_taken(house: House, cli: Cli, three: Path) -> None:
    house.supervisor.known[InstanceId("sales")] = make_view("sales")
    answer = await cli("import", "bots/sales", "--dry-run")
    assert (answer.status, "refused: sales exists\n" in answer.out) == (4, True), answer.out
    assert (await cli("import", "bots/sales", "--dry-run", "--replace")).status == 0
    assert (await cli("import", "bots/sales", "other", "--dry-run")).status == 0


async def test_several_sessions_are_imported_only_when_that_is_said(
    house: House, cli: Cli, three: Path
) -> None:
    known = set(house.supervisor.known)
    refused = await cli("import", "bots")
    assert (refused.status, refused.err, "help-desk" in refused.out) == (
        4,
        "wa-agent: cannot import 3 sessions at once: add --all, or --only NAME for each\n",
        True,
    )
    assert (await cli("import", "bots", "--only", "nobody")).status == 2
    assert set(house.supervisor.known) == known


async def test_an_unforeseen_error_of_one_session_is_told_and_the_others_go_on(
    house: House, cli: Cli, three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pack(session: FoundSession, id: InstanceId, settings: Any) -> IO[bytes]:
        if session.name == "Help Desk":
            raise ZeroDivisionError
        return pack_found(session, id, settings)

    monkeypatch.setattr("agent.wings.moving.imports.pack_found", pack)
    answer = await cli("import", "bots", "--all", "--json")
    results = {row["name"]: row["result"] for row in answer.json()}
    assert answer.status == 4
    assert "it is no gzip" in results["sales"], "the stand-in of an agent got it"
    assert results["Help Desk"] == "failed: cannot import Help Desk: ZeroDivisionError"
    assert results["deaf"].startswith("refused: it holds credentials without")


async def test_a_session_that_cannot_be_moved_is_refused_with_its_code(
    cli: Cli, three: Path
) -> None:
    answer = await cli("import", "bots/deaf", "--json")
    assert answer.status == 4
    assert json.loads(answer.err)["error"] == "no_pre_keys"


async def test_option_stopped_confirms_that_the_old_program_is_stopped(
    cli: Cli, three: Path
) -> None:
    """A Node program above the folder need not be the bot."""
    script = "console.log(1); setInterval(() => {}, 1000)"
    pipe = asyncio.subprocess.PIPE
    bot = await asyncio.create_subprocess_exec("node", "-e", script, cwd=three, stdout=pipe)
    try:
        assert bot.stdout is not None
        await bot.stdout.readline()
        refused = await cli("import", "bots/sales", "--dry-run", "--json")
        taken = await cli("import", "bots/sales", "--dry-run", "--json", "--stopped")
    finally:
        bot.kill()
        await bot.communicate()
    assert (refused.status, refused.json()[0]["code"]) == (4, "in_use")
    assert (taken.status, taken.json()[0]["code"]) == (0, "")
