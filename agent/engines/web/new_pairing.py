"""Publishes a new pairing only when a browser that is killed comes up with it again."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from agent.engines.web.profile.folder import make_durable
from agent.engines.web.save_pairing import flush_pairing
from agent.engines.web.session import Session
from agent.engines.web.starts import Starts
from agent.engines.web.view import SessionView
from agent.errors import EngineError

log = logging.getLogger(__name__)


class NewPairing:
    def __init__(
        self,
        folder: Path,
        session: Session,
        view: SessionView,
        starts: Starts,
        publish: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._session = session
        self._view = view
        self._starts = starts
        self._publish = publish
        self._saving = False

    def is_due(self) -> bool:
        """Whether `save` must be called now; it counts as called."""
        due = self._view.pairing_to_save and not self._saving
        self._saving = self._saving or due
        return due

    async def save(self) -> None:
        try:
            if await flush_pairing(self._session.page, self._folder):
                if self._view.pairing_to_save:
                    self._view.pairing_is_safe()
                    self._publish()
            elif self._view.pairing_to_save and self._starts.may_begin:
                self._starts.begin(self._save_by_closing)
        except EngineError as error:
            # The browser went away. The next one shows what came of it.
            log.warning("cannot bring a new pairing to the disk: %s", error)
        finally:
            self._saving = False

    async def _save_by_closing(self) -> None:
        log.info("closing the browser once, so that it writes the new pairing to the disk")
        in_order = await self._session.close()
        await asyncio.to_thread(make_durable, self._folder, lambda: None)
        self._view.pairing_safe = in_order
        await self._starts.start()
