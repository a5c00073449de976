"""The table of all routes: method and path, right, handler, fields."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from agent.api.handlers import (
    backends,
    events,
    instances,
    looks,
    messages,
    monitoring,
    repairs,
    sandbox,
)
from agent.api.http.auth import Right
from agent.api.http.call import WAIT, Handler, Route
from agent.api.http.fields import Field
from agent.core.model import ID_PATTERN
from agent.messages import routes as kept_messages
from agent.moving import routes as archives
from agent.page import pages
from agent.webhooks import part as webhooks

ID = "/api/instance/{id}"
BACKEND = f"/api/backends/{{name:{ID_PATTERN}}}"
GROUP = "{group:[a-z0-9_-]{1,48}(?:/[A-Za-z0-9_.-]{1,128})?}"
NAME = "[A-Za-z0-9._-]{1,96}"
"""The name of a copy or a key; the handler refuses a word that names none."""
SNAPSHOT, REMOVED = f"{ID}/snapshots/{{snapshot:{NAME}}}", f"{ID}/removed/{{removed:{NAME}}}"
FAILED = f"{ID}/failed-starts"
WHATSAPP = "/whatsapp/{id}"
Body = tuple[Field, ...] | None
OPEN, SOME, READ, OPERATE, ADMIN = Right
Options = Mapping[str, Any]
ASKED: Options = {"query": WAIT, "timely": True}
SLOW: Options = {"query": WAIT, "answers": (200, 202)}
LATE: Options = {**ASKED, **SLOW}
ACCEPTED: Options = {"answers": (202,)}
MADE: Options = {"answers": (201,)}
ENDED: Options = {**ASKED, **ACCEPTED}
ADOPTED: Options = {**ASKED, "answers": (201, 202)}
DELETED: Options = {**LATE, "query": (*instances.DELETE_QUERY, *WAIT)}
LARGE: Options = {"large": True}
SENT: Options = {"answers": (202, 200), "query": messages.WAIT_SENT, **LARGE}
LIVE: Options = {"answers": (101, 200), "query": events.EVENTS}
PROBE: Options = {"answers": (200, 503)}
SHOWN: Options = {"shows": {"$ref": "#/components/schemas/Instance"}}


def _route(
    at: str, right: Right, run: Handler, body: Body = None, more: Options | None = None
) -> Route:
    """`at`: method and path. The summary is the beginning of the handler's docstring."""
    method, _, path = at.partition(" ")
    summary = " ".join((run.__doc__ or "").partition("\n\n")[0].split()).rstrip(".")
    return Route(method, path, right, run, summary, body, **(more or {}))


def _intent(name: str, summary: str) -> Route:
    run = partial(instances.intend, name)
    return Route("POST", f"{ID}/{name}", OPERATE, run, summary, (), answers=(202,))


