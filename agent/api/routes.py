"""The table of all routes: method and path, right, handler, fields."""

from functools import partial
from typing import Any

from agent.api.handlers import backends, events, health, instances, messages
from agent.api.http.auth import Right
from agent.api.http.call import WAIT, Route, route
from agent.core.words import ID_PATTERN
from agent.fleet import routes as fleet
from agent.messages import routes as kept_messages
from agent.moving import routes as archives
from agent.page import pages
from agent.webhooks import part as webhooks

ID = "/api/instance/{id}"
BACKEND = f"/api/backends/{{name:{ID_PATTERN}}}"
GROUP = "{group:[a-z0-9_-]{1,48}(?:/[A-Za-z0-9_.-]{1,128})?}"
NAME = "[A-Za-z0-9._-]{1,96}"
"""Pattern of the name of a copy or a key; the handler refuses a word that names none."""
SNAPSHOT, REMOVED = f"{ID}/snapshots/{{snapshot:{NAME}}}", f"{ID}/removed/{{removed:{NAME}}}"
FAILED = f"{ID}/failed-starts"
PICTURE = f"GET {FAILED}/{{failed:{events.FAILED_START.pattern}}}/picture"
WHATSAPP = "/whatsapp/{id}"
OPEN, SOME, READ, OPERATE, ADMIN = Right
Options = dict[str, Any]
ASKED: Options = {"query": WAIT, "timely": True}
SLOW: Options = {"query": WAIT, "answers": (200, 202)}
LATE: Options = {**ASKED, **SLOW}
MADE: Options = {"answers": (201,), "made": ID}
KEY: Options = {"answers": (201,), "made": "/api/keys/{id}"}
ENDED: Options = {**ASKED, "answers": (202,)}
ADOPTED: Options = {**ASKED, **MADE, "answers": (201, 202)}
DELETED: Options = {**LATE, "query": (*instances.DELETE_QUERY, *WAIT)}
SENT: Options = {"answers": (202, 200), "query": messages.WAIT_SENT, "large": True}


def _intent(name: str, summary: str) -> Route:
    run = partial(instances.intend, name)
    return Route("POST", f"{ID}/{name}", OPERATE, run, summary, (), answers=(202,))


