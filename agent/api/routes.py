"""The table of all routes: path, right, handler, summary, fields."""

from agent.api import placement
from agent.api.handlers import (
    backends,
    events,
    evidence,
    figures,
    instances,
    keys,
    messages,
    monitoring,
    remote_session,
    repairs,
    sandbox,
    snapshots,
)
from agent.api.handlers.qr import show_qr
from agent.api.http.auth import Right
from agent.api.http.call import Route
from agent.api.timely import WAIT
from agent.core.model import ID_PATTERN
from agent.messages import routes as kept_messages
from agent.moving import routes as archives
from agent.page import pages
from agent.vault.folders import NAME_PATTERN
from agent.webhooks import part as webhooks

SOME_ID = f"{{id:{ID_PATTERN}}}"
ID = f"/api/instance/{SOME_ID}"
BACKEND = f"/api/backends/{{name:{ID_PATTERN}}}"
GROUP = "{group:[a-z0-9_-]{1,48}(?:/[A-Za-z0-9_.-]{1,128})?}"
SNAPSHOT = f"{{snapshot:{NAME_PATTERN}}}"
REMOVED = SNAPSHOT.replace("snapshot", "removed")
OPEN, SOME, READ, OPERATE, ADMIN = Right


def _intent(name: str, summary: str) -> Route:
    run = instances.intent(name)
    return Route("POST", f"{ID}/{name}", OPERATE, run, summary, (), answers=(202,))


