"""Publishes a new pairing only when a browser that is killed comes up with it again."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.engines.web.profile.folder import make_durable
from agent.engines.web.save_pairing import flush_pairing
from agent.engines.web.session import Session
from agent.engines.web.starts import Starts
from agent.engines.web.view import SessionView
from agent.errors import EngineError

log = logging.getLogger(__name__)


@dataclass(slots=True)
class NewPairing:
    folder: Path
    session: Session
    view: SessionView
    starts: Starts
    publish: Callable[[], None]
    _saving: bool = False

    def is_due(self) -> bool:
        """Whether `save` must be called now; it counts as called."""
        due = self.view.pairing_to_save and not self._saving
        self._saving = self._saving or due
        return due

    async def save(self) -> None:
        try:
            if await flush_pairing(self.session.page, self.folder):
                if self.view.pairing_to_save:
                    self.view.pairing_is_safe()
                    self.publish()
            elif self.view.pairing_to_save and self.starts.may_begin:
                self.starts.begin(self._save_by_closing)
        except EngineError as error:
            # The browser went away. The next one shows what came of it.
            log.warning("cannot bring a new pairing to the disk: %s", error)
        finally:
            self._saving = False

    async def _save_by_closing(self) -> None:
        log.info("closing the browser once, so that it writes the new pairing to the disk")
        in_order = await self.session.close()
        await asyncio.to_thread(make_durable, self.folder, lambda: None)
        self.view.pairing_safe = in_order
        await self.starts.start()
