"""Who may send this agent a session that is sealed for it: nobody, or whom a wing invites."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.core.model import Instance, InstanceId
from agent.errors import Refused
from agent.store.database import Store
from agent.vault.archives.seal import Sealed
from agent.vault.copies.manifest import Manifest
from agent.wing import modules_of


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instance that may get such a session."""

    instance: Instance
    paired: bool


class Invitations(Protocol):
    @property
    def key_file(self) -> Path:
        """The agent's key, which opens the seal."""

    async def check_sealed(self, id: InstanceId, sealed: Sealed) -> None:
        """Refuses a seal for another instance, or with another token than its invitation's."""

    def refuse_unfit(self, id: InstanceId, manifest: Manifest) -> None:
        """Refuses a session that this instance must not get so."""

    async def use(self, id: InstanceId, sha256: str) -> None:
        """The session came in: its invitation is used."""


@dataclass(frozen=True, slots=True)
class NoInvitations:
    key_file: Path

    async def check_sealed(self, id: InstanceId, _sealed: Sealed) -> None:
        raise Refused(f"cannot import {id}: this agent invites nobody to send a sealed session")

    def refuse_unfit(self, id: InstanceId, _manifest: Manifest) -> None:
        raise Refused(f"cannot import {id}: it exists", field="id", code="exists")

    async def use(self, id: InstanceId, sha256: str) -> None: ...


def open_invitations(
    store: Store,
    key_file: Path,
    *,
    find: Callable[[InstanceId], Candidate],
    seconds: Callable[[], float],
) -> Invitations:
    """Those of the wing that brings them. `find` raises NotFound for an unknown id; `seconds`: how
    long one holds."""
    for module in modules_of("invites"):
        invites: Invitations = module.Invites(store, key_file, find=find, seconds=seconds)
        return invites
    return NoInvitations(key_file)
