"""Every metric and every alert that was promised, by name, type and labels, on a real scrape."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

from agent.config.alerts import alert_table
from agent.core.alerts import Alert, Severity
from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent
from tests.daemon.test_backends import table
from tests.ports import free_port
from tests.standin.evolution import StandIn

IMPATIENT = {"WA_AGENT_MEMORY__INTERVAL": "1", "WA_AGENT_CRYPTO__ROUND": "1"}
WEBHOOK = '[[webhook]]\nname = "ops"\nurl = "http://127.0.0.1:{port}/"\nprivate = true\n'

OF_A_SESSION: Mapping[str, tuple[str, str]] = {
    "wa_session_info": ("gauge", "engine backend engine_version"),
    "wa_session_enabled": ("gauge", ""),
    "wa_session_status": ("gauge", "status"),
    "wa_session_verdict": ("gauge", "verdict"),
    "wa_session_status_entered_timestamp_seconds": ("gauge", ""),
    "wa_session_status_seconds_total": ("counter", "status"),
    "wa_session_proof_timestamp_seconds": ("gauge", ""),
    "wa_session_connected_timestamp_seconds": ("gauge", ""),
    "wa_session_uptime_seconds": ("gauge", ""),
    "wa_session_messages_total": ("counter", "direction result"),
    "wa_session_messages_per_minute": ("gauge", "direction"),
    "wa_session_response_time_seconds": ("summary", ""),
    "wa_session_errors_total": ("counter", "kind"),
    "wa_session_reconnects_total": ("counter", "reason"),
    "wa_session_restarts_total": ("counter", "reason"),
    "wa_session_memory_bytes": ("gauge", ""),
    "wa_session_memory_limit_bytes": ("gauge", ""),
    "wa_session_cpu_seconds_total": ("counter", ""),
    "wa_session_processes": ("gauge", ""),
    "wa_session_open_fds": ("gauge", ""),
    "wa_session_crypto_operations_total": ("counter", "result"),
    "wa_session_key_regenerations_total": ("counter", "result"),
    "wa_session_repairs_total": ("counter", "step result"),
    "wa_session_repair_seconds": ("summary", ""),
    "wa_session_cleanups_total": ("counter", "kind"),
    "wa_session_circuit": ("gauge", "state"),
    "wa_session_reconnect_attempts": ("gauge", ""),
    "wa_session_last_snapshot_timestamp_seconds": ("gauge", ""),
}

OF_THE_AGENT: Mapping[str, tuple[str, str]] = {
    "wa_agent_info": ("gauge", "version host"),
    "wa_agent_sessions": ("gauge", "status"),
    "wa_agent_active_connections": ("gauge", "kind"),
    "wa_agent_http_requests_total": ("counter", "route method code"),
    "wa_agent_http_requests_failed_total": ("counter", ""),
    "wa_agent_http_request_duration_seconds": ("histogram", "route le"),
    "wa_agent_check_duration_seconds": ("summary", "check"),
    "wa_agent_pass_duration_seconds": ("summary", ""),
    "wa_agent_event_loop_lag_seconds": ("gauge", ""),
    "wa_agent_db_write_seconds": ("summary", ""),
    "wa_agent_db_errors_total": ("counter", "kind"),
    "wa_agent_link_refusals_total": ("counter", "kind"),
    "wa_agent_jobs_pending": ("gauge", ""),
    "wa_agent_dbus_connected": ("gauge", ""),
    "wa_agent_incident_active": ("gauge", "engine backend"),
    "wa_agent_config_reload_success_timestamp_seconds": ("gauge", ""),
    "wa_agent_webhook_deliveries_total": ("counter", "result"),
    "wa_agent_outbox_length": ("gauge", "kind"),
    "wa_agent_outbox_oldest_timestamp_seconds": ("gauge", "kind"),
    "wa_messages_waiting": ("gauge", "session"),
    "wa_messages_bytes": ("gauge", "session"),
    "wa_messages_lost_total": ("counter", "session"),
    "wa_messages_media_files": ("gauge", "session"),
    "wa_messages_media_bytes": ("gauge", "session"),
    "wa_outbox_waiting": ("gauge", "session"),
    "wa_outbox_messages_total": ("counter", "session state"),
    "wa_outbox_failed_total": ("counter", "reason"),
    "wa_outbox_acknowledgement_seconds": ("histogram", "le"),
    "wa_agent_scrape_render_seconds": ("gauge", ""),
    "wa_backend_up": ("gauge", "backend"),
    "wa_backend_hooks_total": ("counter", "backend"),
    "wa_backend_next_check_timestamp_seconds": ("gauge", "backend"),
    "wa_host_memory_total_bytes": ("gauge", ""),
    "wa_host_memory_used_bytes": ("gauge", ""),
    "wa_host_cpu_usage_ratio": ("gauge", ""),
    "wa_host_filesystem_avail_bytes": ("gauge", "mountpoint"),
    "wa_host_filesystem_size_bytes": ("gauge", "mountpoint"),
    "process_open_fds": ("gauge", ""),
    "process_max_fds": ("gauge", ""),
    "process_start_time_seconds": ("gauge", ""),
}

WORDS: Mapping[tuple[str, str], str] = {
    ("wa_session_status", "status"): (
        "initializing loading qr_required connected reconnecting disconnected auth_failure"
    ),
    ("wa_session_verdict", "verdict"): ("healthy disconnected degraded stuck corrupted not_found"),
    ("wa_session_circuit", "state"): "closed open half_open",
    ("wa_session_restarts_total", "reason"): "watchdog oom crash agent operator",
    ("wa_agent_check_duration_seconds", "check"): "health deep recovery memory keys",
    ("wa_agent_db_errors_total", "kind"): (
        "disk_full read_only io damaged busy cannot_open permissions store"
    ),
    ("wa_agent_link_refusals_total", "kind"): (
        "unreachable peer silent gone version identity malformed oversized flood old_run stranger"
    ),
}
"""Values that are all there from the first moment, at zero where they count."""

ALERTS = """
    WaSessionCorrupted 600 critical
    WaSessionsCorruptedTogether 60 critical
    WaCryptoErrorRateHigh 300 warning
    WaKeyRegenerationFailed 0 critical
    WaSessionDown 300 warning
    WaSessionNeedsScan 300 warning
    WaSessionGivenUp 0 critical
    WaSessionTemporaryBan 0 critical
    WaSessionClientOutdated 0 critical
    WaSessionPasskeyRequired 0 critical
    WaSessionPasskeySuspected 0 warning
    WaSessionSilent 0 warning
    WaReconnectStorm 0 warning
    WaFleetReconnectStorm 0 critical
    WaFleetIncident 0 critical
    WaSessionResponseSlow 300 warning
    WaErrorRateHigh 300 critical
    WaCircuitOpen 300 warning
    WaWatchdogRestarts 0 warning
    WaSessionMemoryHigh 300 warning
    WaSessionMemoryCritical 60 critical
    WaSessionMemoryLeak 0 warning
    WaHostMemoryHigh 300 warning
    WaHostMemoryCritical 60 critical
    WaHostCpuHigh 600 warning
    WaDiskSpaceLow 300 warning
    WaDiskFills 900 critical
    WaFileDescriptorsHigh 300 warning
    WaBackendDown 120 critical
    WaMessagesMissing 0 warning
    WaSessionOutboxOld 300 warning
    WaSessionSendsFail 0 warning
    WaWebhookBacklog 300 warning
    WaAgentDown 120 critical
    WaAgentAbsent 300 critical
    WaAgentRestarting 0 warning
    WaDeadMansSwitch 0 none
