"""Every route with who may use it, and the one way in that all requests take."""

from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from aiohttp import web
from aiohttp.typedefs import Middleware

from agent.api import (
    alerts,
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
    snapshots,
    web_session,
    webhooks,
    whatsapp,
)
from agent.api.http.audit import REQUEST_ID, ROUTE, Audit
from agent.api.http.auth import NOBODY, Right, identify, require
from agent.api.http.call import Call, Parts, Route, read_call
from agent.api.http.envelope import (
    HEADERS,
    error_answer,
    json_answer,
    library_error_answer,
    new_request_id,
)
from agent.api.http.guard import check_crowd, check_entrance, is_hook
from agent.api.http.openapi import describe, plain_path
from agent.api.pages import PARTS, page
from agent.api.qr import show_qr
from agent.api.runbook import show_runbook
from agent.core.model import ID_PATTERN, Category, InstanceId, parse_instance_id
from agent.errors import WaError
from agent.log import bound

log = bound(Category.API)

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]

_BEFORE_ID = ("/api/instance/", "/whatsapp/", "/force-reconnection/", "/reset-circuit-breaker/")
SOME_ID = f"{{id:{ID_PATTERN}}}"
ID = f"/api/instance/{SOME_ID}"
BACKEND = f"/api/backends/{{name:{ID_PATTERN}}}"
WEBHOOK = f"/api/webhooks/{{name:{ID_PATTERN}}}"
HOOK = f"/hooks/{{name:{ID_PATTERN}}}/{{secret:[A-Za-z0-9_-]{{16,128}}}}"
GROUP = "{group:[a-z0-9_-]{1,48}(?:/[A-Za-z0-9_.-]{1,128})?}"
TRASHED = rf"{{name:{ID_PATTERN}\.[0-9]{{8}}T[0-9]{{6}}Z(?:\.[0-9]{{1,4}})?}}"
FAILED = r"{failed:[0-9]{8}T[0-9]{6}Z}"
SNAPSHOT = r"{snapshot:[0-9]{8}T[0-9]{6}Z(?:\.[0-9]{1,4})?}"
REMOVED = SNAPSHOT.replace("snapshot", "removed")
KEY = "{key:[a-z0-9]{8}}"
OPEN, SOME, READ, OPERATE, ADMIN = Right


async def show_openapi(call: Call) -> web.Response:
    return json_answer(describe(ROUTES, call.supervisor.status().version))


def _intent(name: str, summary: str) -> Route:
    run = instances.intent(name)
    return Route("POST", f"{ID}/{name}", OPERATE, run, summary, (), answers=(202,))


