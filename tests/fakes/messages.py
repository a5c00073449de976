"""Workers that keep messages in memory, and the agent's side over them."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from agent.core.model import Instance, InstanceId
from agent.core.session import Session
from agent.errors import LinkError, NotFound
from agent.messages.reader import Reader
from agent.messages.record import gap
from tests.fakes.supervisor import make_view


class FakeWorker:
    """Keeps records as messages.db does."""

    def __init__(self, first: int = 1) -> None:
        self.first = first
        """The cursor of the first record that it ever kept."""
        self.records: list[dict[str, Any]] = []
        self.newest = first - 1
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.leave = asyncio.Event()
        """While clear, its answers wait."""
        self.leave.set()
        self.at_once = 0

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
        return [args["settled"] for _, args in self.asked if "settled" in args]

    async def call(
        self, do: str, args: Mapping[str, Any], timeout: float = 10.0
    ) -> Mapping[str, Any]:
        self.asked.append((do, dict(args)))
        self.at_once += 1
        answer = self._answer(do, args)
        try:
            async with asyncio.timeout(timeout):
                await self.leave.wait()
        except TimeoutError as error:
            raise LinkError(f"cannot {do}: no answer in {timeout:g} s", code="timeout") from error
        finally:
            self.at_once -= 1
        return answer

    def _answer(self, do: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        if do == "messages_state":
            waiting = sum(one["cursor"] > max(self.settled(), default=0) for one in self.records)
            its = args.get("cursors", {}).items()
            behind = {name: sum(one["cursor"] > at for one in self.records) for name, at in its}
            told = {"newest": self.newest, "waiting": waiting, "bytes": 300, "lost": 1}
            return {**told, "behind": behind}
        if do == "messages_behind":
            since = args.get("since", 0.0)
            behind = [one["cursor"] for one in self.records if one["kept"] >= since]
            before, had = min(behind, default=self.newest + 1) - 1, max(self.settled(), default=0)
            return {"before": before, "settled": had}
        if do != "messages":
            return {}
        after, oldest = args["after"], self.newest - len(self.records) + 1
        lost = [gap(after, self.newest, time.time(), None)] if after > self.newest else []
        after = min(after, self.newest)
        found = [one for one in self.records if one["cursor"] > after][: args["limit"]]
        last = found[-1]["cursor"] if found else self.newest
        if 0 < after < oldest - 1:
            first = max(after + 1, self.first)
            found = [gap(first, oldest - 1, time.time(), oldest - first), *found]
        return {
            **{"records": [*lost, *found], "next": last, "oldest": oldest, "newest": self.newest},
            "more": last < self.newest,
        }


class FakeMessages:
    """The real reader over sessions whose workers are in memory."""

    def __init__(self) -> None:
        self.workers: dict[InstanceId, FakeWorker] = {}
        self.sessions: dict[InstanceId, Session] = {}
        self.reader = Reader(self)
        self._away: set[InstanceId] = set()

    def add(self, name: str, created_wall: float = 0.0, first: int = 1) -> FakeWorker:
        """A session whose worker runs."""
        id = InstanceId(name)
        self.sessions[id] = make_view(
            name, instance=Instance(id, "sandbox", True, created_wall=created_wall)
        )
        self.workers[id] = FakeWorker(first)
        return self.workers[id]

    def remove(self, name: str) -> None:
        del self.workers[InstanceId(name)], self.sessions[InstanceId(name)]
        self.reader.forget(InstanceId(name))

    def keep(self, name: str, *texts: str) -> None:
        """Its worker keeps them, and tells."""
        self.workers[InstanceId(name)].keep(*texts)
        self.tell(name)

    def tell(self, name: str) -> None:
        self.reader.changed(InstanceId(name))

    def lose_worker(self, name: str) -> None:
        self._away.add(InstanceId(name))

    def connect_worker(self, name: str) -> None:
        self._away.discard(InstanceId(name))
        self.tell(name)

    def here(self, id: InstanceId) -> bool:
        """Its worker answers."""
        return id not in self._away and self.workers[id].leave.is_set()

    # As the reader asks

    root = Path("/nowhere")

    def get(self, id: InstanceId) -> Mock:
        if id not in self.workers:
            raise NotFound(f"cannot find instance {id}", field="id")

        async def call(do: str, args: Mapping[str, Any], timeout: float) -> Mapping[str, Any]:
            if id in self._away:
                raise LinkError("its worker ended", code="closed")
            return await self.workers[id].call(do, args, timeout)

        return Mock(instance=self.sessions[id].instance, link=Mock(call=call))
