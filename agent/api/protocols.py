"""What the HTTP interface needs of the rest of the agent, as Protocols."""

from collections.abc import AsyncIterable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from agent.api.http.idempotency import FactStore
from agent.core.figures.repair_statistics import RepairStatistics
from agent.core.figures.trend import Trends
from agent.core.incidents.incident import Incident
from agent.core.model import (
    HealthVerdict,
    Instance,
    InstanceId,
    JournalEntry,
    RemoteSession,
)
from agent.core.view import AgentStatus, BackendView, InstanceView
from agent.core.webhook import DeadLetter, Trial, WebhookView
from agent.deliver.bus import EventBus
from agent.engines.base import Qr
from agent.errors import NotFound
from agent.store.keys import KeyRow
from agent.supervise.copies.archives import Export, Import
from agent.supervise.copies.snapshots import Progress
from agent.supervise.requests.calls import COMMAND_TIMEOUT
from agent.supervise.requests.evidence import WorkerLines
from agent.vault.copies.restore import Restored
from agent.vault.copies.snapshots import Snapshot
from agent.vault.diagnostics import FailedStart


class Trashed(Protocol):
    """One retired session."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def at_wall(self) -> float: ...


class Result(Protocol):
    """How a repair that somebody asked for ended."""

    @property
    def healthy(self) -> bool: ...
    @property
    def cleaned(self) -> bool: ...
    @property
    def recovered(self) -> bool: ...
    @property
    def ending(self) -> str: ...
    @property
    def sentence(self) -> str: ...


class SetUpDone(Protocol):
    """An instance that is ready to be scanned, or (without a code) connected."""

    @property
    def created(self) -> bool: ...
    @property
    def result(self) -> Result: ...
    @property
    def qr(self) -> Qr | None: ...


class Repairing(Protocol):
    """What may be asked of repairing; it answers when the repair is over."""

    async def try_recover(self, id: InstanceId) -> Result: ...
    async def cleanup_corrupted(self, id: InstanceId, *, confirmed: bool = False) -> Result: ...
    async def ensure_healthy(self, id: InstanceId) -> Result: ...
    async def force_reconnection(self, id: InstanceId) -> None: ...
    async def reset_circuit_breaker(self, id: InstanceId) -> None: ...
    def statistics(self) -> RepairStatistics: ...
    def incidents(self) -> Collection[Incident]: ...
    def release_incident(self, group: str) -> None: ...


class Keeping(Protocol):
    """What may be asked of the copies of sessions."""

    @property
    def under_way(self) -> Mapping[InstanceId, Progress]: ...
    async def snapshots(self, id: InstanceId) -> Collection[Snapshot]: ...
    async def snapshot(self, id: InstanceId, why: str) -> Snapshot: ...
    async def restore(self, id: InstanceId, name: str, *, force: bool) -> Restored: ...


class Moving(Protocol):
    """Sessions as archives, out and in."""

    def export(self, id: InstanceId, name: str = "") -> AbstractAsyncContextManager[Export]: ...
    async def import_archive(
        self,
        pieces: AsyncIterable[bytes],
        *,
        id: InstanceId | None = None,
        replace: bool = False,
        enable: bool = False,
    ) -> Import: ...


class Backends(Protocol):
    """The servers of someone else's. Unknown names raise NotFound."""

    def views(self) -> Sequence[BackendView]: ...
    def view(self, name: str) -> BackendView: ...
    async def sessions(self, name: str) -> Sequence[RemoteSession]: ...
    async def adopt(self, name: str, remote: str, id: InstanceId | None) -> InstanceId: ...
    async def check(self, name: str) -> BackendView: ...
    async def reset(self, name: str) -> BackendView: ...
    def hook_ok(self, name: str, secret: str) -> bool:
        """Whether that server may call us under this secret; false for unknown names too."""

    async def hook(self, name: str, told: Mapping[str, Any]) -> None:
        """Hand over what a server told; TryLater while its worker is away."""


class Webhooks(Protocol):
    """Where events are sent by themselves. Unknown names raise NotFound."""

    def views(self) -> Sequence[WebhookView]: ...
    def dead(self, name: str) -> Sequence[DeadLetter]: ...
    async def test(self, name: str) -> Trial: ...
    async def retry(self, name: str) -> int:
        """Try now, the dead letters too; how many those are."""