# fmt: off
ROUTES: tuple[Route, ...] = (
    Route("POST", "/api/instance", OPERATE, instances.create, "Create an instance", instances.CREATE, answers=(201,)),  # noqa: E501
    Route("GET", "/api/instances", SOME, instances.list_instances, "List, filter, page", query=instances.LIST),  # noqa: E501
    Route("GET", ID, READ, instances.show, "An instance's state"),
    Route("GET", f"{ID}/details", READ, instances.details, "Everything known of it"),
    Route("PATCH", ID, OPERATE, instances.change, "Change its settings", instances.CHANGE),
    Route("DELETE", ID, OPERATE, instances.delete, "Retire its session and remove it; one on a backend stays there", instances.DELETE, instances.DELETE_QUERY),  # noqa: E501
    _intent("enable", "It should run"),
    _intent("disable", "It should not run"),
    _intent("start", "Run it now, until the machine boots"),
    _intent("stop", "Stop it now, until the machine boots or it is started"),
    _intent("restart", "Restart its worker"),
    Route("POST", f"{ID}/logout", OPERATE, instances.logout, "End the pairing and retire the session", instances.LOGOUT, answers=(202,)),  # noqa: E501
    Route("POST", f"{ID}/health", OPERATE, monitoring.check_instance, "Check it now", ()),
    Route("POST", f"{ID}/recover", OPERATE, repairs.recover, "Repair it, its pairing stays; answers when that is over", ()),  # noqa: E501
    Route("POST", f"{ID}/cleanup", OPERATE, repairs.cleanup, "Retire its session and begin afresh with a new code", repairs.CLEANUP),  # noqa: E501
    Route("POST", f"{ID}/ensure-healthy", OPERATE, repairs.ensure_healthy, "Check, recover, clean up: connected or a code", ()),  # noqa: E501
    Route("GET", f"{ID}/qr", OPERATE, show_qr, "The code to scan; JSON, PNG, SVG or text by Accept"),  # noqa: E501
    Route("POST", f"{ID}/pairing-code", OPERATE, web_session.pairing_code, "A code to type on the phone instead of a scan", web_session.PAIRING_CODE),  # noqa: E501
    Route("GET", f"{ID}/screenshot", ADMIN, web_session.screenshot, "A picture of its page: PNG, or JPEG where that is too large"),  # noqa: E501
    Route("GET", f"{ID}/worker-lines", OPERATE, evidence.worker_lines, "The last lines that its worker wrote"),  # noqa: E501
    Route("GET", f"{ID}/failed-starts", OPERATE, evidence.failed_starts, "What its engine kept of failed starts, newest first"),  # noqa: E501
    Route("GET", f"{ID}/failed-starts/{FAILED}/picture", ADMIN, evidence.failed_start_picture, "The picture of a failed start"),  # noqa: E501
    Route("GET", f"{ID}/events", READ, instances.history, "Its history, newest first", query=instances.HISTORY),  # noqa: E501
    Route("POST", f"{ID}/messages", OPERATE, messages.send, "Send a message; Idempotency-Key is honoured", messages.MESSAGE),  # noqa: E501
    Route("POST", f"{ID}/sandbox/scan", OPERATE, messages.scan, "The sandbox's phone scans", ()),
    Route("POST", f"{ID}/sandbox/fault", OPERATE, messages.fault, "The sandbox shall fail", messages.FAULT),  # noqa: E501
    Route("GET", "/api/alerts", READ, alerts.list_alerts, "What the agent alerts of", query=alerts.LIST),  # noqa: E501
    Route("GET", "/api/backends", READ, backends.list_backends, "The servers of someone else's, and how they are"),  # noqa: E501
    Route("GET", BACKEND, READ, backends.show, "One of them"),
    Route("GET", f"{BACKEND}/sessions", READ, backends.sessions, "All sessions that it has, and which are watched"),  # noqa: E501
    Route("POST", f"{BACKEND}/adopt", OPERATE, backends.adopt, "Make an instance of a session that it has", backends.ADOPT, answers=(201,)),  # noqa: E501
    Route("POST", f"{BACKEND}/check", OPERATE, backends.check, "Ask it now how it is", ()),
    Route("POST", f"{BACKEND}/reset", OPERATE, backends.reset, "Close its circuit: its sessions may be tried again", ()),  # noqa: E501
    Route("POST", HOOK, OPEN, backends.hook, "What a backend calls when something happened there", hook=True),  # noqa: E501
    Route("GET", "/api/webhooks", READ, webhooks.list_webhooks, "Where events are sent by themselves, and what waits"),  # noqa: E501
    Route("POST", f"{WEBHOOK}/test", OPERATE, webhooks.test, "Send it one event now; what came back", ()),  # noqa: E501
    Route("GET", f"{WEBHOOK}/dead", READ, webhooks.dead, "The events that it refused for good"),
    Route("POST", f"{WEBHOOK}/retry", OPERATE, webhooks.retry, "Try it now, the refused ones too; its circuit closes", (), answers=(202,)),  # noqa: E501
    Route("GET", "/api/health", READ, monitoring.health, "The agent's and the fleet's health"),
    Route("POST", "/api/health/check", OPERATE, monitoring.check_now, "Check all or some now", monitoring.CHECK),  # noqa: E501
    Route("POST", "/api/database/check", OPERATE, monitoring.check_database, "Check the whole database", ()),  # noqa: E501
    Route("POST", "/api/v1/whatsapp/setup", OPERATE, repairs.set_up, "Create or repair an instance; a code to scan or CONNECTED", repairs.SETUP),  # noqa: E501
    Route("PUT", f"/whatsapp/{SOME_ID}/disconnect", OPERATE, whatsapp.disconnect, "Stop it, as its operator; its pairing stays", (), whatsapp.WAIT_DOWN),  # noqa: E501
    Route("PUT", f"/whatsapp/{SOME_ID}/start-session", OPERATE, whatsapp.start_session, "Start it, as its operator", (), whatsapp.WAIT_UP),  # noqa: E501
    Route("POST", f"/force-reconnection/{SOME_ID}", OPERATE, repairs.force_reconnection, "Try now, whatever the count says", (), answers=(202,)),  # noqa: E501
    Route("POST", f"/reset-circuit-breaker/{SOME_ID}", OPERATE, repairs.reset_circuit_breaker, "Close its circuit, or that of the backend of that name", ()),  # noqa: E501
    Route("GET", "/reconnection-status", SOME, repairs.reconnection_status, "Attempts, next ones and circuits"),  # noqa: E501
    Route("GET", "/performance-metrics", SOME, figures.performance, "Figures of each instance, and of the machine; averageResponseTime: seconds, mean of the last 5 minutes, null where no probe was answered in them"),  # noqa: E501
    Route("GET", "/api/trends", SOME, figures.trends, "Lines of memory and messages, oldest point first", query=figures.TRENDS),  # noqa: E501
    Route("GET", "/api/memory/report", READ, figures.memory_report, "Who uses the memory"),
    Route("GET", "/api/incidents", READ, repairs.incidents, "What many instances fail with at once"),  # noqa: E501
    Route("POST", f"/api/incidents/{GROUP}/release", OPERATE, repairs.release_incident, "Its members may try again", ()),  # noqa: E501
    Route("GET", "/api/repairs/statistics", READ, repairs.statistics, "What checks and repairs came to"),  # noqa: E501
    Route("GET", f"{ID}/snapshots", READ, snapshots.list_snapshots, "Its snapshots, newest first"),
    Route("POST", f"{ID}/snapshots", OPERATE, snapshots.make, "Make a snapshot now", (), answers=(201,)),  # noqa: E501
    Route("POST", f"{ID}/snapshots/{SNAPSHOT}/restore", OPERATE, snapshots.restore, "Put a snapshot in place of its session", snapshots.RESTORE),  # noqa: E501
    Route("GET", f"{ID}/removed", READ, remote_session.list_removed, "What repairs put aside of it on its backend, newest first"),  # noqa: E501
    Route("POST", f"{ID}/removed/{REMOVED}/restore", OPERATE, remote_session.restore_removed, "Put it back; the session is down meanwhile", ()),  # noqa: E501
    Route("GET", f"{ID}/remote-settings", READ, remote_session.show_settings, "Its settings on its backend"),  # noqa: E501
    Route("PATCH", f"{ID}/remote-settings", OPERATE, remote_session.change_settings, "Change some of them", remote_session.CHANGE),  # noqa: E501
    Route("POST", f"{ID}/export", ADMIN, snapshots.export, "Its session as an archive", snapshots.EXPORT),  # noqa: E501
    Route("POST", "/api/import", ADMIN, snapshots.import_archive, "An instance from an archive: the body is the archive", query=snapshots.IMPORT, answers=(201,)),  # noqa: E501
    Route("GET", "/api/trash", READ, instances.trash, "Retired sessions"),
    Route("POST", f"/api/trash/{TRASHED}/restore", OPERATE, instances.restore_trash, "Bring a retired session back", (), answers=(201,)),  # noqa: E501
    Route("GET", "/api/caller", SOME, keys.show_caller, "Who you are, and what you may do"),
    Route("GET", "/api/keys", ADMIN, keys.list_keys, "List the keys"),
    Route("POST", "/api/keys", ADMIN, keys.add_key, "Make a key", keys.NEW_KEY, answers=(201,)),
    Route("DELETE", f"/api/keys/{KEY}", ADMIN, keys.revoke_key, "Revoke a key", ()),
    Route("GET", "/api/events", SOME, events.events, "Live events over a WebSocket, else the history", query=events.EVENTS, answers=(101, 200)),  # noqa: E501
    Route("GET", "/metrics", READ, monitoring.metrics, "For Prometheus"),
    Route("GET", "/healthz", OPEN, monitoring.alive, "Alive: the loop turns", answers=(200, 503)),
    Route("GET", "/readyz", OPEN, monitoring.ready, "Ready: all is restored", answers=(200, 503)),
    Route("GET", "/openapi.json", OPEN, show_openapi, "This description"),
    Route("GET", "/docs", OPEN, page("docs.html"), "The interface, for people"),
    Route("GET", "/runbook", OPEN, show_runbook, "What to do about each alert, for people"),
    Route("GET", "/", OPEN, page("dashboard.html"), "The dashboard, for people"),
    *(Route("GET", f"/page/{name}", OPEN, page(name), "Part of a page") for name in PARTS),
)
# fmt: on


