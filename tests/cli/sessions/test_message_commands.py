"""A session's messages on a terminal."""

import asyncio
import json
import threading

import pytest

from agent.cli.command import run
from tests.api.conftest import House
from tests.cli.conftest import Cli
from tests.conftest import Eventually


async def test_everything_is_printed_from_the_oldest_on(house: House, cli: Cli) -> None:
    house.messages.add("shop").keep(*(f"text {number}" for number in range(450)))
    said = await cli("messages", "shop")
    assert said.status == 0, said.err
    lines = said.out.splitlines()
    assert len(lines) == 450
    assert lines[0].endswith("message: text 0")
    assert "1 [551199999901@s.whatsapp.net]" in lines[0]
    said = await cli("messages", "shop", "--after", "448", "--json")
    assert [json.loads(line)["text"] for line in said.out.splitlines()] == ["text 448", "text 449"]
    said = await cli("messages", "shop", "--after", "newest")
    assert (said.status, said.out) == (0, "")


async def test_no_text_can_draw_on_the_terminal(house: House, cli: Cli) -> None:
    house.messages.add("shop").keep("\x1b[31mred\u202e\nnext [99] line")
    (line,) = (await cli("messages", "shop")).out.splitlines()
    assert not {"\x1b", "\u202e"} & {*line}
    assert line.endswith("�[31mred� / next [99] line")


async def test_a_wrong_cursor_and_a_lost_worker_are_refused(house: House, cli: Cli) -> None:
    house.messages.add("shop")
    assert (await cli("messages", "shop", "--after", "x")).status == 2
    house.messages.lose_worker("shop")
    said = await cli("messages", "shop")
    assert (said.status, "its worker ended" in said.err) == (75, True)


async def test_following_goes_on_past_a_restart_of_the_worker(
    house: House,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WA_AGENT_SOCKET", str(house.socket_path))
    monkeypatch.setattr("agent.cli.views._LOOK_EVERY", 0.01)
    worker, heard, ended = house.messages.add("shop"), [""], []
    worker.keep("a")

    def follow() -> None:
        ended.append(run(["messages", "shop", "-f"]))

    def said() -> str:
        heard[0] += capsys.readouterr().out
        return heard[0]

    thread = threading.Thread(target=follow)
    thread.start()
    await eventually(lambda: "message: a" in said())
    house.messages.lose_worker("shop")
    worker.keep("b")
    house.messages.connect_worker("shop")
    await eventually(lambda: "message: b" in said())
    # The command ends when the session is gone for good.
    house.messages.remove("shop")
    await asyncio.to_thread(thread.join, 30)
    assert ended == [3]
    assert heard[0].count("message: ") == 2
