"""What arrives in the client's session, handed to the worker: the client hears when it is on the
disk, and lets WhatsApp hear only then.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent.engines.base import Keeper, keep_usable
from agent.errors import EngineError

if TYPE_CHECKING:
    from agent.engines.baileys.conversation import Conversation
    from agent.engines.baileys.pack import NodeShare

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

    def take(self, event: Mapping[str, Any], client: "Conversation | NodeShare") -> None:
        """`client`: the one that sent them, which the answer is for."""
        task = asyncio.create_task(self._keep(event, client), name="keep")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self, event: Mapping[str, Any], client: "Conversation | NodeShare") -> None:
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

    async def _answer(self, client: "Conversation | NodeShare", answer: Mapping[str, Any]) -> None:
        try:
            await client.call("kept", ANSWERED, **answer)
        except EngineError as error:
            # It gives up by itself, and WhatsApp sends them again.
            log.warning("the client was not told what is kept: %s", error)
