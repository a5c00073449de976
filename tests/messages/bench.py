"""The agent's side of messages over a stand-in of its sessions: a phone that shows each id once."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from agent.core.model import ConnectionStatus, InstanceId, JournalEntry
from agent.core.session import Session
from agent.deliver.bus import EventBus
from agent.errors import NotFound, TryLater, WaError
from agent.messages.reader import Reader
from agent.messages.sending import Limits, Sending, Taken
from agent.store.database import Store
from tests.fakes.supervisor import make_view
from tests.sessions import changed

ID = InstanceId("sales")
UNKNOWN = TryLater("cannot tell whether it was sent", code="unknown_outcome")
AWAY = ConnectionStatus.DISCONNECTED


@dataclass
class Phone:
    """Sessions whose phones outlive the agent."""

    shown: dict[InstanceId, Session] = field(default_factory=lambda: {ID: make_view(ID)})
    tried: list[str] = field(default_factory=list)
    heard: dict[str, tuple[str, str]] = field(default_factory=dict)
    """WhatsApp's id → the contact, and the text that the contact sees."""
    refuses: dict[str, list[WaError]] = field(default_factory=lambda: defaultdict(list))
    """By text, one for each try."""
    takes: float = 0.0
    """Seconds until an answer."""
    messages: dict[str, dict[str, Any]] = field(default_factory=dict)
    got: list[Mapping[str, Any]] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)

    def view(self, id: InstanceId) -> Session:
        if id not in self.shown:
            raise NotFound(f"no {id}")
        return self.shown[id]

    def show(self, **more: Any) -> None:
        self.shown[ID] = changed(self.shown[ID], **more)

    async def find(self, _id: str, _chat: str, ids: Sequence[str]) -> Mapping[str, Any]:
        return {id: self.messages[id] for id in ids if id in self.messages}

    async def send(
        self, _id: InstanceId, message: Mapping[str, Any], file: Path | None = None
    ) -> Mapping[str, Any]:
        text = str(message.get("text", ""))
        self.tried.append(text)
        self.got.append(message)
        await asyncio.sleep(self.takes)
        refusal = self.refuses[text].pop(0) if self.refuses[text] else None
        if refusal is not None and refusal is not UNKNOWN:
            raise refusal
        if file is not None:
            self.files.append(file.read_bytes())
        id = f"WA{message['key'][:20]}"
        self.heard.setdefault(id, (str(message["to"]), text))
        if refusal is not None:
            raise refusal
        return {"id": id, "outcome": "sent"}

    def texts(self) -> list[str]:
        return [text for _, text in self.heard.values()]


@dataclass
class Workers:
    root: Path
    works: dict[InstanceId, Mapping[str, Any]] = field(default_factory=dict)
    """The calls of each worker that runs."""
    fails: Exception | None = None
    calls: list[str] = field(default_factory=list)

    def get(self, id: InstanceId) -> Mock:
        """As the registry does."""
        link = Mock(call=partial(self.call, id)) if id in self.works else None
        return Mock(instance=Mock(backend=""), link=link)

    async def call(
        self, id: InstanceId, do: str, args: Mapping[str, Any], timeout: float
    ) -> Mapping[str, Any]:
        self.calls += [do, *args]
        if self.fails is not None:
            raise self.fails
        async with asyncio.timeout(timeout):
            return await self.works[id][do](args)


class Agent:
    """One life of an agent; `kill` ends it without a farewell."""

    def __init__(self, folder: Path, phone: Phone) -> None:
        self.folder, self.phone, self.bus = folder, phone, EventBus()
        self.workers, self.limits = Workers(folder / "sessions"), Limits()
        self.session, self.file = folder / "sessions" / ID, folder / "outbox.db"
        self.session.mkdir(parents=True)

    async def restart(self) -> None:
        await self.stop()
        await self.start()
        await asyncio.sleep(1)

    async def repaired(self) -> str:
        """The one thing that had to be done to open the outbox."""
        (entry,) = await self.store.history(None, limit=9, kinds=("store_repaired",))
        return entry.sentence

    async def start(self) -> "Agent":
        self.store = await Store.open(self.folder / "agent.db")
        self.reader = Reader(self.workers)
        self.sending = Sending(self.folder, self.phone, self.store, self.bus, self.reader)
        self.sending.limits = self.limits
        self.task = asyncio.create_task(self.sending.run(), name="sending")
        return self

    async def stop(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task
        await self.store.close()

    async def kill(self) -> None:
        """End the agent's tasks; none of them writes what it would write at its end."""
        sending = self.sending
        if (outbox := sending._outbox) is not None:
            await outbox.writer.close()
        tries = [task for sender in sending.senders.values() for task in sender._tries]
        for task in [*tries, self.task, *sending._tasks.values()]:
            task.cancel()
        await asyncio.sleep(0)
        await self.stop()

    async def say(self, to: str, text: str, wait: float = 0.0, **more: Any) -> Taken:
        message = {"type": "text", "to": to, "text": text}
        return await self.sending.accept(ID, message, wait=wait, **more)

    async def ask(
        self, to: str, text: str, wait: float = 30.0, key: str = "", **more: Any
    ) -> tuple[int, Mapping[str, Any]]:
        whose = ("operator", ID, key) if key else ()
        taken = await self.say(to, text, wait, whose=whose, digest=text if key else "", **more)
        return await self.sending.answer(taken, wait)

    async def row(self, taken: Taken) -> Mapping[str, Any]:
        return await self.sending.show(ID, taken.row.id)

    async def state(self, taken: Taken) -> str:
        row = await self.row(taken)
        return f"{row['state']} {row['reason']}".strip()

    def tell(self, kind: str, **detail: Any) -> None:
        self.bus.publish(JournalEntry(kind, kind, instance=ID, wall=2e9, detail=detail))


async def code_of(work: Awaitable[object]) -> str:
    """The code of the error that it ends with; "" = none."""
    try:
        await work
    except WaError as error:
        return error.code
    return ""


async def until(probe: Callable[[], object], within: float = 60.0) -> None:
    """In virtual seconds."""
    for _ in range(int(within * 20)):
        if probe():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {within} s")
