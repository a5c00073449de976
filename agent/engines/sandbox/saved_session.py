"""The session as it is in memory and as its file has it."""

import os
from dataclasses import replace
from pathlib import Path

from agent.engines.sandbox import files
from agent.engines.sandbox.files import SessionDamagedError, SessionFile
from agent.errors import EngineError


class SavedSession:
    """Reads, changes and saves one folder's session: a file of a few hundred bytes, so the worker
    waits for its disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._session: SessionFile | None = None

    @property
    def paired(self) -> bool:
        return self._session is not None and self._session.paired

    @property
    def account(self) -> str:
        return self._session.account if self._session is not None else ""

    def load(self) -> None:
        """Take what the file says; SessionDamagedError leaves nothing in memory."""
        try:
            session = files.read_session(self.folder)
            if self.paired and (session is None or not session.paired):
                raise SessionDamagedError("the file of a paired session is gone")
        except SessionDamagedError:
            self._session = None
            raise
        except OSError as error:
            # Not damage: a matter of rights must not cost the session.
            raise EngineError(f"cannot read the session: {error}", code="unreadable") from error
        if session is None:
            session = SessionFile(device=os.urandom(8).hex())
            self._write(session)
        self._session = session

    def pair(self, account: str) -> None:
        """On the disk first: a pairing that the next run would not know is none."""
        session = replace(self._loaded(), paired=True, account=account)
        self._write(session)
        self._session = session

    def unpair(self) -> None:
        """In memory; a `save` follows. The other side forgets us whatever our disk does."""
        self._session = replace(self._loaded(), paired=False, account="")

    def save(self) -> None:
        """Write what is known; what could not be read is left as it is, for the vault."""
        if self._session is not None:
            self._write(self._session)

    def count(self) -> None:
        if self._session is not None:
            self._session = replace(self._session, counter=self._session.counter + 1)

    def look(self) -> str:
        """What the file is worth at this moment, as the vault would say it."""
        try:
            session = files.read_session(self.folder)
        except SessionDamagedError:
            return "damaged"
        except OSError:
            return "unreadable"
        if session is None:
            return "absent"
        return "whole" if session.paired else "unpaired"

    def _loaded(self) -> SessionFile:
        if self._session is None:
            raise EngineError("cannot use the session: its file was not read", code="no_session")
        return self._session

    def _write(self, session: SessionFile) -> None:
        try:
            files.write_session(self.folder, session)
        except OSError as error:
            raise EngineError(f"cannot save {self.folder}: {error}", code="save_failed") from error
