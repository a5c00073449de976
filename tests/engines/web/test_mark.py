"""How the mark moves before which all messages are kept, and what a page may answer; no browser."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.core.words import Claim, ConnectionStatus
from agent.engines.tasks import Tasks
from agent.engines.web import engine
from agent.engines.web.engine import MARGIN, TAKEN, Intake, Mark, read_mark, write_mark
from agent.engines.web.session import Session
from agent.engines.web.view import SessionView
from agent.errors import EngineError
from tests.engines.web.bench import ACCOUNT, Bench

DAY = 86400.0


class Kept:
    keeps = True

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.refuses = ""
        """The id of one that cannot be kept."""

    async def keep(self, records: Sequence[Mapping[str, Any]]) -> None:
        if any(each["id"] == self.refuses for each in records):
            raise EngineError("cannot keep it", code="bad_record")
        self.ids += [str(each["id"]) for each in records]


class Page:
    """Answers as told; a comparison finds `found`."""

    def __init__(self) -> None:
        self.document = "one"
        self.events: list[Any] = []
        self.found: list[Any] = []
        self.said: dict[str, Any] = {}
        self.fails: EngineError | None = None
        self.since: list[float] = []

    async def ask(self, function: str, *arguments: Any, within: float) -> Any:
        if function == "records.take":
            done = arguments[1] if arguments[0] == self.document else 0
            told = {"records": self.events[done:], "number": len(self.events), "lost": 0}
            return {"document": self.document, **told}
        if self.fails is not None:
            raise self.fails
        if function == "records.next":
            return {"document": self.document, "records": self.found, "left": 0}
        self.since.append(arguments[0])
        return {"document": self.document, "now": time.time(), "cut": False, **self.said}


class Table:
    """An intake on such a page."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.page, self.kept = folder, Page(), Kept()
        self.crashes: list[BaseException] = []
        self.tasks = Tasks(self.crashes.append)
        session = cast(Session, SimpleNamespace(alive=True, page=self.page))
        view = SessionView()
        view.claim = Claim(ConnectionStatus.CONNECTED, account=ACCOUNT)
        self.intake = Intake(folder, self.kept, session, view, self.tasks)

    @property
    def mark(self) -> float:
        return read_mark(self.folder).at

    async def compared(self, more: int) -> None:
        """Wait for `more` further comparisons."""
        wanted = len(self.page.since) + more
        await Bench.until(lambda: len(self.page.since) >= wanted)


@pytest.fixture
async def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Table]:
    monkeypatch.setattr(engine, "COMPARE_EVERY", 0.05)
    monkeypatch.setattr(engine, "REST", 0.01)
    made = Table(tmp_path)
    yield made
    await made.tasks.cancel()
    assert made.crashes == []


def record(id: str) -> dict[str, Any]:
    return {"id": id, "kind": "message"}


async def test_a_first_start_begins_now_and_a_later_one_where_the_last_came_to(
    table: Table,
) -> None:
    table.intake.connected(ACCOUNT)
    await table.compared(1)
    assert abs(table.page.since[0] + MARGIN - time.time()) < 60
    begun = table.mark
    await table.compared(4)
    assert begun < table.mark <= time.time()


@pytest.mark.parametrize("content", [b"", b'{"at":"x","account":""}', b"[" * 9999])
async def test_a_mark_that_cannot_be_read_is_now(table: Table, content: bytes) -> None:
    (table.folder / TAKEN).write_bytes(content)
    assert abs(table.mark - time.time()) < 60


async def test_what_is_still_open_holds_the_mark_for_a_day(table: Table) -> None:
    then = time.time() - DAY / 2
    write_mark(table.folder, Mark(then, ACCOUNT))
    table.page.said = {"failed": 1}
    table.intake.connected(ACCOUNT)
    await table.compared(5)
    assert table.mark == then, "a chat could not be compared"
    table.page.said = {"unread": then + 60}
    await table.compared(5)
    assert then < table.mark <= then + 60, "a message cannot be read yet"
    table.page.said = {"unread": time.time() - 2 * DAY}
    await table.compared(5)
    assert table.mark > time.time() - 60


async def test_the_mark_stays_where_each_document_has_one_comparison_only(table: Table) -> None:
    then = time.time() - DAY / 2
    write_mark(table.folder, Mark(then, ACCOUNT))
    table.intake.connected(ACCOUNT)
    for number in range(5):
        table.page.document = f"document {number}"
        table.intake.wake.set()
        await table.compared(1)
        # The next document comes before its second comparison.
        table.page.document = f"document {number + 1}"
    assert table.mark == then


async def test_a_documents_numbers_are_not_those_of_the_next_one(table: Table) -> None:
    table.page.events = [record("a1"), record("a2")]
    table.intake.connected(ACCOUNT)
    await table.compared(1)
    table.page.document, table.page.events = "two", []
    await table.compared(2)
    table.page.events = [record("b1"), record("b2"), record("b3")]
    await table.compared(2)
    assert table.kept.ids == ["a1", "a2", "b1", "b2", "b3"]


@pytest.mark.parametrize(
    "raw",
    [
        *(None, {"id": "", "kind": "message"}),
        *({"id": "x" * 201, "kind": "message"}, {"id": "x", "kind": "message_gap"}),
    ],
)
async def test_what_is_no_record_is_left_out(table: Table, raw: Any) -> None:
    table.page.events = [raw, record("good")]
    table.page.found = [raw]
    table.intake.connected(ACCOUNT)
    await table.compared(2)
    assert table.kept.ids == ["good"]


async def test_one_that_cannot_be_kept_holds_up_no_other(table: Table) -> None:
    table.kept.refuses = "bad"
    table.page.events = [record(each) for each in ("a", "bad", "b")]
    table.intake.connected(ACCOUNT)
    await table.compared(1)
    assert table.kept.ids == ["a", "b"]
