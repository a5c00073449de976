"""What an agent makes of an outbox that is not as the one before it left it: removed, replaced, an
older copy, or overtaken by an older version of the program that has none."""

import hashlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.core.model import InstanceId
from agent.store.database import Store
from agent.wings.messages.out.file import OutboxFiles
from agent.wings.messages.out.message import OutMessage
from agent.wings.messages.out.rows import NewMessage
from agent.wings.messages.out.states import State
from agent.wings.messages.out.store import OutboxStore
from agent.wings.messages.out.taking_over import take_over
from tests.fakes.supervisor import make_view

ID = InstanceId("sales")
WHOSE = ("admin", "sales", "order 7")
KEY = hashlib.sha256("\0".join(WHOSE).encode()).hexdigest()


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[Any]:
    store = await Store.open(tmp_path / "agent.db")
    view = make_view(ID)
    supervisor = SimpleNamespace(views=lambda: {ID: view})
    yield SimpleNamespace(store=store, supervisor=supervisor, view=view)
    await store.close()


async def an_agent(around: Any, folder: Path, *, takes: str = "") -> list[str]:
    """One run of it: what waits for it. It takes one more message when it has one to take."""
    store = await OutboxStore.open(folder / "outbox.db")
    rows = await take_over(store, around, OutboxFiles(folder / "outbox"), 100.0)
    if takes:
        row = OutMessage(
            number=0,
            id=takes,
            instance=ID,
            born=around.view.instance.created_wall,
            chat="1",
            type="text",
            state=State.ACCEPTED,
            accepted_wall=10.0,
            expires_wall=9e9,
            changed_wall=10.0,
            repeats=f"hash of {takes}",
        )
        await store.take(NewMessage(row, json.dumps({"to": "1", "key": KEY})), lambda _row: None)
    await store.close()
    return [row.id for row in rows]


async def said(around: Any) -> list[str]:
    entries = await around.store.history(limit=50)
    return [entry.sentence for entry in entries if entry.kind == "store_repaired"]


async def test_an_outbox_that_stays_as_it_was_is_nothing_to_say(around, tmp_path: Path) -> None:
    assert await an_agent(around, tmp_path, takes="out_1") == []
    assert await an_agent(around, tmp_path) == ["out_1"]
    assert await an_agent(around, tmp_path) == ["out_1"]
    assert await said(around) == []


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("removed", "was removed while no agent ran"),
        ("another", "is another one than before"),
        ("older", "is an older copy of itself"),
        ("damaged", "was damaged"),
    ],
)
async def test_an_outbox_that_is_not_the_one_of_before_is_said_once(
    around: Any, tmp_path: Path, how: str, words: str
) -> None:
    file, copy = tmp_path / "outbox.db", tmp_path / "copy"
    await an_agent(around, tmp_path, takes="out_1")
    shutil.copy(file, copy)
    await an_agent(around, tmp_path, takes="out_2")
    file.unlink()
    if how == "older":
        shutil.copy(copy, file)
    elif how == "another":
        (tmp_path / "b").mkdir()
        other = await OutboxStore.open(tmp_path / "b" / "outbox.db")
        await other.ledger.open_mark()
        await other.close()
        shutil.copy(tmp_path / "b" / "outbox.db", file)
    elif how == "damaged":
        file.write_bytes(b"no database" * 400)
    waits = await an_agent(around, tmp_path)
    assert waits == (["out_1"] if how == "older" else [])
    (sentence,) = await said(around)
    assert words in sentence
    await an_agent(around, tmp_path)
    assert len(await said(around)) == 1
