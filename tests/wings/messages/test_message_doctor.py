"""What the doctor says of messages."""

from pathlib import Path

import pytest

from tests.api.conftest import House
from tests.cli.conftest import Cli


@pytest.fixture
def doctor(cli: Cli, house: House, tmp_path: Path):
    async def examine(settings: str = "") -> list[tuple[str, str]]:
        file, state = tmp_path / "agent.toml", tmp_path / "state"
        file.write_text(settings)
        state.mkdir(mode=0o700, exist_ok=True)
        where = ("--state", str(state), "--socket", str(house.socket_path), "--config", str(file))
        found = (await cli("doctor", "--json", *where)).json()["findings"]
        return [(one["level"], one["sentence"]) for one in found if one["check"] == "messages"]

    return examine


async def test_messages_that_went_undelivered_are_named_with_their_session(
    doctor, house: House
) -> None:
    assert await doctor() == [
        ("ok", "no session dropped one that was not delivered; 0 wait"),
    ]
    house.messages.add("shop")
    async with house.figures("shop"):
        found = await doctor()
    assert found == [("note", "shop dropped 1 messages before they were delivered")]


async def test_that_nothing_is_kept_is_said(doctor) -> None:
    ((level, sentence),) = await doctor("[messages]\nkeep = false\n")
    assert (level, "keep = false" in sentence) == ("ok", True)


async def test_a_limit_of_files_that_the_quota_undoes_is_named(doctor) -> None:
    found = await doctor("[messages]\nmedia_megabytes = 16\n")
    assert [level for level, _ in found] == ["ok", "note"]
    assert "over 16 MiB are not loaded" in found[1][1]
