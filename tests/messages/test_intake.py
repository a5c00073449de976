"""A worker keeps messages that arrive: WhatsApp hears of them when the disk has them."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from agent.core.words import KEPT, Happening, InstanceId
from agent.messages.incoming import Incoming
from agent.messages.intake import LOOK_EVERY, Intake
from tests.messages.bench import code_of
from tests.messages.records import CHAT, message, numbers_of

LID = "123456789012345@lid"


class Bench:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.told: list[Happening] = []
        self.intake = Intake(folder, InstanceId("sales"), settings, self.told.append)

    async def ask(self, do: str, **args: Any) -> Mapping[str, Any]:
        return await self.intake.works[do](args)


async def test_all_that_wait_share_one_commit_and_the_agent_hears_of_the_newest(
    tmp_path: Path,
) -> None:
    at = Bench(tmp_path)
    with patch.object(Incoming, "append", autospec=True, side_effect=Incoming.append) as append:
        await asyncio.gather(*(at.intake.keep([message(number)]) for number in range(50)))
    assert append.call_count == 1
    page = await at.ask("messages", after=0, limit=30)
    assert (numbers_of(page["records"]), page["more"]) == (list(range(30)), True)
    for number in range(50, 60):
        await at.intake.keep([message(number)])
    await asyncio.sleep(2)
    newest = (await at.ask("messages", after=page["next"], limit=90))["newest"]
    assert [each.kind for each in at.told].count(KEPT) == 2, "many as one word"
    assert at.told[-1].detail == {"cursor": newest}
    await at.intake.keep([message(3)])
    await asyncio.sleep(2)
    assert at.told[-1].detail == {"cursor": newest}, "it was there"
    await at.intake.close()


async def test_what_the_disk_does_not_take_is_refused_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it written where another folder stands for a while in the place of the session's."""
    own, path = tmp_path / "sales", tmp_path / "sales" / "messages" / "messages.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"nothing of it" * 999)
    at = Bench(own)
    await at.intake.keep([message(1)])
    assert f"{path.name}.damaged-" in at.told[0].detail["text"]
    with monkeypatch.context() as broken:
        broken.setattr(Incoming, "append", None)
        assert await code_of(at.intake.keep([message(2)])) == "not_kept"
    away = own.rename(tmp_path / "away")
    own.mkdir()
    assert await code_of(at.intake.keep([message(2)])) == "not_kept"
    own.rmdir()
    away.rename(own)
    await at.intake.keep([message(2)])
    kinds = [each.kind for each in at.told if each.kind != KEPT]
    assert kinds == ["kept_aside", "not_kept", "kept_again"]
    assert numbers_of((await at.ask("messages", after=1, limit=100))["records"])[1:] == [1, 2]
    path.unlink()
    path.symlink_to("nowhere")
    unreadable = Bench(own)  # its worker runs all the same
    assert await code_of(unreadable.ask("messages", after=0, limit=100)) == "unreadable"
    await asyncio.gather(at.intake.close(), unreadable.intake.close())


async def test_an_idle_session_has_no_file_and_answers_all_the_same(tmp_path: Path) -> None:
    at = Bench(tmp_path)
    await asyncio.sleep(LOOK_EVERY + 1)
    assert (await at.ask("messages", after=0, limit=100))["records"] == []
    assert (await at.ask("messages", after=9, limit=100))["next"] == 9
    assert (await at.ask("messages_state"))["waiting"] == 0
    assert await at.ask("messages_marked", chat="1", cursor=0) == {}
    await at.intake.close()
    assert list(tmp_path.iterdir()) == []


async def test_old_messages_go_by_themselves(tmp_path: Path) -> None:
    at = Bench(tmp_path)
    await at.intake.keep([message(number) for number in range(150)])
    for most, kept in (200, 150), (100, 99), (100, 99), (100, 0):
        await at.intake.close()  # its worker is restarted more often than it looks
        at = Bench(tmp_path, hours=2, most=most)
        await asyncio.sleep(0.7 * LOOK_EVERY)
        assert len((await at.ask("messages", after=0, limit=200))["records"]) == kept
    await at.intake.close()


async def test_the_agents_questions_about_messages(tmp_path: Path) -> None:
    at = Bench(tmp_path)
    raw = {"chat": "5@lid", "sender": "6@lid"}
    await at.intake.keep([message(1, _raw=raw), message(2, text="x" * 5000), {**message(3)}])
    found = (await at.ask("messages_find", chat=CHAT, message_ids=["000001", "000002"]))["found"]
    assert (found["000001"]["chat"], found["000001"]["sender"]) == ("5@lid", "6@lid")
    assert len(found["000002"]["text"]) == 1024
    unread = await at.ask("messages_unread", chat=CHAT)
    assert unread["messages"][-1] == ("000001", "5@lid", "6@lid")
    await at.ask("messages_marked", chat=CHAT, cursor=unread["newest"])
    assert (await at.ask("messages_unread", chat=CHAT))["messages"] == []
    named = message(4, chat=LID, alias=CHAT, sender=LID)
    in_group = message(5, chat="1-2@g.us", alias=CHAT, sender=LID, id="x")
    await at.intake.keep([named, in_group, message(6, from_me=True)])
    unread = await at.ask("messages_unread", chat=CHAT)
    assert unread["messages"] == [("000004", LID, LID)], "a person is one chat under both names"
    names = [(await at.ask("messages_name", chat=chat))["name"] for chat in (LID, CHAT, "1@g.us")]
    assert names == [CHAT, LID, ""]
    assert (await at.ask("messages_state"))["waiting"] == 0, "no consumer reads"
    assert (await at.ask("messages_state", settled=0))["waiting"] == 6
    assert (await at.ask("messages_state", settled=unread["newest"]))["waiting"] == 0
    assert await code_of(at.intake.keep([{"kind": "message"}])) == "bad_record"
    await at.intake.close()
