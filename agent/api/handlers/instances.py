"""Instances: read them and store intents, which passes carry out. Their copies: snapshots, the
trash, and what repairs removed from a session on a backend; each is listed and put back. Their code
and page.

`backend` and `remote`, the place of an instance, may stand in a body beside `settings` or in them,
and are stored as settings. Supervision checks them.

The code to scan comes as JSON, PNG, SVG or text, or as one for the phone; it is a secret: never
stored, never logged."""

import asyncio
import base64
import io
import time
from collections.abc import Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Any

from aiohttp import web

from agent import errors
from agent.api.http.auth import Right, require
from agent.api.http.call import CONFIRM_PASSKEY, Answer, Call, Field, Json
from agent.api.present import part, show_details, show_instance
from agent.core import model, session
from agent.core.recovery.repair import RecoveryKind
from agent.core.words import ADOPTED, ID_PATTERN, ConnectionStatus, InstanceId, parse_instance_id
from agent.engines.catalog import engine_names
from agent.redaction import redact
from agent.supervise.calls import must_be_confirmed
from agent.vault.snapshots import Snapshot

PLACE = (
    Field("backend", str, "the [[backend]] that runs it, short for settings.backend", most=48),
    Field("remote", str, "its name there, short for settings.remote; default: id", most=256),
)
_SETTINGS = "the engine's settings; another url, media_url or proxy needs the scope admin"
CREATE = (
    Field("id", str, "the instance's id", required=True, pattern=ID_PATTERN),
    Field("engine", str, "its engine", required=True, choices=tuple(engine_names())),
    Field("enabled", bool, "true = run it; default true"),
    Field("settings", dict, _SETTINGS),
    *PLACE,
)
_PLACE = tuple(field.name for field in PLACE)
CHANGE = (Field("settings", dict, f"replaces {_SETTINGS}", required=True),)
LOGOUT = (Field("confirm", bool, "true = confirm that the pairing ends"), CONFIRM_PASSKEY)
_WORDS = "with remote=true: the words 'delete REMOTE'"
DELETE = (Field("confirm", str, _WORDS, most=300), CONFIRM_PASSKEY)
PASSKEY = (Field("needed", bool, "true = the account needs a passkey to link", required=True),)
DELETE_QUERY = (Field("remote", bool, "true = also delete the session on its backend"),)
LIST = (
    Field("status", list, "only these statuses", choices=tuple(ConnectionStatus)),
    Field("limit", int, "instances on a page, default 100", least=1, most=1000),
    Field("after", str, "the `next` of the previous page", most=48),
)


async def create(call: Call) -> Json:
    """Create an instance."""
    body, enabled = call.body, call.body.get("enabled", True)
    id, settings = parse_instance_id(body["id"]), placed(body)
    _may_lead(call, settings, {})
    instance = model.Instance(id, body["engine"], enabled, settings, time.time())
    return show_instance(await call.supervisor.orders.create(instance))