ROUTES: tuple[Route, ...] = (
    _route("POST /api/instance", OPERATE, instances.create, instances.CREATE, MADE),
    _route("GET /api/instances", SOME, instances.list_instances, None, {"query": instances.LIST}),
    _route(f"GET {ID}", READ, instances.show, None, SHOWN),
    _route(f"GET {ID}/details", READ, instances.details),
    _route(f"PATCH {ID}", OPERATE, instances.change, instances.CHANGE),
    _route(f"DELETE {ID}", OPERATE, instances.delete, instances.DELETE, DELETED),
    _intent("enable", "Run an instance, now and after every boot"),
    _intent("disable", "Stop an instance, now and after every boot"),
    _intent("start", "Run an instance until the next boot"),
    _intent("stop", "Stop an instance until the next start or boot"),
    _intent("restart", "Restart an instance's worker"),
    _route(f"POST {ID}/logout", OPERATE, instances.logout, instances.LOGOUT, ENDED),
    _route(f"PUT {ID}/passkey", OPERATE, instances.mark_passkey, instances.PASSKEY),
    _route(f"POST {ID}/health", OPERATE, monitoring.check_instance, (), LATE),
    _route(f"POST {ID}/recover", OPERATE, repairs.recover, (), SLOW),
    _route(f"POST {ID}/cleanup", OPERATE, repairs.cleanup, repairs.CONFIRM, SLOW),
    _route(f"POST {ID}/ensure-healthy", OPERATE, repairs.ensure_healthy, repairs.CONFIRM, SLOW),
    _route(f"GET {ID}/qr", OPERATE, looks.show_qr, None, ASKED),
    _route(f"POST {ID}/pairing-code", OPERATE, looks.pairing_code, looks.PAIRING_CODE, ASKED),
    _route(f"GET {ID}/screenshot", ADMIN, looks.screenshot, None, ASKED),
    _route(f"GET {ID}/events", READ, instances.history, None, {"query": instances.HISTORY}),
    _route(f"POST {ID}/messages", OPERATE, messages.send, messages.MESSAGE, SENT),
    _route(f"POST {ID}/read", OPERATE, messages.mark_read, messages.READ),
    _route(f"POST {ID}/presence", OPERATE, messages.presence, messages.PRESENCE),
    _route(f"POST {ID}/sandbox/scan", OPERATE, sandbox.scan, ()),
    _route(f"POST {ID}/sandbox/fault", OPERATE, sandbox.fault, sandbox.FAULT),
    _route(f"POST {ID}/sandbox/say", OPERATE, sandbox.say, sandbox.SAY, LARGE),
    _route(f"GET {ID}/sandbox/heard", OPERATE, sandbox.heard, None, {"query": sandbox.HEARD}),
    _route("GET /api/engines", SOME, backends.list_engines),
    _route("GET /api/backends", READ, backends.list_backends),
    _route("POST /api/reload", ADMIN, backends.reload, (), ACCEPTED),
    _route(f"GET {BACKEND}", READ, backends.show),
    _route(f"GET {BACKEND}/sessions", READ, backends.sessions, None, ASKED),
    _route(f"POST {BACKEND}/adopt", OPERATE, backends.adopt, backends.ADOPT, ADOPTED),
    _route(f"POST {BACKEND}/check", OPERATE, backends.check, (), LATE),
    _route(f"POST {BACKEND}/reset", OPERATE, backends.reset, ()),
    _route("GET /api/health", READ, monitoring.health),
    _route("POST /api/health/check", OPERATE, monitoring.check_now, monitoring.CHECK, LATE),
    _route("POST /api/database/check", OPERATE, monitoring.check_database, ()),
    _route("POST /api/v1/whatsapp/setup", OPERATE, repairs.set_up, repairs.SETUP, SLOW),
    _route(f"PUT {WHATSAPP}/disconnect", OPERATE, repairs.disconnect, (), repairs.DOWN),
    _route(f"PUT {WHATSAPP}/start-session", OPERATE, repairs.start_session, (), repairs.UP),
    _route("POST /force-reconnection/{id}", OPERATE, repairs.force_reconnection, (), ACCEPTED),
    _route("POST /reset-circuit-breaker/{id}", OPERATE, repairs.reset_circuit_breaker, ()),
    _route("GET /reconnection-status", SOME, repairs.reconnection_status),
    _route("GET /performance-metrics", SOME, monitoring.performance),
    _route("GET /api/memory/report", READ, monitoring.memory_report),
    _route("GET /api/incidents", READ, repairs.incidents),
    _route(f"POST /api/incidents/{GROUP}/release", OPERATE, repairs.release_incident, ()),
    _route("GET /api/repairs/statistics", READ, repairs.statistics),
    _route(f"GET {ID}/snapshots", READ, instances.list_snapshots),
    _route(f"POST {ID}/snapshots", OPERATE, instances.make, (), MADE),
    _route(f"POST {SNAPSHOT}/restore", OPERATE, instances.restore, instances.RESTORE),
    _route(f"GET {ID}/removed", READ, instances.list_removed, None, ASKED),
    _route(f"POST {REMOVED}/restore", OPERATE, instances.restore_removed, (), LATE),
    _route("GET /api/trash", READ, instances.trash),
    _route(f"POST /api/trash/{{name:{NAME}}}/restore", OPERATE, instances.restore_trash, (), MADE),
    _route("GET /api/caller", SOME, backends.show_caller),
    _route("GET /api/keys", ADMIN, backends.list_keys),
    _route("POST /api/keys", ADMIN, backends.add_key, backends.NEW_KEY, MADE),
    _route(f"DELETE /api/keys/{{key:{NAME}}}", ADMIN, backends.revoke_key, ()),
    _route("GET /api/events", SOME, events.events, None, LIVE),
    _route("GET /metrics", READ, monitoring.metrics),
    _route("GET /healthz", OPEN, monitoring.alive, None, PROBE),
    _route("GET /readyz", OPEN, monitoring.ready, None, PROBE),
    *archives.ROUTES,
    _route(f"GET {ID}/worker-lines", OPERATE, looks.worker_lines, None, {"query": looks.LINES}),
    _route(f"GET {FAILED}", OPERATE, looks.failed_starts),
    _route(f"GET {FAILED}/{{failed:{looks.NAME.pattern}}}/picture", ADMIN, looks.picture),
    *kept_messages.ROUTES,
    *pages.ROUTES,
    _route("GET /api/troubles", READ, monitoring.list_troubles),
    *webhooks.ROUTES,
)
