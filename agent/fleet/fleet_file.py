"""What a machine of a fleet must know after its agent was killed and after a boot: one small file.

It is on the disk before anything that follows from it is said to another machine.
"""

import asyncio
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.clock import boot_now
from agent.core.fleet.acceptance import Accepted
from agent.core.fleet.lease import LeasePolicy
from agent.core.fleet.promises import Sent, Takeover
from agent.errors import VaultError
from agent.files import write_whole
from agent.fleet.coordinator import Member, Renewal


@dataclass(frozen=True, slots=True)
class Rival:
    """Another machine, as far as it is asked for a promise."""

    id: int
    name: str
    address: str
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Renewed:
    """The last renewal that was answered, for an agent that begins without the database."""

    machine: int
    boot: str
    ttl: float


@dataclass(frozen=True, slots=True)
class FleetMemory:
    installation: str
    takeovers: Sent = field(default_factory=dict)
    """Sent ones, which may have happened."""
    epoch: int = 0
    generation: int = 0
    """The highest that the database answered: a smaller one later means that it lost records."""
    renewals: int = 0
    asked: int = 0
    """Counts the renewals that this machine asked for; a late one has a smaller number."""
    named: tuple[frozenset[int], ...] = field(default_factory=tuple)
    """The rivals of each renewal that may have been recorded, from the last answered one on."""
    renewed: Renewed | None = None
    others: tuple[Rival, ...] = ()
    """The machines of the fleet, as they were read last."""
    halted: str = ""
    """Why no session changes its machine until an operator accepts it."""
    lost: bool = False
    """Records were lost, and what this machine owns was not read since in settled ones."""
    accepted: Accepted = field(default_factory=Accepted)
    losses: int = 0
    """Accepted losses of records that it has heard of."""
    unheard: bool = False
    """It was read from a file that may be an older image, and no renewal was accepted since."""

    @property
    def rivals(self) -> frozenset[int]:
        return frozenset[int]().union(*self.named)

    @property
    def asked_for_promises(self) -> tuple[Rival, ...]:
        """The machines that may take this one over, with their addresses."""
        return tuple(it for it in self.others if it.id in self.rivals)

    def asking(self, rivals: frozenset[int]) -> "FleetMemory":
        """Before a renewal that names them; one that names the same as the last adds nothing."""
        known = self.named[-1:] == (rivals,)
        named = self.named if known else (*self.named, rivals)
        return replace(self, asked=self.asked + 1, named=named)

    def heard(self, renewal: Renewal, member: Member, boot: str, ttl: float) -> "FleetMemory":
        """With the answer to a renewal of the member."""
        answered, halted = renewal.accepted, renewal.halted
        accepted = self.accepted.heard(renewal.accepted_loss, halted=bool(halted))
        return replace(
            self,
            epoch=member.epoch,
            generation=max(self.generation, renewal.generation),
            renewals=member.renewals,
            asked=max(self.asked, renewal.asked),
            named=self.named[-1:] if answered else self.named,
            renewed=Renewed(member.id, boot, ttl) if answered else None,
            halted=halted if answered else self.halted,
            lost=self.lost or bool(halted) or accepted.follows(self.accepted),
            accepted=accepted,
            losses=member.losses,
            unheard=self.unheard and not answered,
        )

    def as_read(self, seconds: float | None, ttl: float) -> "FleetMemory":
        """What counts of a file that was written so long ago; None: in another boot. It may be an
        image: what this machine named and sent after that is not in it. Where it is older than a
        ttl there is no lease to go on with."""
        if seconds is not None and 0 <= seconds < ttl:
            return self
        return replace(self, renewed=None, unheard=True)


Change = Callable[[FleetMemory], FleetMemory]


class Memory:
    """The file, and what is in it."""

    def __init__(self, path: Path) -> None:
        self._path, self._boot = path, ""
        self._waiting: list[tuple[Change, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self.now: FleetMemory
        self.trouble = ""
        """Why the file could not be written last; "" = it was."""

    async def load(self, boot: str, now: float, policy: LeasePolicy) -> None:
        self._boot = boot
        memory, seconds = await asyncio.to_thread(_load, self._path, boot, now)
        self.now = memory.as_read(seconds, policy.ttl)
        await asyncio.to_thread(_save, self._path, self.now, boot)

    async def change(self, change: Change) -> None:
        """It is on the disk when this returns. What is asked for while the file is written goes
        into the next writing, all in one: hundreds of machines ask for a promise at once."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((change, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="write the fleet's memory")
        await done

    async def _write(self) -> None:
        """A task of its own: a caller that gives up leaves the others' changes as they are."""
        while self._waiting:
            asked, self._waiting = self._waiting, []
            try:
                memory = self.now
                for change, _ in asked:
                    memory = change(memory)
                if memory != self.now:
                    await asyncio.to_thread(_save, self._path, memory, self._boot)
                    self.now = memory
            except Exception as error:
                self.trouble = str(error)
                for _, done in asked:
                    if not done.done():
                        done.set_exception(error)
            else:
                self.trouble = ""
                for _, done in asked:
                    if not done.done():
                        done.set_result(None)


def _load(path: Path, boot: str, now: float) -> tuple[FleetMemory, float | None]:
    """What the file holds, and for how many seconds (None: since another boot); a new
    installation where there is none."""
    try:
        raw = json.loads(path.read_bytes())
        same = raw["promises"]["boot"] == boot
        return _memory_of(raw), now - float(raw.get("written", now)) if same else None
    except FileNotFoundError:
        return FleetMemory(str(uuid.uuid4())), 0.0
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise VaultError(
            f"cannot read {path}: {error}; this machine may have promised others to wait, so it"
            " takes part in the fleet again only as a new machine: move the file away",
            code="fleet_memory",
        ) from error


def _save(path: Path, memory: FleetMemory, boot: str) -> None:
    raw = asdict(memory) | {"named": [sorted(rivals) for rivals in memory.named]}
    del raw["unheard"]
    # Where the version before has them, with the promises that it gave.
    raw["promises"] = {"boot": boot, "until": {}, "takeovers": raw.pop("takeovers")}
    raw["written"] = boot_now()
    try:
        write_whole(path, json.dumps(raw).encode())
    except OSError as error:
        raise VaultError(f"cannot write {path}: {error}", code="fleet_memory") from error


def _memory_of(raw: Mapping[str, Any]) -> FleetMemory:
    return FleetMemory(
        installation=str(uuid.UUID(raw["installation"])),
        takeovers={
            int(id): Takeover(int(sent["epoch"]), int(sent["renewals"]))
            for id, sent in raw["promises"]["takeovers"].items()
        },
        epoch=int(raw["epoch"]),
        generation=int(raw["generation"]),
        renewals=int(raw["renewals"]),
        asked=int(raw.get("asked", 0)),
        named=tuple(frozenset(map(int, rivals)) for rivals in raw["named"]),
        renewed=Renewed(**raw["renewed"]) if raw.get("renewed") else None,
        others=tuple(Rival(**other) for other in raw.get("others", ())),
        halted=str(raw.get("halted", "")),
        lost=bool(raw.get("lost")),
        accepted=Accepted(**raw.get("accepted", {})),
        losses=int(raw.get("losses", 0)),
    )
