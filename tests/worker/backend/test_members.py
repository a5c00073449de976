"""What arrives in each session of a backend is kept, in a folder of the session's own."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.core.model import InstanceId
from agent.errors import TryLater
from agent.worker.backend.members import MemberParts
from agent.worker.backend.sessions import HeldSessions
from tests.worker.backend.test_sessions import Backend

SALES, SHOP = InstanceId("sales"), InstanceId("shop")


@pytest.fixture
def backend() -> Backend:
    return Backend()


def hold(backend: Backend, folder: Path, settings: Mapping[str, Any] | None = None) -> HeldSessions:
    parts = MemberParts(folder, settings or {})
    held = HeldSessions(backend, asyncio.Event(), parts)  # type: ignore[arg-type]
    held.hold_all({SALES: {}, SHOP: {}})
    return held


def record(id: str) -> dict[str, Any]:
    return {"kind": "message", "id": id, "chat": "4911@s.whatsapp.net", "text": id}


async def read(held: HeldSessions, id: InstanceId) -> list[tuple[int, str]]:
    page = await held.sessions[id].parts.works["messages"]({"after": 0})
    return [(record["cursor"], record["id"]) for record in page["records"]]


async def test_each_session_has_its_own_and_counts_on_after_a_pause(
    backend: Backend, tmp_path: Path
) -> None:
    held = hold(backend, tmp_path)
    await backend.reporters[SALES].keep([record("a")])
    await backend.reporters[SHOP].keep([record("b")])
    ((first, _),) = await read(held, SALES)
    assert [id for _, id in await read(held, SHOP)] == ["b"]
    assert (tmp_path / "sessions/sales/messages").is_dir()
    held.release(SALES)
    with pytest.raises(TryLater):  # two would write the same files
        held.hold(SALES, {})
    await held.parts.closed(SALES)
    held.hold(SALES, {})
    await backend.reporters[SALES].keep([record("a"), record("c")])
    assert await read(held, SALES) == [(first, "a"), (first + 1, "c")]
    await held.close()
    other = hold(backend, tmp_path)
    assert await read(other, SALES) == [(first, "a"), (first + 1, "c")]
    await other.close()


async def test_other_settings_of_a_session_close_nothing(backend: Backend, tmp_path: Path) -> None:
    held = hold(backend, tmp_path)
    before, parts = backend.reporters[SALES], held.sessions[SALES].parts
    kept = asyncio.create_task(before.keep([record("a")]))
    await asyncio.sleep(0)
    held.hold(SALES, {"remote": "other"})
    assert held.sessions[SALES].parts is parts
    await kept
    assert [id for _, id in await read(held, SALES)] == ["a"]
    await held.close()


async def test_a_session_that_cannot_be_held_leaves_nothing_open(
    backend: Backend, tmp_path: Path
) -> None:
    held = hold(backend, tmp_path)
    held.hold_all({SALES: {"remote": "impossible"}})
    await held.parts.closed(SALES)
    held.hold(SALES, {})
    await backend.reporters[SALES].keep([record("a")])
    assert len(await read(held, SALES)) == 1
    await held.close()


async def test_the_settings_of_wings_are_those_of_the_agent(
    backend: Backend, tmp_path: Path
) -> None:
    held = hold(backend, tmp_path, {"messages": {"keep": False}})
    assert not backend.reporters[SALES].keeps
    await held.close()


async def test_a_session_that_is_held_already_looks_for_what_it_missed(
    backend: Backend, tmp_path: Path
) -> None:
    """The agent says it to each of them when it comes back."""
    held = hold(backend, tmp_path)
    held.hold(SALES, {})
    assert backend.done == {"hold": 2, "catch up": 1}
    await held.close()
