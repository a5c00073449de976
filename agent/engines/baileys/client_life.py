"""The life of a session's client: it is started, killed when its loop hangs, closed in order."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.core.words import ConnectionStatus
from agent.engines.baileys.rules import KNOWN_GOOD, BaileysSettings, check_login, read_version
from agent.engines.baileys.session_state import FAILING, SessionState
from agent.engines.base import Keeper, cache_folder, keep_usable, probe_limit
from agent.errors import EngineError

if TYPE_CHECKING:
    from agent.engines.baileys.client import Client
    from agent.engines.baileys.conversation import Conversation, OnEnd, OnEvent
    from agent.engines.baileys.pack import NodeShare

    Join = Callable[[OnEvent, OnEnd], Awaitable[NodeShare]]

log = logging.getLogger(__name__)

ANSWERED = 20.0
"""Seconds for the client to hear it."""


class Keeping:
    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def keeps(self) -> bool:
        return self._keeper.keeps

    def take(self, event: Mapping[str, Any], client: "Conversation") -> None:
        """`client`: the one that sent them, which the answer is for."""
        task = asyncio.create_task(self._keep(event, client), name="keep")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self, event: Mapping[str, Any], client: "Conversation") -> None:
        answer: dict[str, Any] = {"n": str(event.get("n", ""))}
        raw = event.get("records")
        records = [each for each in raw if isinstance(each, dict)] if isinstance(raw, list) else []
        try:
            await keep_usable(self._keeper, records)
        except EngineError as error:
            answer["error"] = str(error)
        except Exception as error:
            log.exception("records cannot be kept")
            answer["error"] = f"the worker failed ({type(error).__name__})"
        await self._answer(client, answer)

    async def _answer(self, client: "Conversation", answer: Mapping[str, Any]) -> None:
        try:
            await client.call("kept", ANSWERED, **answer)
        except EngineError as error:
            # It gives up by itself, and WhatsApp sends them again.
            log.warning("the client was not told what is kept: %s", error)


STARTS_WITHIN = 600.0

COPIES = "sent.log"
"""Beside the session's folder."""


class ClientLife:
    def __init__(
        self,
        folder: Path,
        settings: BaileysSettings,
        state: SessionState,
        keeping: Keeping,
        join: "Join | None" = None,
    ) -> None:
        """`join`: takes a share of a pack's Node; None: the session has a Node of its own."""
        self.client: Client | NodeShare | None = None
        self._speaker: Conversation | None = None
        """Whose events come: also while it is hung up."""
        self._folder = folder
        self._settings = settings
        self._state = state
        self._keeping = keeping
        self._cache = cache_folder()
        self._join = join
        self._ends: list[float] = []
        self._asked_at: float | None = None

    @property
    def alive(self) -> bool:
        return self.client is not None and self.client.alive

    async def open(self) -> "Client | NodeShare":
        """The client that is there, or a new one with the session's store open."""
        if self.client is not None and self.client.alive and not self._state.spoiled:
            return self.client
        await self.kill("its store failed")
        now = time.monotonic()
        self._ends = [at for at in self._ends if now - at < STARTS_WITHIN]
        if self._ends and len(self._ends) > self._settings.client_starts:
            raise EngineError(
                f"the client ended {len(self._ends)} times in ten minutes", code=FAILING
            )
        claim = self._state.claim
        await asyncio.to_thread(check_login, self._folder, claim.account if claim.paired else "")
        client = self._speaker = await self._begin()
        self.client, self._state.spoiled = client, True
        answer = await client.call("open", 20.0, **self._orders())
        self._state.spoiled = False
        self._state.note_identity(answer)
        return client

    async def look(self, client: "Client | NodeShare", *, ask: bool) -> Mapping[str, Any]:
        """The client's answer to a probe; ends one whose loop hangs."""
        limit = probe_limit()
        if self._asked_at is None or client.heard_at > self._asked_at:
            self._asked_at = time.monotonic()
        try:
            answer = await client.call("look", limit, ask=ask, seconds=limit * 0.8)
        except EngineError as error:
            if error.code == "timeout":
                await self._end_hanging(client)
            raise
        self._asked_at = None
        return answer

    async def hang_up(self) -> None:
        client, self.client = self.client, None
        self._state.forget_code()
        if client is None:
            return
        if client.alive:
            try:
                await client.call("disconnect", 20.0)
            except EngineError as error:
                log.warning("the client did not save in order: %s", error)
        await client.close()

    async def kill(self, why: str) -> None:
        """Let go of the session without a save."""
        client, self.client = self.client, None
        if client is not None:
            await client.kill(why)

    async def _begin(self) -> "Client | NodeShare":
        on_event, on_end = self._hear, self._ended
        if self._join is not None:
            return await self._join(on_event, on_end)
        from agent.engines.baileys.client import Client
        from agent.engines.baileys.node import find_node, find_packages

        # ConfigError says what is missing, and the next try looks again.
        node = await asyncio.to_thread(find_node)
        return await Client.start(node, find_packages(self._cache), on_event, on_end)

    def _hear(self, event: Mapping[str, Any]) -> None:
        if event.get("event") != "keep":
            self._state.hear(event)
        elif self._speaker is not None:
            self._keeping.take(event, self._speaker)

    def _orders(self) -> dict[str, Any]:
        version = self._settings.version
        if version == KNOWN_GOOD:
            version = read_version(self._folder)
        return {
            "folder": str(self._folder),
            "paired": self._state.claim.paired,
            "url": self._settings.url,
            "media_url": self._settings.media_url,
            "version": [int(part) for part in version.split(".")] if version else None,
            "browser": self._settings.device_name,
            "proxy": self._settings.proxy,
            "keeps": self._keeping.keeps,
            # Copies of sent messages outlive the client where messages are kept.
            "copies": str(self._folder.parent / COPIES) if self._keeping.keeps else "",
        }

    async def _end_hanging(self, client: "Client | NodeShare") -> None:
        """End a client whose loop hangs; the next connect starts another. One late answer on a busy
        machine is no such loop."""
        now = time.monotonic()
        silent = now - max(self._asked_at or now, client.heard_at)
        if client is self.client and silent >= client.hangs_after:
            self._asked_at = None
            await client.kill("its loop stood still")
            self._ended(f"its loop did not answer within {silent:.0f} s; it was killed")

    def _ended(self, why: str) -> None:
        log.warning("Node of this session: %s", why)
        self.client = None
        self._state.forget_code()
        self._ends.append(time.monotonic())
        if self._join is not None:
            self._state.happened("pack_ended", text=why)
        else:
            self._state.happened("error", code="client_ended")
        self._state.change(ConnectionStatus.DISCONNECTED, "client_crashed", raw=why)