"""


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    one = await StandIn.open()
    yield one
    await one.close()


def labels_of(family: Metric) -> set[str]:
    return {label for sample in family.samples for label in sample.labels}


def words_of(family: Metric, label: str) -> set[str]:
    return {sample.labels[label] for sample in family.samples if label in sample.labels}


async def test_a_real_scrape_has_every_metric_that_was_promised(
    make_agent: Callable[..., RunningAgent], standin: StandIn, eventually: Eventually
) -> None:
    standin.add("shop", "open")
    agent = make_agent(table(standin) + WEBHOOK.format(port=free_port()))
    agent.config.chmod(0o600)
    await agent.start(IMPATIENT)
    await agent.create("sales")
    await eventually(lambda: agent.knows("shop"), within=30)
    for id in ("sales", "shop"):
        await eventually(lambda id=id: agent.status(id), "CONNECTED", within=30)
    await agent.do("POST", "/api/instance/sales/snapshots", {})
    wanted = {
        **{name: (kind, f"session {more}") for name, (kind, more) in OF_A_SESSION.items()},
        **OF_THE_AGENT,
    }

    async def differs() -> dict[str, Any]:
        text = await agent.ask(
            "GET", "/metrics", headers={"Accept": "application/openmetrics-text"}
        )
        found = {one.name: one for one in parse(text[1])}
        other: dict[str, Any] = {}
        for name, (kind, labels) in wanted.items():
            one = found.get(name.removesuffix("_total"))
            told = None if one is None or not one.samples else (one.type, labels_of(one))
            if told != (kind, set(labels.split())):
                other[name] = told
        for (name, label), words in WORDS.items():
            if (told := words_of(found[name.removesuffix("_total")], label)) != set(words.split()):
                other[f"{name}{{{label}}}"] = told
        return other

    await eventually(differs, {}, within=30)


def test_the_table_has_every_alert_that_was_promised() -> None:
    def told(alert: Alert) -> tuple[str, float, Severity]:
        return alert.name, alert.for_seconds, alert.severity

    rows = [line.split() for line in ALERTS.split("\n") if line.strip()]
    wanted = {(name, float(hold), Severity(severity)) for name, hold, severity in rows}
    assert wanted - {told(alert) for alert in alert_table()} == set()
