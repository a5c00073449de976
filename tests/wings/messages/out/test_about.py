"""The earlier message that one to send is about, over a real outbox's file."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.core.model import InstanceId
from agent.errors import Refused
from agent.wings.messages.out.message import OutMessage
from agent.wings.messages.out.rows import NewMessage
from agent.wings.messages.out.session.about import complete
from agent.wings.messages.out.states import State
from agent.wings.messages.out.store import OutboxStore

ID = InstanceId("sales")
ANN, GROUP = "5511999990000", "120363041234567890@g.us"
KEPT = {"sender": f"{ANN}@s.whatsapp.net", "from_me": False, "type": "text", "text": "coming?"}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[OutboxStore]:
    opened = await OutboxStore.open(tmp_path / "outbox.db")
    yield opened
    await opened.close()


async def sent(store: OutboxStore, id: str, message_id: str, *, type: str = "text") -> None:
    row = OutMessage(
        number=0,
        id=id,
        instance=ID,
        born=1.0,
        chat=ANN,
        type=type,
        state=State.ACCEPTED,
        accepted_wall=1.0,
        expires_wall=9e9,
        changed_wall=1.0,
    )
    row, _ = await store.take(NewMessage(row, "{}"), lambda _taken: None)
    await store.end(row.number, State.SENT, message_id=message_id)


async def completed(store: OutboxStore, kept: Mapping[str, Any], **message: Any) -> Any:
    asked: list[tuple[str, Sequence[str]]] = []

    async def find(
        _id: InstanceId, chat: str, ids: Sequence[str]
    ) -> Mapping[str, Mapping[str, Any]]:
        asked.append((chat, ids))
        return {id: its for id, its in kept.items() if id in ids}

    whole = await complete(ID, {"to": ANN, "type": "text", **message}, store, find)
    assert all(chat in (f"{ANN}@s.whatsapp.net", GROUP) for chat, _ in asked)
    return {name: value for name, value in whole.items() if name not in ("to", "type")}


async def test_a_message_that_is_about_none_costs_no_question(store: OutboxStore) -> None:
    assert await completed(store, {"M1": KEPT}, text="hi") == {"text": "hi"}


async def test_the_writer_is_found_unless_it_is_given(store: OutboxStore) -> None:
    its = {"quote_from": KEPT["sender"], "quote_text": "coming?", "quote_type": "text"}
    assert await completed(store, {"M1": KEPT}, quote="M1") == {"quote": "M1", **its}
    given = {"quote": "M1", "quote_from": "me"}
    found = await completed(store, {"M1": KEPT}, **given)
    assert found == {**given, "quote_text": "coming?", "quote_type": "text"}
    reaction = {"type": "reaction", "message_id": "M1"}
    own = {"M1": {**KEPT, "from_me": True}}
    assert (await completed(store, own, **reaction))["sender"] == "me"
    assert "sender" not in await completed(store, {}, **reaction)
    assert (await completed(store, {}, type="delete", message_id="M1"))["sender"] == "me"


async def test_what_the_outbox_sent_is_meant_by_either_of_its_ids(store: OutboxStore) -> None:
    await sent(store, "out_1", "3EB01")
    for id in ("out_1", "3EB01"):
        assert await completed(store, {}, quote=id) == {"quote": "3EB01", "quote_from": "me"}
        edit = await completed(store, {}, type="edit", message_id=id, text="x")
        assert (edit["message_id"], edit["text"]) == ("3EB01", "x")
    for wrong in ({"quote": "out_2"}, {"quote": "out_1", "to": GROUP}):
        with pytest.raises(Refused) as refused:
            await completed(store, {}, **wrong)
        assert refused.value.code == "message_not_found"


async def test_who_reacted_to_a_message_did_not_write_it(store: OutboxStore) -> None:
    """On the web engine a reaction has the id of its message."""
    await sent(store, "out_1", "M1", type="reaction")
    found = await completed(store, {"M1": KEPT}, quote="M1")
    assert found["quote_from"] == KEPT["sender"]
    await sent(store, "out_2", "3EB02")
    await sent(store, "out_3", "3EB02", type="delete")
    assert (await completed(store, {}, quote="3EB02"))["quote_from"] == "me"