ROUTES: tuple[Route, ...] = (
    route("POST /api/instance", OPERATE, instances.create, instances.CREATE, **MADE),
    route("GET /api/instances", SOME, instances.list_instances, query=instances.LIST),
    route(f"GET {ID}", READ, instances.show),
    route(f"GET {ID}/details", READ, instances.details),
    route(f"PATCH {ID}", OPERATE, instances.change, instances.CHANGE),
    route(f"DELETE {ID}", OPERATE, instances.delete, instances.DELETE, **DELETED),
    _intent("enable", "Run an instance, now and after every boot"),
    _intent("disable", "Stop an instance, now and after every boot"),
    _intent("start", "Run an instance until the next boot"),
    _intent("stop", "Stop an instance until the next start or boot"),
    _intent("restart", "Restart an instance"),
    route(f"POST {ID}/logout", OPERATE, instances.logout, instances.LOGOUT, **ENDED),
    route(f"PUT {ID}/passkey", OPERATE, instances.mark_passkey, instances.PASSKEY),
    route(f"POST {ID}/health", OPERATE, health.check_instance, (), **LATE),
    route(f"POST {ID}/recover", OPERATE, health.recover, (), **SLOW),
    route(f"POST {ID}/cleanup", OPERATE, health.cleanup, health.CONFIRM, **SLOW),
    route(f"POST {ID}/ensure-healthy", OPERATE, health.ensure_healthy, health.CONFIRM, **SLOW),
    route(f"GET {ID}/qr", OPERATE, instances.show_qr, **ASKED),
    route(
        f"POST {ID}/pairing-code", OPERATE, instances.pairing_code, instances.PAIRING_CODE, **ASKED
    ),
    route(f"GET {ID}/screenshot", ADMIN, instances.screenshot, **ASKED),
    route(f"GET {ID}/events", READ, events.history, query=events.HISTORY),
    route(f"POST {ID}/messages", OPERATE, messages.send, messages.MESSAGE, **SENT),
    route(f"POST {ID}/read", OPERATE, messages.mark_read, messages.READ),
    route(f"POST {ID}/presence", OPERATE, messages.presence, messages.PRESENCE),
    route(f"POST {ID}/sandbox/scan", OPERATE, messages.scan, ()),
    route(f"POST {ID}/sandbox/fault", OPERATE, messages.fault, messages.FAULT),
    route(f"POST {ID}/sandbox/say", OPERATE, messages.say, messages.SAY, large=True),
    route(f"GET {ID}/sandbox/heard", OPERATE, messages.heard, query=messages.HEARD),
    route("GET /api/engines", SOME, backends.list_engines),
    route("GET /api/backends", READ, backends.list_backends),
    route("POST /api/reload", ADMIN, backends.reload, (), answers=(202,)),
    route(f"GET {BACKEND}", READ, backends.show),
    route(f"GET {BACKEND}/sessions", READ, backends.sessions, **ASKED),
    route(f"POST {BACKEND}/adopt", OPERATE, backends.adopt, backends.ADOPT, **ADOPTED),
    route(f"POST {BACKEND}/check", OPERATE, backends.check, (), **LATE),
    route(f"POST {BACKEND}/reset", OPERATE, backends.reset, ()),
    route("GET /api/health", READ, health.health),
    route("POST /api/health/check", OPERATE, health.check_now, health.CHECK, **LATE),
    route("POST /api/database/check", OPERATE, health.check_database, ()),
    route("POST /api/v1/whatsapp/setup", OPERATE, health.set_up, health.SETUP, **SLOW),
    route(f"PUT {WHATSAPP}/disconnect", OPERATE, health.disconnect, (), **health.DOWN),
    route(f"PUT {WHATSAPP}/start-session", OPERATE, health.start_session, (), **health.UP),
    route("POST /force-reconnection/{id}", OPERATE, health.force_reconnection, (), answers=(202,)),
    route("POST /reset-circuit-breaker/{id}", OPERATE, health.reset_circuit_breaker, ()),
    route("GET /reconnection-status", SOME, health.reconnection_status),
    route("GET /performance-metrics", SOME, health.performance),
    route("GET /api/memory/report", READ, health.memory_report),
    route("GET /api/incidents", READ, health.incidents),
    route(f"POST /api/incidents/{GROUP}/release", OPERATE, health.release_incident, ()),
    route("GET /api/repairs/statistics", READ, health.statistics),
    route(f"GET {ID}/snapshots", READ, instances.list_snapshots),
    route(f"POST {ID}/snapshots", OPERATE, instances.make, (), answers=(201,)),
    route(f"POST {SNAPSHOT}/restore", OPERATE, instances.restore, instances.RESTORE),
    route(f"GET {ID}/removed", READ, instances.list_removed, **ASKED),
    route(f"POST {REMOVED}/restore", OPERATE, instances.restore_removed, (), **LATE),
    route("GET /api/trash", READ, instances.trash),
    route(f"POST /api/trash/{{name:{NAME}}}/restore", OPERATE, instances.restore_trash, (), **MADE),
    route("GET /api/caller", SOME, backends.show_caller),
    route("GET /api/keys", ADMIN, backends.list_keys),
    route("POST /api/keys", ADMIN, backends.add_key, backends.NEW_KEY, **KEY),
    route(f"DELETE /api/keys/{{key:{NAME}}}", ADMIN, backends.revoke_key, ()),
    route("GET /api/events", SOME, events.events, query=events.EVENTS, answers=(200, 101)),
    route("GET /metrics", READ, health.metrics),
    route("GET /healthz", OPEN, health.alive, answers=(200, 503)),
    route("GET /readyz", OPEN, health.ready, answers=(200, 503)),
    *archives.ROUTES,
    route(f"GET {ID}/worker-lines", OPERATE, events.worker_lines, query=events.LINES),
    route(f"GET {FAILED}", OPERATE, events.failed_starts),
    route(PICTURE, ADMIN, events.picture),
    *kept_messages.ROUTES,
    *pages.ROUTES,
    route("GET /api/troubles", READ, health.list_troubles),
    *webhooks.ROUTES,
    *fleet.ROUTES,
)
