"""Commands for records that repairs put aside on a backend, and for a pairing code."""

import re

import pytest

from tests.api.handlers.test_remote_session import ASIDE, NAME


@pytest.fixture
async def knows(house, cli):
    """The answers of the engine of `shop` to each command."""
    house.supervisor.backends.declare("evo")
    assert (await cli("create", "shop", "--engine", "evolution", "--backend", "evo")).status == 0
    house.supervisor.answers = {
        "removed": {"removed": ASIDE[:1]},
        "restore_removed": {"name": NAME},
    }
    return house.supervisor.answers


async def test_files_put_aside_are_listed_and_put_back(cli, house, knows):
    listed = await cli("removed", "list", "shop")
    row = rf"{NAME} +2026-01-15 .* 3 files, 1 key in Redis +done +new keys with single peers"
    assert re.search(row, listed.out), listed.out
    assert (await cli("removed", "list", "shop", "--json")).json()[0]["name"] == NAME
    done = await cli("removed", "restore", "shop", NAME)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("3 files, 1 key in Redis of shop put back\nshop is ")
    assert house.supervisor.commands[-1] == ("shop", "restore_removed", {"name": NAME})
    as_json = (await cli("removed", "restore", "shop", NAME, "--json")).json()
    assert as_json["instance"]["id"] == "shop"
    knows["removed"] = {"removed": [{**ASIDE[0], "whole": True}]}
    assert "the whole folder, 3 files" in (await cli("removed", "list", "shop")).out
    knows["removed"] = {"removed": []}
    assert (await cli("removed", "list", "shop")).out == "no repair removed files or keys of shop\n"


@pytest.mark.parametrize(
    ("told", "valid"), [({}, False), ({"expires_in": 160}, True)], ids=["not told", "told"]
)
async def test_a_pairing_code_is_shown_whether_or_not_its_time_is_known(
    cli, house, knows, told, valid
):
    """The library of the engine baileys does not tell for how long a code can be typed."""
    knows["pairing_code"] = {"code": "ABCD-1234", **told}
    shown = await cli("pairing-code", "shop", "+55 11 90000-1003")
    assert (shown.status, shown.err) == (0, "")
    assert "ABCD-1234" in shown.out
    assert ("valid for 3 min" in shown.out) is valid
