"""The series that conditions are made of: each named as on /metrics, and how the agent reads it. A
test compares the two for each of them."""

from collections.abc import Mapping

from agent.core.alerts.source import Series
from agent.core.findings.crypto_patterns import OF_KEYS
from agent.core.model import ConnectionStatus as CS
from agent.core.model import Health
from agent.core.reasons import REASONS, reason_of
from agent.core.recovery.beginning import needs_repair
from agent.core.recovery.repair import Ending
from agent.core.view import InstanceView
from agent.core.words import PASSKEY_REQUIRED, PASSKEY_SUSPECTED

FINAL = tuple(code for code, reason in REASONS.items() if reason.final)
"""WhatsApp ended the pairing or the account."""
_BY_HAND_OR_TRIES = ("attempts_used_up", "conflict_foreign_owner")


def labels_of_group(group: str) -> dict[str, str]:
    """The labels of a group: an engine, or an engine on one backend."""
    engine, _, backend = group.partition("/")
    return {"engine": engine, "backend": backend} if backend else {"engine": engine}


def is_wanted(view: InstanceView) -> bool:
    """It should run now: an instance stopped by hand is enabled and not wanted."""
    return view.desired.should_run and not view.unit.masked


def has_given_up(view: InstanceView) -> bool:
    """Wanted, and the agent tries nothing until an operator acts."""
    verdict = view.verdict
    # A session that shows a code, or would on request, lacks a scan only: WaSessionNeedsScan.
    if not is_wanted(view) or view.status in (CS.CONNECTED, CS.QR_REQUIRED):
        return False
    if verdict.reason in _BY_HAND_OR_TRIES:
        return True
    if needs_repair(verdict):
        # Its ladder has begun, or begins in this pass.
        ending = view.repair.ending if view.repair is not None else Ending.NOT_YET
        # Without a pairing to lose the next repair begins by itself (`unpaired_pause`).
        given_up = ending is Ending.GAVE_UP and not verdict.should_cleanup
        return given_up or ending is Ending.NEEDS_PERSON
    reason = reason_of(verdict.reason)
    stays_down = verdict.health is Health.DEGRADED and verdict.state is CS.DISCONNECTED
    return (stays_down and not reason.slow) or (bool(verdict.reason) and reason.hopeless)


def is_silent(view: InstanceView) -> bool:
    """Connected, and far fewer messages come than are usual at this hour."""
    return view.verdict.reason == "silent_inbound"


def _status(status: CS) -> Series:
    return Series(
        "wa_session_status",
        f'status="{status.value.lower()}"',
        lambda view: float(view.status is status),
    )


def _verdict(health: Health) -> Series:
    return Series(
        "wa_session_verdict",
        f'verdict="{health.value}"',
        lambda view: float(view.verdict.health is health),
    )


def _known_sum(by_word: Mapping[str, int]) -> float | None:
    """None where nothing is counted: unknown is not 0."""
    return sum(by_word.values()) if by_word else None


CONNECTED = _status(CS.CONNECTED)
QR_REQUIRED = _status(CS.QR_REQUIRED)
CORRUPTED = _verdict(Health.CORRUPTED)

WANTED = Series("wa_session_wanted", of_session=lambda view: float(is_wanted(view)))
GIVEN_UP = Series("wa_session_given_up", of_session=lambda view: float(has_given_up(view)))
SILENT = Series("wa_session_silent", of_session=lambda view: float(is_silent(view)))
IN_INCIDENT = Series("wa_session_in_incident", of_session=lambda view: float(view.in_incident))
CIRCUIT_OPEN = Series(
    "wa_session_circuit", 'state="open"', lambda view: float(view.circuit == "open")
)


def _reason(code: str) -> Series:
    return Series(
        REASON,
        f'reason="{code}"',
        lambda view: 1.0 if view.reason == code else None,
        bridged=False,
    )


REASON = "wa_session_reason"
BACKEND_REASON = "wa_backend_reason"
INCIDENT_REASON = "wa_agent_incident_reason"
"""Each 1, with a label `reason`, while there is one."""
TEMPORARY_BAN = _reason("temporary_ban")
CLIENT_OUTDATED = _reason("client_outdated")
PASSKEY = _reason(PASSKEY_REQUIRED)
PASSKEY_MAYBE = _reason(PASSKEY_SUSPECTED)

