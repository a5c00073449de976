"""What is answered for a session whose machine is away: its last view, or a stored command."""

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from agent.api.fleet.forward import Forwarding
from agent.api.fleet.published import PublishedViews
from agent.api.http.auth import Caller
from agent.api.http.body import parse_object
from agent.api.http.call import Parts, Route
from agent.api.http.envelope import json_answer
from agent.api.http.fields import read_body
from agent.api.present import show_details, show_instance, with_wait
from agent.core.model import (
    UNIT_ABSENT,
    ConnectionStatus,
    Desired,
    Health,
    HealthVerdict,
    Instance,
    InstanceId,
    SessionRecord,
)
from agent.core.view import InstanceView
from agent.errors import InvalidRequest, TryLater
from agent.fleet.coordinator import MachineRow
from agent.supervise.fleet.face import FleetFace

VIEW = "view"


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """A request for a session that this machine does not run."""

    face: FleetFace
    views: PublishedViews
    request: web.Request
    route: Route
    parts: Parts
    caller: Caller
    id: InstanceId


async def answer_for_absent(
    asked: SessionRequest, forwarding: Forwarding, owner: MachineRow, cause: str
) -> web.StreamResponse:
    if asked.route.away == VIEW:
        return await _last_view(asked, owner, cause)
    if asked.route.away:
        return await _store(asked, forwarding, owner)
    raise _away(asked, owner, cause)


async def _last_view(asked: SessionRequest, owner: MachineRow, cause: str) -> web.Response:
    row = await asked.views.get(asked.id)
    if row is None:
        raise _away(asked, owner, cause)
    shown = with_wait(row.view)
    if asked.request.path.endswith("/details"):
        shown = {**show_details(_as_published(shown)), "events": [], **shown}
    else:
        shown = {name: shown[name] for name in show_instance(_as_published(shown))}
    as_of = round(row.age_seconds, 3)
    return json_answer({**shown, "machine": owner.name, "as_of_seconds": as_of, "owner_away": True})


def _as_published(shown: Mapping[str, Any]) -> InstanceView:
    """What is known of a session whose machine is away; the rest is as of one that never ran."""
    status = ConnectionStatus(shown["connection_status"])
    id, engine, enabled = InstanceId(shown["id"]), shown["engine"], shown["enabled"]
    reason, sentence = shown["reason"], shown["sentence"]
    return InstanceView(
        instance=Instance(id, engine, enabled, shown["settings"]),
        desired=Desired(enabled),
        record=SessionRecord(status),
        unit=UNIT_ABSENT,
        status=status,
        status_since_wall=0.0,
        reason=reason,
        sentence=sentence,
        verdict=HealthVerdict(Health.NOT_FOUND, status, reason, sentence),
    )


async def _store(asked: SessionRequest, forwarding: Forwarding, owner: MachineRow) -> web.Response:
    arguments = await _arguments(asked, forwarding)
    row = await asked.face.coordinator.add_command(
        str(uuid.uuid4()),
        asked.id,
        asked.route.away,
        arguments,
        idempotency_key=_key(asked),
        asked_by=asked.caller.name,
    )
    return json_answer(
        {
            "command": row.id,
            "instance": asked.id,
            "verb": row.verb,
            "state": row.state,
            "machine": owner.name,
            "sentence": f"machine {owner.name} is away: the command waits for it",
        },
        202,
    )


async def _arguments(asked: SessionRequest, forwarding: Forwarding) -> Mapping[str, Any]:
    raw = await forwarding.body()
    if raw.strip() and asked.request.content_type != "application/json":
        raise InvalidRequest("cannot read the body: it must be application/json", field="body")
    return read_body(parse_object(raw) if raw.strip() else {}, asked.route.body or ())


def _key(asked: SessionRequest) -> str:
    """Of one client and one session; a request without a key is a command of its own."""
    given = asked.request.headers.get("Idempotency-Key")
    if given is None:
        return uuid.uuid4().hex
    if not 1 <= len(given) <= 255:
        raise InvalidRequest(
            "cannot use this Idempotency-Key: 1 to 255 characters", field="Idempotency-Key"
        )
    return hashlib.sha256("\0".join((asked.caller.name, asked.id, given)).encode()).hexdigest()


def _away(asked: SessionRequest, owner: MachineRow, cause: str) -> TryLater:
    seconds = asked.face.directory.renewed_seconds_ago(owner)
    since = (
        "never renewed its lease" if seconds is None else f"renewed its lease {seconds:.0f} s ago"
    )
    return TryLater(
        f"cannot do this for {asked.id}: its machine {owner.name} is away ({since}; {cause})",
        code="owner_away",
    )
