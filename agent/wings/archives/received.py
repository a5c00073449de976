"""An archive that comes in: written to a nameless file, and unsealed while it is read."""

import asyncio
import hashlib
import io
import tempfile
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from agent.errors import TooLarge
from agent.vault.archives.seal import Sealed, Unsealed, is_sealed, lacks_of_head
from agent.vault.archives.untar import Archive
from agent.vault.folders import STAGING, open_own


@dataclass(frozen=True, slots=True)
class Received:
    sha256: str
    """Of the bytes as they came."""
    _file: IO[bytes]
    _key_file: Path

    def open(self) -> tuple[Archive, Sealed | None]:
        """The archive from its beginning, and its seal where it has one."""
        self._file.seek(0)
        if not is_sealed(self._file):
            return self._file, None
        opened = Unsealed(self._file, self._key_file)
        return opened, opened.sealed


@asynccontextmanager
async def received(
    pieces: AsyncIterable[bytes], root: Path, key_file: Path, most: int
) -> AsyncIterator[Received]:
    """`most`: bytes; TooLarge for more."""
    digest, size = hashlib.sha256(), 0
    with await asyncio.to_thread(open_nameless, root) as file:
        async for piece in pieces:
            size += len(piece)
            if size > most:
                raise TooLarge(
                    f"cannot take the archive: it has more than {most} bytes", field="archive"
                )
            digest.update(piece)
            await asyncio.to_thread(file.write, piece)
        yield Received(digest.hexdigest(), file, key_file)


async def read_seal(
    pieces: AsyncIterable[bytes], key_file: Path
) -> tuple[Sealed, AsyncIterator[bytes]]:
    """The seal of a sealed archive from its first bytes, and the whole archive."""
    coming = aiter(pieces)
    head = b""
    while lacks_of_head(head) and (piece := await anext(coming, b"")):
        head += piece

    async def whole() -> AsyncIterator[bytes]:
        yield head
        async for piece in coming:
            yield piece

    opened = await asyncio.to_thread(Unsealed, io.BytesIO(head), key_file)
    return opened.sealed, whole()


def open_nameless(root: Path) -> IO[bytes]:
    """A file beside the sessions that only this process can open and no crash leaves behind."""
    with open_own(root, STAGING):
        return tempfile.TemporaryFile(dir=root / STAGING)