RECONNECTS = Series(
    "wa_session_reconnects_total",
    of_session=lambda view: sum(view.counts["reconnects"].values()),
    summed=("reason",),
)
WATCHDOG_RESTARTS = Series(
    "wa_session_restarts_total",
    'reason="watchdog"',
    lambda view: view.counts["restarts"].get("watchdog", 0),
)
ERRORS = Series(
    "wa_session_errors_total",
    f'kind!~"{"|".join(OF_KEYS)}"',
    lambda view: sum(n for kind, n in view.errors.items() if kind not in OF_KEYS),
    summed=("kind",),
)
ENDED = Series(
    "wa_session_errors_total",
    f'kind=~"{"|".join(FINAL)}"',
    lambda view: sum(view.errors.get(code, 0) for code in FINAL),
    summed=("kind",),
)
MESSAGES = Series(
    "wa_session_messages_total",
    of_session=lambda view: sum(view.messages.values()),
    summed=("direction", "result"),
)
ANSWERS = Series("wa_session_response_time_seconds_count", of_session=lambda view: view.probes)
ANSWER_SECONDS = Series(
    "wa_session_response_time_seconds_sum", of_session=lambda view: view.probe_seconds
)
CRYPTO_FAILED = Series(
    "wa_session_crypto_operations_total",
    'result="failed"',
    lambda view: view.crypto_operations.get("failed"),
)
CRYPTO_OPERATIONS = Series(
    "wa_session_crypto_operations_total",
    of_session=lambda view: _known_sum(view.crypto_operations),
    summed=("result",),
)
REGENERATIONS_FAILED = Series(
    "wa_session_key_regenerations_total",
    'result="failed"',
    lambda view: view.counts["key_regenerations"].get("failed", 0),
)
MEMORY = Series("wa_session_memory_bytes", of_session=lambda view: view.memory_bytes, bridged=False)
MEMORY_LIMIT = Series(
    "wa_session_memory_limit_bytes",
    of_session=lambda view: view.memory_limit or None,
    bridged=False,
)

HOST_MEMORY = Series("wa_host_memory_total_bytes", of_agent=lambda own: {(): own.memory_total})
HOST_MEMORY_USED = Series("wa_host_memory_used_bytes", of_agent=lambda own: {(): own.memory_used})
HOST_CPU = Series("wa_host_cpu_usage_ratio", of_agent=lambda own: {(): own.cpu_ratio})
DISK_SIZE = Series(
    "wa_host_filesystem_size_bytes",
    of_agent=lambda own: {} if own.disk_size is None else {(): own.disk_size},
)
DISK_AVAILABLE = Series(
    "wa_host_filesystem_avail_bytes",
    of_agent=lambda own: {} if own.disk_available is None else {(): own.disk_available},
)
OPEN_FDS = Series("process_open_fds", 'job="wa-agent"', of_agent=lambda own: {(): own.open_fds})
MAX_FDS = Series("process_max_fds", 'job="wa-agent"', of_agent=lambda own: {(): own.max_fds})
STARTED = Series(
    "process_start_time_seconds", 'job="wa-agent"', of_agent=lambda own: {(): own.started_wall}
)
REQUESTS = Series(
    "wa_agent_http_requests_total",
    of_agent=lambda own: {(): own.requests},
    summed=("code", "method", "route"),
)
REQUESTS_FAILED = Series(
    "wa_agent_http_requests_failed_total", of_agent=lambda own: {(): own.requests_failed}
)
INCIDENT = Series(
    "wa_agent_incident_active",
    of_agent=lambda own: {
        tuple(sorted(labels_of_group(group).items())): float(active)
        for group, active in own.incidents.items()
    },
)
BACKEND_UP = Series(
    "wa_backend_up",
    of_agent=lambda own: {(("backend", name),): float(up) for name, up in own.backends.items()},
)
BACKEND_WARNING = Series(
    "wa_backend_warning",
    of_agent=lambda own: {
        (("backend", name),): float(warns) for name, warns in own.backend_warnings.items()
    },
)


UP = Series("up", 'job="wa-agent"', of_agent=lambda _: {(): 1.0}, bridged=False)
"""The agent that evaluates this is up."""