# fmt: off
ROUTES: tuple[Route, ...] = (
    Route("POST", "/api/instance", OPERATE, instances.create, "Create an instance", instances.CREATE, answers=(201,)),  # noqa: E501
    Route("GET", "/api/instances", SOME, instances.list_instances, "List, filter, page", query=instances.LIST),  # noqa: E501
    Route("GET", ID, READ, instances.show, "An instance's state", shows={"$ref": "#/components/schemas/Instance"}),  # noqa: E501
    Route("GET", f"{ID}/details", READ, instances.details, "Everything about an instance"),
    Route("PATCH", ID, OPERATE, instances.change, "Change an instance's settings", instances.CHANGE),  # noqa: E501
    Route("DELETE", ID, OPERATE, instances.delete, "Retire an instance's session and remove the instance; a backend keeps its session", instances.DELETE, (*instances.DELETE_QUERY, *WAIT), answers=(200, 202), timely=True),  # noqa: E501
    _intent("enable", "Run an instance, now and after every boot"),
    _intent("disable", "Stop an instance, now and after every boot"),
    _intent("start", "Run an instance until the next boot"),
    _intent("stop", "Stop an instance until the next start or boot"),
    _intent("restart", "Restart an instance's worker"),
    Route("POST", f"{ID}/logout", OPERATE, instances.logout, "End the pairing and retire the session", instances.LOGOUT, answers=(202,), query=WAIT, timely=True),  # noqa: E501
    Route("PUT", f"{ID}/passkey", OPERATE, instances.mark_passkey, "Note whether an instance's account needs a passkey to link", instances.PASSKEY),  # noqa: E501
    Route("POST", f"{ID}/health", OPERATE, monitoring.check_instance, "Check an instance now", (), answers=(200, 202), query=WAIT, timely=True),  # noqa: E501
    Route("POST", f"{ID}/recover", OPERATE, repairs.recover, "Repair an instance and keep its pairing", (), query=WAIT, answers=(200, 202)),  # noqa: E501
    Route("POST", f"{ID}/cleanup", OPERATE, repairs.cleanup, "Retire an instance's session and show a new code", repairs.CONFIRM, query=WAIT, answers=(200, 202)),  # noqa: E501
    Route("POST", f"{ID}/ensure-healthy", OPERATE, repairs.ensure_healthy, "Check, recover, clean up, until it is connected or shows a code", repairs.CONFIRM, query=WAIT, answers=(200, 202)),  # noqa: E501
    Route("GET", f"{ID}/qr", OPERATE, show_qr, "The code to scan; JSON, PNG, SVG or text by Accept", query=WAIT, timely=True),  # noqa: E501
    Route("POST", f"{ID}/pairing-code", OPERATE, remote_session.pairing_code, "A code to type on the phone instead of a scan", remote_session.PAIRING_CODE, query=WAIT, timely=True),  # noqa: E501
    Route("GET", f"{ID}/screenshot", ADMIN, remote_session.screenshot, "A picture of an instance's page: PNG, or JPEG if a PNG is too large", query=WAIT, timely=True),  # noqa: E501
    Route("GET", f"{ID}/events", READ, instances.history, "An instance's history, newest first", query=instances.HISTORY),  # noqa: E501
    Route("POST", f"{ID}/messages", OPERATE, messages.send, "Send a message; honours Idempotency-Key", messages.MESSAGE, messages.WAIT_SENT, answers=(202, 200)),  # noqa: E501
    Route("POST", f"{ID}/read", OPERATE, messages.mark_read, "Let the writers of messages know that they were read", messages.READ),  # noqa: E501
    Route("POST", f"{ID}/presence", OPERATE, messages.presence, "Show that the account types or records in a chat, or is there", messages.PRESENCE),  # noqa: E501
    Route("POST", f"{ID}/sandbox/scan", OPERATE, sandbox.scan, "Let the sandbox's phone scan", ()),
    Route("POST", f"{ID}/sandbox/fault", OPERATE, sandbox.fault, "Cause a fault in the sandbox", sandbox.FAULT),  # noqa: E501
    Route("POST", f"{ID}/sandbox/say", OPERATE, sandbox.say, "Let a contact of the sandbox write", sandbox.SAY),  # noqa: E501
    Route("GET", f"{ID}/sandbox/heard", OPERATE, sandbox.heard, "What the sandbox's contacts got, oldest first", query=sandbox.HEARD),  # noqa: E501
    Route("GET", "/api/engines", SOME, placement.list_engines, "The engines and their settings"),
    Route("GET", "/api/backends", READ, backends.list_backends, "The backends and their health"),
    Route("POST", "/api/reload", ADMIN, backends.reload, "Let the agent read agent.toml again", (), answers=(202,)),  # noqa: E501
    Route("GET", BACKEND, READ, backends.show, "One backend"),
    Route("GET", f"{BACKEND}/sessions", READ, backends.sessions, "A backend's sessions and the instances made of them", query=WAIT, timely=True),  # noqa: E501
    Route("POST", f"{BACKEND}/adopt", OPERATE, backends.adopt, "Make an instance of a backend's session", backends.ADOPT, answers=(201, 202), query=WAIT, timely=True),  # noqa: E501
    Route("POST", f"{BACKEND}/check", OPERATE, backends.check, "Check a backend's server now", (), answers=(200, 202), query=WAIT, timely=True),  # noqa: E501
    Route("POST", f"{BACKEND}/reset", OPERATE, backends.reset, "Close a backend's circuit, so that its sessions try again", ()),  # noqa: E501
    Route("GET", "/api/health", READ, monitoring.health, "The agent's health and its instances'"),
    Route("POST", "/api/health/check", OPERATE, monitoring.check_now, "Check all or some now", monitoring.CHECK, answers=(200, 202), query=WAIT, timely=True),  # noqa: E501
    Route("POST", "/api/database/check", OPERATE, monitoring.check_database, "Check the whole database", ()),  # noqa: E501
    Route("POST", "/api/v1/whatsapp/setup", OPERATE, repairs.set_up, "Create or repair an instance; a code to scan or CONNECTED", repairs.SETUP, query=WAIT, answers=(200, 202)),  # noqa: E501
    Route("PUT", f"/whatsapp/{SOME_ID}/disconnect", OPERATE, repairs.disconnect, "Stop an instance and keep its pairing", (), repairs.WAIT_DOWN),  # noqa: E501
    Route("PUT", f"/whatsapp/{SOME_ID}/start-session", OPERATE, repairs.start_session, "Start an instance", (), repairs.WAIT_UP),  # noqa: E501
    Route("POST", f"/force-reconnection/{SOME_ID}", OPERATE, repairs.force_reconnection, "Connect an instance now, without waiting for its next attempt", (), answers=(202,)),  # noqa: E501
    Route("POST", f"/reset-circuit-breaker/{SOME_ID}", OPERATE, repairs.reset_circuit_breaker, "Close the circuit of an instance, or of the backend of that name", ()),  # noqa: E501
    Route("GET", "/reconnection-status", SOME, repairs.reconnection_status, "Attempts, times of the next ones, and circuits"),  # noqa: E501
    Route("GET", "/performance-metrics", SOME, figures.performance, "Performance of each instance and of the machine; averageResponseTime: mean seconds of the probes in the last 5 minutes, null without an answered probe"),  # noqa: E501
    Route("GET", "/api/trends", SOME, figures.trends, "Memory and messages over time, oldest point first", query=figures.TRENDS),  # noqa: E501
    Route("GET", "/api/memory/report", READ, figures.memory_report, "Memory of each instance"),
    Route("GET", "/api/incidents", READ, repairs.incidents, "Failures that many instances have in common"),  # noqa: E501
    Route("POST", f"/api/incidents/{GROUP}/release", OPERATE, repairs.release_incident, "Let the members of an incident try again", ()),  # noqa: E501
    Route("GET", "/api/repairs/statistics", READ, repairs.statistics, "Counts and times of checks and repairs"),  # noqa: E501
    Route("GET", f"{ID}/snapshots", READ, snapshots.list_snapshots, "An instance's snapshots, newest first"),  # noqa: E501
    Route("POST", f"{ID}/snapshots", OPERATE, snapshots.make, "Make a snapshot now", (), answers=(201,)),  # noqa: E501
    Route("POST", f"{ID}/snapshots/{SNAPSHOT}/restore", OPERATE, snapshots.restore, "Replace an instance's session by a snapshot", snapshots.RESTORE),  # noqa: E501
    Route("GET", f"{ID}/removed", READ, remote_session.list_removed, "Files and keys that repairs removed on the backend, newest first", query=WAIT, timely=True),  # noqa: E501
    Route("POST", f"{ID}/removed/{REMOVED}/restore", OPERATE, remote_session.restore_removed, "Put removed files and keys back; the session is down meanwhile", (), answers=(200, 202), query=WAIT, timely=True),  # noqa: E501
    Route("GET", f"{ID}/remote-settings", READ, remote_session.show_settings, "A session's settings on its backend", query=WAIT, timely=True),  # noqa: E501
    Route("PATCH", f"{ID}/remote-settings", OPERATE, remote_session.change_settings, "Change a session's settings on its backend", remote_session.CHANGE, answers=(200, 202), query=WAIT, timely=True),  # noqa: E501
    Route("GET", "/api/trash", READ, instances.trash, "Retired sessions"),
    Route("POST", rf"/api/trash/{{name:{ID_PATTERN}\.{NAME_PATTERN}}}/restore", OPERATE, instances.restore_trash, "Bring a retired session back", (), answers=(201,)),  # noqa: E501
    Route("GET", "/api/caller", SOME, keys.show_caller, "The caller's name and rights"),
    Route("GET", "/api/keys", ADMIN, keys.list_keys, "List the keys"),
    Route("POST", "/api/keys", ADMIN, keys.add_key, "Make a key", keys.NEW_KEY, answers=(201,)),
    Route("DELETE", "/api/keys/{key:[a-z0-9]{8}}", ADMIN, keys.revoke_key, "Revoke a key", ()),
    Route("GET", "/api/events", SOME, events.events, "Live events over a WebSocket; the history without one", query=events.EVENTS, answers=(101, 200)),  # noqa: E501
    Route("GET", "/metrics", READ, monitoring.metrics, "Metrics for Prometheus"),
    Route("GET", "/healthz", OPEN, monitoring.alive, "Alive: the loop turns", answers=(200, 503)),
    Route("GET", "/readyz", OPEN, monitoring.ready, "Ready: all sessions are restored", answers=(200, 503)),  # noqa: E501
    *archives.ROUTES,
    *evidence.ROUTES,
    *kept_messages.ROUTES,
    *pages.ROUTES,
    Route("GET", "/api/troubles", READ, monitoring.list_troubles, "What is wrong now"),
    *webhooks.ROUTES,
)
# fmt: on
