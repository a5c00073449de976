"""An engine translates between one WhatsApp session and its worker. Deadlines belong to the worker,
verdicts to the core. Standard library only: each worker has it in memory.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agent.core.words import Claim, Happening
from agent.errors import EngineError

log = logging.getLogger(__name__)

IN_CHAT = ("typing", "recording", "paused")
PRESENCES = (*IN_CHAT, "available", "unavailable")
"""What a session lets others see of it; the first ones in one chat."""


@dataclass(frozen=True, slots=True)
class Qr:
    """A code to scan with the phone. Its text is a secret."""

    text: str = field(repr=False)
    expires_in: float
    """Seconds until WhatsApp replaces it."""
    number: int
    """The how-manieth code of this login."""


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """What the engine found when it really asked its session."""

    claim: Claim
    detail: Mapping[str, Any] = field(default_factory=dict)


class Keeper(Protocol):
    """Who takes what arrives in a session: messages, reactions, calls, states of messages sent."""

    @property
    def keeps(self) -> bool:
        """True if what arrives is kept; if not, no record need be made."""

    async def keep(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Return when all that arrived is on the disk, or was there before by its `id`. EngineError
        `not_kept` where it cannot be: WhatsApp may not hear then that it was taken."""


async def keep_usable(keeper: Keeper, records: Sequence[Mapping[str, Any]]) -> None:
    """A record that can never be kept is left out: it would hold up all others."""
    try:
        await keeper.keep(records)
    except EngineError as error:
        if error.code != "bad_record":
            raise
        if len(records) == 1:
            # Not with what it says, which may name a contact.
            log.error(
                "a record of what arrived is malformed, and left out (%.40s)",
                records[0].get("kind"),
            )
            return
        for each in records:
            await keep_usable(keeper, [each])


class KeepsNothing:
    """A Keeper of an agent that keeps no messages."""

    __slots__ = ()

    @property
    def keeps(self) -> bool:
        return False

    async def keep(self, records: Sequence[Mapping[str, Any]]) -> None: ...


class Reporter(Keeper, Protocol):
    """How an engine reports by itself; each call returns at once, but for `keep`."""

    def claim(self, claim: Claim) -> None: ...

    def happened(self, happening: Happening) -> None: ...

    def progress(self) -> None:
        """A save made a step; its time limit starts again."""

    def crashed(self, error: BaseException) -> None:
        """The engine's own background work ended with an unexpected error: the worker ends."""


class Engine(Protocol):
    """One session. `EngineError` says why something could not be done."""

    async def connect(self) -> None:
        """Begin to connect with what the folder holds; the claims tell how it goes."""

    async def disconnect(self) -> None: ...

    async def probe(self, *, deep: bool = False) -> ProbeAnswer:
        """Ask the session; `EngineError` means: the engine lives, its session does not answer."""

    async def qr(self) -> Qr | None:
        """The code to scan now; None when there is none or none is needed."""

    async def send(self, message: Mapping[str, Any]) -> Mapping[str, Any]: ...

    async def mark_read(self, asked: Mapping[str, Any]) -> None:
        """Let the author of messages know that they were read: `chat`, `message_ids`, and in a
        group `sender`, who wrote them. Returns when WhatsApp was told."""

    async def presence(self, asked: Mapping[str, Any]) -> None:
        """`state` of PRESENCES: shown to the `chat` for so many `seconds` (0 = as long as phones
        show it by themselves), or without a chat to all."""

    async def logout(self) -> None:
        """End the pairing at WhatsApp's side; the session's files stay for the vault."""

    async def regenerate_keys(self, peers: list[str]) -> None: ...

    async def free_memory(self) -> None: ...

    async def prepare_stop(self) -> None:
        """Take on no new work; a stop is near."""

    async def save(self) -> None:
        """Return when all that must outlive this process is on the disk."""

    async def close(self) -> None: ...

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """What only this engine can do (the sandbox's `scan` and `fault`)."""


class LoadsMedia(Protocol):
    """An engine that can load the file of a message that came."""

    def load_media(self, record: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """The file of the record, which has its `_media`, in pieces of some hundred kilobytes; the
        caller compares its hash. EngineError `media_gone`: WhatsApp and the phone have it no more;
        `media_damaged`, `media_refused` (its address is not WhatsApp's), `media_unreachable`."""


DECLARED = "[declared]"
"""Among the settings that an engine is opened with: what agent.toml declares for it. The settings
of an instance, which its creator chose, cannot have this name."""

OpenEngine = Callable[[Path, Mapping[str, Any], Reporter], Engine]
"""Each local engine's module `engine` has an `open_engine` of this type: folder, settings,
reporter."""
