"""A worker that keeps messages in memory, and the agent's side over it."""

import asyncio
import time
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from agent.core.model import Happening, Instance, InstanceId, SessionRecord
from agent.errors import LinkError
from agent.supervise.facts import Facts
from agent.supervise.messages.highest_cursors import HighestCursors
from agent.supervise.messages.kept_messages import KeptMessages
from agent.supervise.registry import Registry
from agent.wings.messages.part import MessagesPart
from agent.wings.messages.readers import Readers
from agent.wings.messages.record import gap


class FakeWorker:
    """A link to a worker that keeps records as the spool does."""

    def __init__(self, first: int = 1) -> None:
        self.first = first
        """The cursor of the first record that it ever kept."""
        self.records: list[dict[str, Any]] = []
        self.newest = first - 1
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.breaks_with: Exception | None = None
        self.files: dict[str, bytes] = {}
        """Of messages, by the ids of their records."""
        self.leave = asyncio.Event()
        """While clear, its answers wait."""
        self.leave.set()
        self.at_once = self.most_at_once = 0

    def keep(
        self,
        *texts: str,
        kind: str = "message",
        kept: float | None = None,
        chat: str = "551199999901@s.whatsapp.net",
        **more: str,
    ) -> None:
        for text in texts:
            self.newest += 1
            kept_wall = time.time() if kept is None else kept
            self.records.append(
                {
                    **{"v": 1, "id": f"m:{chat}:{self.newest}", "kind": kind, "chat": chat},
                    **{"cursor": self.newest, "text": text, "kept": kept_wall, "at": kept_wall},
                    **{"message_id": f"3EB0{self.newest:06}", **more},
                }
            )

    def drop(self, count: int) -> None:
        """The oldest: they are too old, or too many."""
        del self.records[:count]

    def settled(self) -> list[int]:
        return [args["cursor"] for do, args in self.asked if do == "messages_settled"]

    async def call(
        self, do: str, args: Mapping[str, Any] | None = None, *, timeout: float = 10.0
    ) -> Mapping[str, Any]:
        self.asked.append((do, dict(args or {})))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        answer = self._answer(do, dict(args or {}))
        try:
            async with asyncio.timeout(timeout):
                await self.leave.wait()
        except TimeoutError as error:
            raise LinkError(f"cannot {do}: no answer in {timeout:g} s", code="timeout") from error
        finally:
            self.at_once -= 1
        if self.breaks_with is not None:
            raise self.breaks_with
        return answer

    def _answer(self, do: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        if do == "messages_state":
            return {"newest": self.newest, "waiting": 2, "bytes": 300, "lost": 1}
        if do == "messages_media":
            content = self.files[args["id"]]
            about = {"size": len(content), "sha256": sha256(content).hexdigest()}
            return {"state": "ready", "name": args["id"], "mimetype": "image/png", **about}
        if do == "messages_media_part":
            part = self.files[args["name"]][args["offset"] :][: 192 * 1024]
            return {"data": b64encode(part).decode()}
        if do != "messages":
            return {}
        after, oldest = min(args["after"], self.newest), self.newest - len(self.records) + 1
        found = [one for one in self.records if one["cursor"] > after][: args["limit"]]
        last = found[-1]["cursor"] if found else after
        if 0 < after < oldest - 1:
            first = max(after + 1, self.first)
            found = [gap(first, oldest - 1, time.time(), oldest - first), *found]
        return {
            **{"records": found, "next": last, "oldest": oldest, "newest": self.newest},
            "more": last < self.newest,
        }


class FakeMessages:
    """The real part of the agent over sessions whose workers are in memory."""

    def __init__(self, store: Any) -> None:
        self.registry = Registry(store, None, Path("/nowhere"))
        self.source = KeptMessages(self.registry, HighestCursors(store, self.registry))
        self.part = MessagesPart(self.source, Readers(store, self.source))
        self.workers: dict[InstanceId, FakeWorker] = {}

    def add(self, name: str, created_wall: float = 0.0, first: int = 1) -> FakeWorker:
        """A session whose worker runs."""
        id, worker = InstanceId(name), FakeWorker(first)
        instance = Instance(id, "sandbox", True, created_wall=created_wall)
        self.registry.facts[id] = Facts(instance, SessionRecord(), link=worker)
        self.workers[id] = worker
        return worker

    def keep(self, name: str, *texts: str) -> None:
        """Its worker keeps them, and tells."""
        self.workers[InstanceId(name)].keep(*texts)
        self.tell(name)

    def tell(self, name: str) -> None:
        newest = self.workers[InstanceId(name)].newest
        self.source.take(InstanceId(name), Happening("kept", {"cursor": newest}))

    def lose_worker(self, name: str) -> None:
        self.registry.facts[InstanceId(name)].link = None
        self.source.changed(InstanceId(name))

    def connect_worker(self, name: str) -> None:
        id = InstanceId(name)
        self.registry.facts[id].link = self.workers[id]
        self.source.attached(id)
