"""What takes sessions in from archives, as other wings see the one that brings it."""

from collections.abc import AsyncIterable, Callable
from typing import Protocol

from agent.core.model import InstanceId
from agent.supervise.copies.invitations import Invitations


class Imported(Protocol):
    @property
    def sha256(self) -> str:
        """Of the archive that came in."""


class Archives(Protocol):
    @property
    def invites(self) -> Invitations: ...

    async def import_invited(
        self, pieces: AsyncIterable[bytes], id: InstanceId, proven: Callable[[], None]
    ) -> Imported:
        """The session that an invited desk sends. `proven` is called when its first bytes have
        shown that it was invited, before the others are read."""