PROBED_BY_HEAD = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/runbook", "/")
"""Balancers and checkers ask for no body."""


def build_app(parts: Parts, allowed_hosts: frozenset[str]) -> web.Application:
    app = web.Application(
        client_max_size=parts.section.body_limit,
        middlewares=[_front_door(parts, allowed_hosts)],
    )
    parts.metrics.http.expect((route.method, plain_path(route.path)) for route in ROUTES)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _bound(route, parts), expect_handler=_expect)
        if route.path in PROBED_BY_HEAD:
            app.router.add_route("HEAD", route.path, _bound(route, parts))
    return app


def _bound(route: Route, parts: Parts) -> Answering:
    async def answer(request: web.Request) -> web.StreamResponse:
        request[ROUTE] = plain_path(route.path)
        caller = NOBODY if route.hook else identify(request, parts.section, parts.ring)
        text = request.match_info.get("id")
        try:
            require(caller, route.right, InstanceId(text) if text else None)
            answered = await route.run(read_call(request, route, parts, caller))
        except WaError as error:
            parts.audit.answered(request, caller, text, error.http, error.code)
            raise
        location = answered.headers.get("Location", "")
        parts.audit.answered(request, caller, text, answered.status, location)
        return answered

    return answer


def _front_door(parts: Parts, allowed_hosts: frozenset[str]) -> Middleware:
    http = parts.metrics.http

    @web.middleware
    async def answer(request: web.Request, handler: Answering) -> web.StreamResponse:
        request_id = request[REQUEST_ID] = new_request_id()
        with http.observe(request.method) as seen:
            found = await _safely(request, handler, parts.audit, allowed_hosts)
            seen.route = request.get(ROUTE, "other")
            seen.code = found.status
        if not found.prepared:
            found.headers["X-Request-Id"] = request_id
            for name, value in HEADERS.items():
                found.headers.setdefault(name, value)
        return found

    return answer


