"""The session as it is in memory and as its file has it."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

from agent.engines.sandbox import files
from agent.engines.sandbox.files import SessionDamagedError, SessionFile
from agent.engines.tasks import to_end
from agent.errors import EngineError


class SavedSession:
    """Reads, changes and saves one folder's session; file work runs beside the loop. A write that
    has begun ends even when its caller is cancelled, and the next waits: two would share a
    temporary file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._session: SessionFile | None = None
        self._file = asyncio.Lock()

    @property
    def paired(self) -> bool:
        return self._session is not None and self._session.paired

    @property
    def account(self) -> str:
        return self._session.account if self._session is not None else ""

    async def load(self) -> None:
        """Take what the file says; SessionDamagedError leaves nothing in memory."""
        await to_end(self._load())

    async def pair(self, account: str) -> None:
        """On the disk first: a pairing that the next run would not know is none."""
        await to_end(self._pair(account))

    def unpair(self) -> None:
        """In memory; a `save` follows. The other side forgets us whatever our disk does."""
        self._session = replace(self._loaded(), paired=False, account="")

    async def save(self) -> None:
        """Write what is known; what could not be read is left as it is, for the vault."""
        await to_end(self._save())

    async def settle(self) -> None:
        """Return when no write is under way."""
        async with self._file:
            pass

    def count(self) -> None:
        if self._session is not None:
            self._session = replace(self._session, counter=self._session.counter + 1)

    async def look(self) -> str:
        """What the file is worth at this moment, as the vault would say it."""
        try:
            session = await asyncio.to_thread(files.read_session, self.folder)
        except SessionDamagedError:
            return "damaged"
        except OSError:
            return "unreadable"
        if session is None:
            return "absent"
        return "whole" if session.paired else "unpaired"

    async def _load(self) -> None:
        async with self._file:
            try:
                session = await asyncio.to_thread(self._read)
                if self.paired and (session is None or not session.paired):
                    raise SessionDamagedError("the file of a paired session is gone")
            except SessionDamagedError:
                self._session = None
                raise
            if session is None:
                session = SessionFile(device=os.urandom(8).hex())
                await self._write(session)
            self._session = session

    async def _pair(self, account: str) -> None:
        async with self._file:
            session = replace(self._loaded(), paired=True, account=account)
            await self._write(session)
            self._session = session

    async def _save(self) -> None:
        async with self._file:
            if self._session is not None:
                await self._write(self._session)

    def _loaded(self) -> SessionFile:
        if self._session is None:
            raise EngineError("cannot use the session: its file was not read", code="no_session")
        return self._session

    def _read(self) -> SessionFile | None:
        try:
            return files.read_session(self.folder)
        except OSError as error:
            # Not damage: a matter of rights must not cost the session.
            raise EngineError(f"cannot read the session: {error}", code="unreadable") from error

    async def _write(self, session: SessionFile) -> None:
        try:
            await asyncio.to_thread(files.write_session, self.folder, session)
        except OSError as error:
            raise EngineError(f"cannot save {self.folder}: {error}", code="save_failed") from error
