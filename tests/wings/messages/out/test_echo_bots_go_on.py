"""The echo bots of scripts/examples over the real API: no message stops those behind it."""

from pathlib import Path

import pytest

from agent.core.model import InstanceId
from tests.api.conftest import OpenHouse
from tests.conftest import Eventually
from tests.fakes.supervisor import make_view
from tests.trial.scripts.test_echo_bots import Bot, program
from tests.wings.messages.out.test_answers_as_before import over_an_outbox

__all__ = ["over_an_outbox"]

ID = InstanceId("shop")


@pytest.mark.parametrize("name", ["echo.py", "echo.mjs"])
async def test_a_status_post_and_a_nul_stop_no_bot(
    name: str, open_house: OpenHouse, tmp_path: Path, eventually: Eventually
) -> None:
    async with open_house(trust_loopback=True) as house:
        house.supervisor.known[ID] = make_view(ID)
        worker = house.messages.add("shop")
        worker.keep("a post", chat="status@broadcast")
        worker.keep("a list", chat="1634567890@broadcast")
        worker.keep("half\0a text", "hello", "bye")
        bot = Bot([*program(name), "shop"], tmp_path, house.url)
        await bot.start()
        try:
            await eventually(lambda: len(house.supervisor.sent), 2, within=15)
        finally:
            await bot.kill()
            house.messages.source.end()
        assert [message["text"] for _, message in house.supervisor.sent] == ["hello", "bye"]
        assert "cannot answer m:" in (tmp_path / "bot.log").read_text()
