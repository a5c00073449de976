"""The whole of agent.toml as one value, and what the core is given out of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

import agent.config.sections as own
from agent.config.declaration import BackendDeclaration
from agent.core.admission import StartPolicy, parallel_starts
from agent.core.crypto import CryptoPolicy
from agent.core.crypto_patterns import CryptoPattern, own_pattern
from agent.core.health import HealthPolicy
from agent.core.incidents import IncidentPolicy
from agent.core.memory import MemoryPolicy
from agent.core.model import InstanceId
from agent.core.reconnect import ReconnectPolicy
from agent.core.recovery.repair import RecoveryPolicy
from agent.core.trouble import TroublesPolicy

Value = str | bool | Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | float | list[Any]


class Declaration(Struct, frozen=True):
    """One [[instance]]: created when it is missing, never deleted because it is absent."""

    id: InstanceId = InstanceId("")
    engine: str = ""
    enabled: bool = True
    settings: dict[str, Value | dict[str, Any]] = {}


@dataclass(frozen=True)
class Config:
    """The whole of agent.toml, checked. The section's name is the table's name. Without slots:
    values derived from the tables are cached, passes read them."""

    agent: own.AgentSection = field(default_factory=own.AgentSection)
    log: own.LogSection = field(default_factory=own.LogSection)
    api: own.ApiSection = field(default_factory=own.ApiSection)
    start: StartPolicy = field(default_factory=StartPolicy)
    heartbeat: own.HeartbeatSection = field(default_factory=own.HeartbeatSection)
    stop: own.StopSection = field(default_factory=own.StopSection)
    health: HealthPolicy = field(default_factory=HealthPolicy)
    reconnect: ReconnectPolicy = field(default_factory=ReconnectPolicy)
    recovery: RecoveryPolicy = field(default_factory=RecoveryPolicy)
    memory: MemoryPolicy = field(default_factory=MemoryPolicy)
    crypto: CryptoPolicy = field(default_factory=CryptoPolicy)
    incident: IncidentPolicy = field(default_factory=IncidentPolicy)
    troubles: TroublesPolicy = field(default_factory=TroublesPolicy)
    worker: own.WorkerSection = field(default_factory=own.WorkerSection)
    sessions: own.SessionsSection = field(default_factory=own.SessionsSection)
    backend: tuple[BackendDeclaration, ...] = ()
    instance: tuple[Declaration, ...] = ()
    of_wings: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """The rows of each table that a wing brings, by the table's name."""
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """A sentence for each environment variable that no backend takes. That is no error: on a
    machine it may well be meant for another program."""

    @cached_property
    def health_policy(self) -> HealthPolicy:
        """A proof of CONNECTED stays valid for three checks at least."""
        proof = max(self.health.proof_limit, 3 * self.health.interval)
        return replace(self.health, reconnect=self.reconnect, proof_limit=proof)

    @cached_property
    def crypto_patterns(self) -> tuple[CryptoPattern, ...]:
        return tuple(own_pattern(entry) for entry in self.crypto.patterns)

    def start_policy(self, cores: int) -> StartPolicy:
        return replace(self.start, parallel=parallel_starts(self.start.parallel, cores))

    @property
    def session_root(self) -> Path:
        chosen = self.agent.session_storage_path
        return Path(chosen) if chosen else self.agent.state_path / "sessions"

    @property
    def cache_root(self) -> Path:
        return Path(self.agent.cache_path or self.agent.state_path / "cache")

    @property
    def api_socket(self) -> Path:
        if self.api.socket:
            return Path(self.api.socket)
        if self.agent.state_path == own.INSTALLED_STATE:
            return own.INSTALLED_SOCKET
        return self.agent.state_path / "api.sock"


def sections() -> tuple[str, ...]:
    """The names of the base's tables that are written once: [NAME]."""
    rows = ("backend", "instance", "of_wings", "warnings")
    return tuple(table.name for table in fields(Config) if table.name not in rows)
