"""One Node for the sessions of a pack: started with the first, watched, shared, ended as a whole.

Each session has a share of it, which its engine uses as a client of its own. When Node ends, each
session of it says so, and the next one that connects starts another.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from pathlib import Path
from typing import Any

from agent.engines.baileys import engine, rules, session_state
from agent.engines.baileys.client import MOST_LINES, Client, Conversation, OnEnd, OnEvent
from agent.engines.baileys.node import find_node, find_packages
from agent.engines.base import Reporter, cache_folder, whole
from agent.errors import EngineError

log = logging.getLogger(__name__)

TICK, TICK_WITHIN = 5.0, 3.0
"""Seconds between two looks at Node, and for its answer."""
FORGET_WITHIN = 20.0
YOUNG = "--max-semi-space-size=16"
"""Space for what is new, in MiB: in that of one session, fifty would begin a collection at each
message, a tenth of all processor time."""
SENDS, TURN_WITHIN = 8, 10.0
"""Messages that Node sends at a time: of those of fifty sessions at once, each would wait beyond
its limit and be sent again, and none would get through. Seconds until a message has its turn, or
stays with the agent."""
MEMORY, MEMORY_EACH = 256 << 20, 64 << 20
"""Bytes that Node may use, and more for each of its sessions: above that it leaks."""


class NodeShare(Conversation):
    """One session's part of a shared Node; has the methods of `Client` that an engine uses."""

    owns_pipe = False
    hangs_after = float("inf")
    """No limit here: the pack ends a Node whose loop stands still, and names the sessions."""

    def __init__(
        self, node: "SharedNode", client: Client, folder: Path, on_event: OnEvent, on_end: OnEnd
    ) -> None:
        super().__init__(client.commands, on_event)
        self.pid, self.name, self.folder = client.pid, next(node.names), folder
        self._node, self._on_end = node, on_end
        # Tasks that an event of this session starts belong to this session's run, also where the
        # run of another session started Node.
        self._context = copy_context()

    async def call(self, do: str, within: float, **more: Any) -> Mapping[str, Any]:
        """As `Conversation.call`. EngineError, too, where Node is busy with messages of other
        sessions for too long: nothing was sent."""
        if do != "send":
            return await super().call(do, within, **more, session=self.name)
        try:
            async with asyncio.timeout(TURN_WITHIN):
                await self._node.sends.acquire()
        except TimeoutError:
            words = f"cannot send: Node of pack {self._node.pack} sends messages of other sessions"
            raise EngineError(words, code="busy") from None
        try:
            return await super().call(do, within, **more, session=self.name)
        finally:
            self._node.sends.release()

    async def kill(self, why: str = "it was closed") -> None:
        """Return when Node writes to the session's folder no more."""
        if self.end(why):
            await asyncio.shield(self._node.leave(self))

    close = kill

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take in an event. One that this session cannot use ends its share, not the others'."""
        if self.ended:
            return
        try:
            self._context.run(self.take, event)
        except Exception as error:
            log.exception("an event of the client cannot be used")
            self.node_ended(f"the worker could not use an event of it ({type(error).__name__})")
            self._node.leave(self)

    def node_ended(self, why: str) -> None:
        if self.end(why):
            self._context.run(self._on_end, why)


class SharedNode:
    """The Node of one pack. Its sessions come and go; it ends with `close`."""

    def __init__(self, pack: str) -> None:
        self.pack, self.sends = pack, asyncio.Semaphore(SENDS)
        self._shares: dict[str, NodeShare] = {}
        self._leaving: dict[Path, asyncio.Task[None]] = {}
        """Session's folder → the task by which its share leaves."""
        self.names = map(str, itertools.count(1))
        self._client: Client | None = None
        self._starting = asyncio.Lock()

    def open_engine(
        self, folder: Path, settings: Mapping[str, Any], reporter: Reporter
    ) -> engine.BaileysEngine:
        """Return the engine of one session, on its share."""
        own, join = rules.read_settings(settings), partial(self.join, folder)
        return engine.BaileysEngine(folder, own, reporter, join)

    async def join(self, folder: Path, on_event: OnEvent, on_end: OnEnd) -> NodeShare:
        """`on_end` is called with the cause when Node ended, unless `close` or `kill` ended the
        share."""
        if (leaving := self._leaving.get(folder)) is not None:
            await asyncio.wait({leaving})
        share = NodeShare(self, await self._running(), folder, on_event, on_end)
        self._shares[share.name] = share
        return share

    def leave(self, share: NodeShare) -> asyncio.Task[None]:
        """Done when Node has closed the session's files. It goes on without its caller: another
        share of this session waits for it."""
        task = asyncio.get_running_loop().create_task(self._forget(share), context=Context())
        self._leaving[share.folder] = task
        return task

    async def _forget(self, share: NodeShare) -> None:
        self._shares.pop(share.name, None)
        if (client := self._client) is None:
            return
        try:
            await client.call("forget", FORGET_WITHIN, name=share.name)
        except EngineError as error:
            await self._end_node(client, f"it did not let go of a session: {error}")

    async def watch(self, alive: Callable[[], object]) -> None:
        """Look after Node until cancelled; `alive` is called at each look."""
        while True:
            alive()
            if self._client is not None:
                await self._look(self._client)
            await asyncio.sleep(TICK)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _running(self) -> Client:
        async with self._starting:
            if self._client is None or not self._client.alive:
                node = await asyncio.to_thread(find_node)
                packages = find_packages(cache_folder())
                # No session's context: what reads its lines must not end with the first session.
                start = Client.start(node, packages, self._pass_on, self._node_ended, YOUNG)
                self._client = await asyncio.create_task(start, context=Context())
            return self._client

    async def _look(self, client: Client) -> None:
        count = max(len(self._shares), 1)
        client.most_lines = MOST_LINES * count
        used = 0
        with suppress(EngineError):
            used = whole((await client.call("tick", TICK_WITHIN)).get("rss")) or 0
        silent, limit = time.monotonic() - client.heard_at, MEMORY + MEMORY_EACH * count
        if silent >= client.hangs_after:
            await self._end_node(client, f"its loop did not answer within {silent:.0f} s")
        elif used > limit:
            words = f"it used {used >> 20} MiB, and {limit >> 20} MiB is its limit"
            await self._end_node(client, words)

    async def _end_node(self, client: Client, why: str) -> None:
        if client.alive:
            await client.kill(why)
            self._node_ended(why)

    def _node_ended(self, why: str) -> None:
        shares, self._shares, self._client = list(self._shares.values()), {}, None
        words = f"Node of pack {self.pack}, which {len(shares)} sessions share, ended: {why}"
        log.error("%s", words)
        for share in shares:
            share.node_ended(words)

    def _pass_on(self, event: Mapping[str, Any]) -> None:
        """Pass an answer or event of Node on to its session."""
        share = self._shares.get(str(event.get("session", "")))
        if share is not None:
            share.hear({key: value for key, value in event.items() if key != "session"})
        elif event.get("event") == "stray":
            log.warning("%s", session_state.stray_words(event))
