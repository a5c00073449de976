"""Who may send this agent a session that is sealed for it: nobody, or whom a wing invites."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.core.model import Instance, InstanceId
from agent.errors import Refused
from agent.vault.copies.manifest import Manifest
from agent.vault.copies.seal import Sealed


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