def _may_lead(call: Call, settings: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Where a session connects to, and through which proxy, is an administrator's word: others
    would try this machine's ports with it, or lead its traffic through a stranger's machine."""
    for name in ("url", "media_url", "proxy"):
        if settings.get(name) != before.get(name):
            require(call.caller, Right.ADMIN, None, f"change settings.{name}")


def placed(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a new instance, with its place in them."""
    settings = {**body.get("settings", {})}
    for name in _PLACE:
        if name in body and settings.setdefault(name, body[name]) != body[name]:
            cause = f"settings.{name} has another value"
            raise errors.InvalidRequest(f"cannot use the field '{name}': {cause}", field=name)
    return settings


def still_placed(instance: model.Instance, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return changed settings of an existing instance, which keeps its backend and session."""
    if not instance.backend:
        return dict(settings)
    present = {k: v for k, v in instance.settings.items() if k in (*_PLACE, ADOPTED)}
    moved = model.Instance(instance.id, instance.engine, True, {**present, **settings})
    if (moved.backend, moved.remote) != (instance.backend, instance.remote):
        why = f"cannot make {instance.id} another session than {instance.remote} on"
        how = "delete it here (the session there stays) and adopt the other"
        why = f"{why} {instance.backend}: {how}"
        raise errors.Refused(why, field="settings", code="place_is_fixed")
    return dict(moved.settings)


async def list_instances(call: Call) -> Json:
    """List the instances, page by page."""
    query, views = call.query, call.supervisor.views()
    limit, wanted = query.get("limit", 100), query.get("status", [*ConnectionStatus])
    others = await call.supervisor.gate.fleet.others()
    every = {id: view.status for id, view in views.items()}
    every |= {InstanceId(id): row["connection_status"] for id, row in others.items()}
    fits = [id for id, it in sorted(every.items()) if it in wanted and call.caller.sees(id)]
    rest = [id for id in fits if id > query.get("after", "")]
    return {
        "instances": [others.get(id) or show_instance(views[id]) for id in rest[:limit]],
        "total": len(fits),
        "next": rest[limit - 1] if len(rest) > limit else None,
    }


async def show(call: Call) -> Json:
    """An instance's state."""
    return {**show_instance(call.view), **_outbox(call)}


def _outbox(call: Call) -> Json:
    """Return the messages that wait to be sent, and the ends of the others."""
    sending = call.parts.sending
    return {"outbox": sending.waiting(call.id), "outbox_ended": sending.ended(call.id)}


async def details(call: Call) -> Json:
    """Everything about an instance."""
    await call.supervisor.sampler.measure_now(call.id)
    config = call.supervisor.settings.config
    clocks = "proof_limit_seconds=health_policy.proof_limit watchdog_seconds=worker.watchdog"
    shown = {**show_details(call.view), **_outbox(call), **part(config, clocks)}
    if not call.caller.may(Right.OPERATE, call.id):  # a proxy's password may stand there
        told = shown["settings"].items()
        shown["settings"] = {name: redact(it) if isinstance(it, str) else it for name, it in told}
    shown["events"] = [*map(session.show_event, await call.supervisor.history(call.id, limit=20))]
    return shown


async def change(call: Call) -> Json:
    """Change an instance's settings."""
    settings = still_placed(call.view.instance, call.body["settings"])
    _may_lead(call, settings, call.view.instance.settings)
    return show_details(await call.supervisor.orders.change_settings(call.id, settings))


async def delete(call: Call) -> Json:
    """Retire an instance's session and remove the instance; a backend keeps its session.

    The session of a backend stays on its server without remote=true and its confirmation.
    """
    id, instance, repair = call.id, call.view.instance, call.view.repair
    passkey = call.body.get("confirm_passkey", "")
    must_be_confirmed(call.view, "delete", confirmed=True, passkey=passkey)
    deleted: dict[str, Any] = {"id": id}
    if instance.backend:
        if also_remote := call.query.get("remote", False):
            doing = f"cannot delete {instance.remote} on backend {instance.backend}"
            if call.body.get("confirm") != (words := f"delete {instance.remote}"):
                cure = f"send --confirm '{words}' (\"confirm\" in a request)"
                why = f"{doing} without a confirmation: its pairing ends for good; {cure}"
                raise errors.Refused(why, field="confirm", code="confirm")
            # On the server first: after a failure the instance can be deleted again.
            lacking = f"{doing}: engine {call.engine} cannot; delete it there, here without remote"
            await ask_engine(call, "delete", {}, lacking, timeout=LONG_TIMEOUT, alone=True)
        renewing = repair is not None and not repair.over and repair.step is RecoveryKind.CLEANUP
        deleted |= part(instance, "backend remote")
        deleted |= {"remote_deleted": also_remote, "remote_renewing": renewing}
    elif "remote" in call.query:
        why = f"cannot delete {id} on a backend: its session is on this machine"
        raise errors.InvalidRequest(why, field="remote")
    call.parts.sending.dropped.pop(id, None)  # of one of that name before
    trash = await call.supervisor.orders.delete(id, passkey=passkey)
    if dropped := await call.parts.sending.forget(id):
        deleted["messages_dropped"] = dropped
    for row in (ended := await call.parts.ring.end_of(id)):
        call.parts.end_listeners_of(row.id)
    deleted["keys_ended"] = [row.name or row.id for row in ended]
    deleted["declared"] = id in [it.id for it in call.supervisor.settings.config.instance]
    return {**deleted, "trash": trash, "machine": call.supervisor.gate.fleet.name}


async def intend(name: str, call: Call) -> Json:
    """enable, disable, start, stop, restart: stored, and answered before it is done."""
    return show_instance(await getattr(call.supervisor.orders, name)(call.id))


async def logout(call: Call) -> Json:
    """End the pairing; a person must scan again."""
    return show_instance(await call.supervisor.orders.logout(call.id, **call.confirmed))


async def mark_passkey(call: Call) -> Json:
    """Note whether an instance's account needs a passkey to link."""
    return show_instance(await call.supervisor.orders.mark_passkey(call.id, call.body["needed"]))


# Copies

RESTORE = (Field("force", bool, "true = also replace a newer session or use a damaged snapshot"),)


async def list_snapshots(call: Call) -> Json:
    """An instance's snapshots, newest first."""
    snapshots = await call.supervisor.keeping.snapshots(call.id)
    return {"snapshots": [show_snapshot(snapshot) for snapshot in snapshots]}


async def make(call: Call) -> Json:
    """Make a snapshot now."""
    return show_snapshot(await call.supervisor.keeping.snapshot(call.id, "asked for"))


async def restore(call: Call) -> Json:
    """Replace an instance's session by a snapshot."""
    name, force = call.request.match_info["snapshot"], call.body.get("force", False)
    restored = await call.supervisor.keeping.restore(call.id, name, force=force)
    return {
        "snapshot": show_snapshot(restored.snapshot),
        "trash": restored.retired.name if restored.retired else "",
        "machine": call.supervisor.gate.fleet.name,
        "instance": show_instance(call.view),
    }


def show_snapshot(snapshot: Snapshot) -> dict[str, Any]:
    shown = part(snapshot, "name id good problem")
    if (manifest := snapshot.manifest) is not None:
        shown |= part(manifest, "taken_wall why engine account state backup bytes=listing.size")
        shown["files"] = len(manifest.listing.files)
    return shown


async def trash(call: Call) -> Json:
    """Retired sessions."""
    rows = [(row.name.partition(".")[0], row) for row in await call.supervisor.orders.trash()]
    return {"trash": [{**part(row, "name retired=at_wall"), "id": id} for id, row in rows]}


async def restore_trash(call: Call) -> Json:
    """Bring a retired session back."""
    name = call.request.match_info["name"]
    return show_instance(await call.supervisor.orders.restore_trash(name))


_REMOVED = ("name", "why", "state", "files", "keys", "whole")
LONG_TIMEOUT = 150.0
"""Seconds for an answer that comes once the session is down, or after a restore up again."""


async def list_removed(call: Call) -> Json:
    """Files and keys that repairs removed on the backend, newest first."""
    return {"removed": (await _removed(call))[::-1]}


async def restore_removed(call: Call) -> Json:
    """Put removed files and keys back; the session is down meanwhile.

    Files in their places are removed first, as by a repair.
    """
    name = call.request.match_info["removed"]
    removed = next((row for row in await _removed(call) if row["name"] == name), None)
    if removed is None:
        why = f"cannot put back {name}: no repair of {call.id} has that name"
        raise errors.NotFound(why, field="name")
    await ask_engine(call, "restore_removed", {"name": name}, timeout=LONG_TIMEOUT, alone=True)
    return {"removed": removed, "instance": show_instance(call.view)}


async def _removed(call: Call) -> list[dict[str, Any]]:
    lacking = f"cannot do this with {call.id}: its engine {call.engine} removes no files"
    answer = await ask_engine(call, "removed", {}, lacking=lacking, timeout=30.0)
    return [
        {**{name: row.get(name) for name in _REMOVED}, "removed": session.wall_text(row.get("at"))}
        for row in answer["removed"]
    ]


# The code and the page

_PHONE = "the account's number with country code, 7 to 15 digits"
_DIGITS = r"[^0-9]*(?:[0-9][^0-9]*){7,15}"
PAIRING_CODE = (Field("phone", str, _PHONE, required=True, most=32, pattern=_DIGITS),)
_FAILED = {
    *("engine", "timeout", "page_error", "page_incomplete", "not_ready", "backend_down"),
    *("internal", "redis", "files", "no_effect", "backup_failed", "list_failed", "log_source"),
    *("written_back", "server_reconnected", "still_connected"),
}
"""Failures of an engine; its other codes refuse the request in this state."""
_PICTURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}
"""A page full of photos is a JPEG: as PNG it would be too long for the worker's answer."""


FORMS = JSON, PNG, SVG, TEXT = "application/json", "image/png", "image/svg+xml", "text/plain"


def draw(text: str, form: str) -> bytes:
    import segno  # its tables are half a MiB, which an agent with paired sessions never needs

    try:
        code = segno.make(text, micro=False, error="l")
    except ValueError as error:
        raise errors.EngineError("cannot draw the code: the engine's text does not fit") from error
    if form == TEXT:
        code.terminal(drawing := io.StringIO(), border=2, compact=True)
        return drawing.getvalue().encode()
    out = io.BytesIO()
    code.save(out, kind="svg" if form == SVG else "png", scale=8, border=4, light="#fff")
    return out.getvalue()


class NotAcceptable(errors.WaError):
    code, http = "not_acceptable", 406


async def show_qr(call: Call) -> Answer:
    """The code to scan; JSON, PNG, SVG or text by Accept."""
    view = call.view
    accept = (call.request.headers.get("Accept") or "*/*").lower().split(",")
    words = (part.partition(";")[0].strip() for part in accept)
    # The header's order counts, not its weights.
    form = next((form for word in words for form in FORMS if fnmatchcase(form, word)), None)
    if form is None:
        why = f"cannot draw the code in the accepted types: accept {', '.join(FORMS)}"
        raise NotAcceptable(why, field="Accept")
    if view.status is ConnectionStatus.CONNECTED:
        raise errors.Refused(f"cannot show a code: {call.id} is connected", code="connected")
    if not view.should_run:
        why = f"{call.id} is {'stopped' if view.instance.enabled else 'disabled'}"
        how = f"cannot show a code: {why}; run it: wa-agent start {call.id}"
        raise errors.Refused(how, code="not_running")
    if (qr := await call.supervisor.asking.qr(call.id)) is None:
        why = f"cannot show a code: {call.id} has none at the moment ({view.verdict.sentence})"
        raise errors.NotYet(why, code="no_qr")
    if form == JSON:
        return {"qr": qr.text, "expires_in": round(qr.expires_in, 3), "number": qr.number}
    # Drawing takes milliseconds of pure Python; other requests need not wait for it.
    drawn = await asyncio.to_thread(draw, qr.text, form)
    lives, charset = f"{max(qr.expires_in, 0):.3f}", "utf-8" if form == TEXT else None
    headers = {"X-Qr-Number": str(qr.number), "X-Qr-Expires-In": lives}
    return web.Response(body=drawn, content_type=form, charset=charset, headers=headers)


async def pairing_code(call: Call) -> Json:
    """A code to type on the phone instead of a scan."""
    # A server may have to end one login and begin another before it has a code.
    lacking = f"cannot make a pairing code of {call.id}: its engine {call.engine} offers none"
    answer = await ask_engine(call, "pairing_code", call.body, lacking=lacking, timeout=45.0)
    return {"code": answer.get("code"), "expires_in": answer.get("expires_in")}


async def screenshot(call: Call) -> web.Response:
    """A picture of an instance's page: PNG, or JPEG if a PNG is too large."""
    lacking = f"cannot make a screenshot of {call.id}: its engine {call.engine} offers none"
    answer = await ask_engine(call, "screenshot", {"format": "png"}, lacking)
    content = b""
    with suppress(ValueError):
        content = base64.b64decode(str(answer.get("content", "")), validate=True)
    for start, kind in _PICTURES.items():
        if content.startswith(start):
            return web.Response(body=content, content_type=kind)
    raise errors.EngineError(f"cannot show the page of {call.id}: the worker sent no picture")


async def ask_engine(call: Call, name: str, arguments: Json, lacking: str = "", **how: Any) -> Json:
    """The engine's refusal becomes an error of the request. `lacking`: the error if the engine has
    no such command; "" = it has it, so `invalid_request` is about the arguments. `how`: as
    `Calls.command` takes it."""
    try:
        return await call.supervisor.asking.command(call.id, name, arguments, **how)
    except (errors.EngineError, errors.InvalidRequest) as error:
        if error.code == "busy":
            raise errors.TryLater(str(error), code="busy") from error
        if error.code == "invalid_request":
            if lacking:
                raise errors.Refused(lacking, code="not_supported") from error
            raise errors.InvalidRequest(str(error), field="body") from error
        if error.code in _FAILED or isinstance(error, errors.InvalidRequest):
            raise
        raise errors.Refused(str(error), code=error.code) from error
