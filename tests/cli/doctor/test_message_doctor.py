"""What the doctor says of messages."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.messages.commands import examine_sessions
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


def test_the_doctor_names_a_session_whose_oldest_message_waits_for_long() -> None:
    now = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)

    def waits(minutes: int) -> dict[str, object]:
        oldest = (now - timedelta(minutes=minutes)).isoformat()
        return {"waiting": 3, "oldest": oldest, "reason": "", "sentence": "why it waits"}

    sessions = [
        {"instance": "shop", "outbox": waits(61), "lost": 0, "waiting": 0},
        {"instance": "new", "outbox": waits(10), "lost": 0, "waiting": 0},
        {"instance": "idle", "outbox": {}, "lost": 0, "waiting": 0},
    ]
    *_, found = examine_sessions(sessions, now)
    assert found.level == "note"
    assert found.sentence == "shop has 3 messages to send, the oldest for 1 h 1 min: why it waits"
