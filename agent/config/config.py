"""The whole of agent.toml as one value, and what the core is given out of it."""

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from agent.config.backends import BackendDeclaration
from agent.config.policies import (
    AlertsSection,
    CryptoSection,
    HealthSection,
    IncidentSection,
    MemorySection,
    PhasesSection,
    ReconnectSection,
    RecoverySection,
    SilenceSection,
)
from agent.config.sections import (
    INSTALLED_SOCKET,
    INSTALLED_STATE,
    USUAL_LISTEN,
    AgentSection,
    ApiSection,
    BackendsSection,
    LogSection,
    SessionsSection,
    StartSection,
    StopSection,
    WorkerSection,
)
from agent.config.webhooks import WebhookDeclaration
from agent.core.alerts import AlertLimits
from agent.core.findings.crypto import CryptoPolicy
from agent.core.findings.crypto_patterns import CryptoPattern, own_pattern
from agent.core.findings.memory import MemoryPolicy
from agent.core.findings.silence import SilencePolicy
from agent.core.health import HealthPolicy
from agent.core.incident import IncidentPolicy
from agent.core.model import InstanceId
from agent.core.phases import PhaseDeadlines
from agent.core.reach import ReachPolicy
from agent.core.reasons import reason_of
from agent.core.reconnect import BreakerPolicy, ReconnectPolicy
from agent.core.recovery.repair import RecoveryPolicy, Unpair


@dataclass(frozen=True, slots=True)
class Declaration:
    """One [[instance]]: created when it is missing, never deleted because it is absent."""

    id: InstanceId
    engine: str
    enabled: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Config:
    """The whole of agent.toml, checked. The section's name is the table's name.

    Without slots: what is made of the sections is asked for in every pass, and kept.
    """

    agent: AgentSection = field(default_factory=AgentSection)
    log: LogSection = field(default_factory=LogSection)
    api: ApiSection = field(default_factory=ApiSection)
    start: StartSection = field(default_factory=StartSection)
    stop: StopSection = field(default_factory=StopSection)
    health: HealthSection = field(default_factory=HealthSection)
    phases: PhasesSection = field(default_factory=PhasesSection)
    reconnect: ReconnectSection = field(default_factory=ReconnectSection)
    recovery: RecoverySection = field(default_factory=RecoverySection)
    memory: MemorySection = field(default_factory=MemorySection)
    crypto: CryptoSection = field(default_factory=CryptoSection)
    silence: SilenceSection = field(default_factory=SilenceSection)
    incident: IncidentSection = field(default_factory=IncidentSection)
    alerts: AlertsSection = field(default_factory=AlertsSection)
    worker: WorkerSection = field(default_factory=WorkerSection)
    sessions: SessionsSection = field(default_factory=SessionsSection)
    backends: BackendsSection = field(default_factory=BackendsSection)
    backend: tuple[BackendDeclaration, ...] = ()
    webhook: tuple[WebhookDeclaration, ...] = ()
    instance: tuple[Declaration, ...] = ()

    @cached_property
    def health_policy(self) -> HealthPolicy:
        chosen = self.health
        return HealthPolicy(
            interval=chosen.interval,
            zombie_pings=chosen.zombie_pings,
            stuck=chosen.stuck,
            proof_limit=chosen.proof_limit,
            slow=chosen.slow,
            phases=self.phase_deadlines,
            reconnect=self.reconnect_policy,
        )

    @cached_property
    def phase_deadlines(self) -> PhaseDeadlines:
        return PhaseDeadlines(**asdict(self.phases))

    @cached_property
    def reconnect_policy(self) -> ReconnectPolicy:
        chosen = self.reconnect
        return ReconnectPolicy(
            base=chosen.base,
            max=chosen.max,
            factor=chosen.factor,
            jitter=chosen.jitter,
            attempts=chosen.attempts,
            stable=chosen.stable,
            breaker=self.breaker_policy,
            reasons=chosen.reasons,
        )

    @cached_property
    def reach_policy(self) -> ReachPolicy:
        chosen = self.reconnect
        return ReachPolicy(look_every=chosen.look_every, look_timeout=chosen.look_timeout)

    @cached_property
    def recovery_policy(self) -> RecoveryPolicy:
        chosen = {**asdict(self.recovery), "unpair": Unpair(self.recovery.unpair)}
        return RecoveryPolicy(**chosen, keys_again=self.crypto.round)

    @cached_property
    def memory_policy(self) -> MemoryPolicy:
        values = asdict(self.memory)
        del values["interval"], values["measure"]
        return MemoryPolicy(**values)

    @cached_property
    def crypto_policy(self) -> CryptoPolicy:
        values = asdict(self.crypto)
        del values["round"], values["patterns"]
        return CryptoPolicy(**values)

    @cached_property
    def crypto_patterns(self) -> tuple[CryptoPattern, ...]:
        return tuple(own_pattern(entry) for entry in self.crypto.patterns)

    @cached_property
    def incident_policy(self) -> IncidentPolicy:
        outdated = self.reconnect_policy.bounds(reason_of("client_outdated"))[0]
        return IncidentPolicy(**asdict(self.incident), probe_every=outdated)

    @cached_property
    def silence_policy(self) -> SilencePolicy:
        return SilencePolicy(**asdict(self.silence))

    @cached_property
    def alert_limits(self) -> AlertLimits:
        """The conditions' numbers; those of a session's memory are the memory check's own."""
        chosen = asdict(self.alerts)
        own = ("memory_high", "memory_critical")
        names = [one.name for one in fields(AlertLimits) if one.name not in own]
        return AlertLimits(
            **{name: chosen[name] for name in names},
            memory_high=self.memory.warn,
            memory_critical=self.memory.critical,
        )

    @cached_property
    def breaker_policy(self) -> BreakerPolicy:
        return BreakerPolicy(self.reconnect.breaker_failures, self.reconnect.breaker_pause)

    @property
    def scraped_at(self) -> str:
        """HOST:PORT of the HTTP interface as others on this machine reach it."""
        return self.api.listen or USUAL_LISTEN

    @property
    def runbooks(self) -> str:
        """The page that alerts link to; "" where only this machine itself could open it."""
        host, _, port = self.scraped_at.rpartition(":")
        if not self.alerts.runbooks and is_loopback(host.strip("[]")):
            return ""
        if host in ("", "0.0.0.0", "[::]"):
            host = self.alerts.machine or socket.gethostname()
        return self.alerts.runbooks or f"http://{host}:{port}/runbook"

    @property
    def session_root(self) -> Path:
        chosen = self.agent.session_storage_path
        return Path(chosen) if chosen else self.agent.state_path / "sessions"

    @property
    def cache_root(self) -> Path:
        return Path(self.agent.cache_path or self.agent.state_path / "cache")

    @property
    def backends_root(self) -> Path:
        """One folder per backend: what its worker reads, and what its engine keeps."""
        return self.agent.state_path / "backends"

    @property
    def api_socket(self) -> Path:
        if self.api.socket:
            return Path(self.api.socket)
        if self.agent.state_path == INSTALLED_STATE:
            return INSTALLED_SOCKET
        return self.agent.state_path / "api.sock"