async def _safely(
    request: web.Request, run: Answering, audit: Audit, allowed_hosts: frozenset[str]
) -> web.StreamResponse:
    request_id = request[REQUEST_ID]
    try:
        check_crowd(request)
        check_entrance(request, allowed_hosts)
        return await run(request)
    except WaError as error:
        if error.http >= 500:
            log.warning("request %s: %s", request_id, error)
        elif error.http in (401, 403):
            audit.refused(request, error.http, error.code)
        return error_answer(error, request_id)
    except web.HTTPException as error:
        if error.status == 404 and is_hook(request):
            audit.refused(request, 404, "unknown_hook")
        if error.status == 404 and (wrong := _wrong_id(request)):
            return error_answer(wrong, request_id)
        return library_error_answer(error.status, request_id, error.headers)
    except ConnectionError:
        raise  # the client is gone: there is nobody to answer
    except Exception:
        # Of what is no secret: a hook's path is one.
        path = request.path if not is_hook(request) else request.get(ROUTE, "a hook")
        log.exception("request %s failed: %s %s", request_id, request.method, path)
        return library_error_answer(500, request_id)


def _wrong_id(request: web.Request) -> WaError | None:
    """The router's pattern refused the id: say that, rather than "no such address"."""
    for place in _BEFORE_ID:
        before, _, rest = request.rel_url.raw_path.partition(place)
        if before or not rest:
            continue
        try:
            parse_instance_id(unquote(rest.partition("/")[0]))
        except WaError as error:
            return error
    return None


async def _expect(request: web.Request) -> web.StreamResponse | None:
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
        return None
    return library_error_answer(417, new_request_id())