class NoWebhooks:
    """Where none is declared."""

    def views(self) -> Sequence[WebhookView]:
        return ()

    def dead(self, name: str) -> Sequence[DeadLetter]:
        raise _none(name)

    async def test(self, name: str) -> Trial:
        raise _none(name)

    async def retry(self, name: str) -> int:
        raise _none(name)


class Evidence(Protocol):
    """What shows why a session fails, and what it uses now."""

    async def measure(self, id: InstanceId) -> None: ...

    def watch(self) -> None: ...

    async def worker_lines(self, id: InstanceId) -> WorkerLines: ...

    async def failed_starts(self, id: InstanceId) -> Sequence[FailedStart]: ...

    async def picture(self, id: InstanceId, name: str) -> bytes: ...


class NoEvidence:
    """Where no worker runs on this machine."""

    async def measure(self, id: InstanceId) -> None: ...

    def watch(self) -> None: ...

    async def worker_lines(self, id: InstanceId) -> WorkerLines:
        return WorkerLines(None, f"journalctl -u wa-instance@{id}")

    async def failed_starts(self, id: InstanceId) -> Sequence[FailedStart]:
        return ()

    async def picture(self, id: InstanceId, name: str) -> bytes:
        raise NotFound(f"cannot show the picture {name} of {id}: there is none")


def _none(name: str) -> NotFound:
    return NotFound(f"cannot find the webhook {name}; declared: none")


class Supervision(Protocol):
    """The supervisor as its callers see it. Unknown ids raise NotFound."""

    @property
    def bus(self) -> EventBus: ...
    @property
    def repairs(self) -> Repairing: ...
    @property
    def keeping(self) -> Keeping: ...
    @property
    def moving(self) -> Moving: ...
    @property
    def backends(self) -> Backends: ...
    @property
    def trends(self) -> Trends: ...
    def views(self) -> Mapping[InstanceId, InstanceView]: ...
    def view(self, id: InstanceId) -> InstanceView: ...
    def status(self) -> AgentStatus: ...
    async def create(self, instance: Instance) -> InstanceView: ...
    async def change_settings(
        self, id: InstanceId, settings: Mapping[str, Any]
    ) -> InstanceView: ...
    async def enable(self, id: InstanceId) -> InstanceView: ...
    async def disable(self, id: InstanceId) -> InstanceView: ...
    async def start(self, id: InstanceId) -> InstanceView: ...
    async def stop(self, id: InstanceId) -> InstanceView: ...
    async def restart(self, id: InstanceId) -> InstanceView: ...
    async def logout(self, id: InstanceId, *, confirmed: bool = False) -> InstanceView: ...
    async def delete(self, id: InstanceId) -> str: ...
    async def set_up(self, wanted: Instance) -> SetUpDone: ...
    async def trash(self) -> Collection[Trashed]: ...
    async def restore_trash(self, name: str) -> InstanceView: ...
    async def qr(self, id: InstanceId) -> Qr | None: ...
    async def command(
        self,
        id: InstanceId,
        name: str,
        arguments: Mapping[str, Any],
        *,
        timeout: float = COMMAND_TIMEOUT,
        alone: bool = False,
    ) -> Mapping[str, Any]:
        """`alone`: nothing else is done with it meanwhile."""

    async def send(self, id: InstanceId, message: Mapping[str, Any]) -> Mapping[str, Any]: ...
    async def check_now(
        self, ids: Collection[InstanceId] | None = None
    ) -> Mapping[InstanceId, HealthVerdict]: ...
    async def history(
        self,
        instance: InstanceId | None = None,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int = 100,
        kinds: Collection[str] = (),
    ) -> list[JournalEntry]:
        """Newest first; oldest first when `after` is given."""


class KeyStore(FactStore, Protocol):
    """What the interface keeps itself: keys, and answers that must not be given twice."""

    async def add_key(self, key: KeyRow) -> None: ...
    async def keys(self) -> list[KeyRow]: ...
    async def remove_key(self, id: str) -> bool: ...
    async def check(self) -> str:
        """ "ok", or what is wrong with the database."""
