"""Pairing at a desk: the operator invites, the desk sends the session and asks for its status."""

from ipaddress import ip_address
from typing import cast

from agent.api.handlers.archive_body import archive_of
from agent.api.http.auth import Right
from agent.api.http.call import Call, Json, Route
from agent.api.http.connection import Connection
from agent.config import split_address
from agent.config.sections import ApiSection
from agent.core.event_json import wall_text
from agent.core.invitation_line import HEADER, key_text
from agent.core.model import ID_PATTERN
from agent.errors import Refused, Unauthorized
from agent.supervise.copies.archives import Archives
from agent.wings.desk.invites import Invites

ONE = f"/api/instance/{{id:{ID_PATTERN}}}"


async def invite(call: Call) -> Json:
    url = _url_of(call.parts.section)
    made, expires = await _invites(call).invite(call.id, url)
    return {
        "id": made.id,
        "line": made.line(),
        "url": url,
        "public_key": key_text(made.public_key),
        "fingerprint": made.fingerprint,
        "expires": wall_text(expires),
    }


async def revoke(call: Call) -> Json:
    revoked = await _invites(call).revoke(call.id)
    return {"id": call.id, "revoked": revoked}


async def take(call: Call) -> Json:
    """The header's invitation is checked before the body is read, the token that is sealed in its
    first bytes before the rest is."""
    await _check(call, used=False)
    pieces, connection = archive_of(call), call.request.protocol
    assert isinstance(connection, Connection)
    connection.wait_for_proof()
    imported = await _archives(call).import_invited(pieces, call.id, connection.proven)
    return {"id": call.id, "sha256": imported.sha256}


async def show(call: Call) -> Json:
    await _check(call, used=True)
    view = call.supervisor.view(call.id)
    return {
        "id": call.id,
        "used": await _invites(call).is_used(call.id),
        "connection_status": view.status,
        "reason": view.verdict.reason,
        "sentence": view.verdict.sentence,
    }


async def _check(call: Call, *, used: bool) -> None:
    """A right one passes whatever others of its address sent: a proxy is one address for all."""
    connection, wrong = call.request.protocol, _invites(call).wrong
    address = (connection.address if isinstance(connection, Connection) else None) or "this machine"
    door = call.request.headers.get(HEADER, "")
    try:
        await _invites(call).check_door(call.id, door, used=used)
    except Unauthorized:
        wrong.check(address)
        wrong.note(address)
        raise


def _invites(call: Call) -> Invites:
    return cast(Invites, _archives(call).invites)


def _archives(call: Call) -> Archives:
    if call.supervisor.moving is None:
        raise Refused(
            "cannot pair at a desk: this agent takes no archives of sessions", code="no_archives"
        )
    return call.supervisor.moving


def _url_of(section: ApiSection) -> str:
    """The URL at which a desk reaches this interface; "" without one."""
    if section.public_url or not section.listen:
        return section.public_url
    host, _ = split_address(section.listen)
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return "" if host == "localhost" else f"http://{section.listen}"
    own = address.is_loopback or address.is_unspecified
    return "" if own else f"http://{section.listen}"


ROUTES = (
    Route(
        "POST",
        f"{ONE}/invite",
        Right.OPERATE,
        invite,
        "Invite a desk to pair an instance; the answer is shown this once",
        (),
        answers=(201,),
    ),
    Route("DELETE", f"{ONE}/invite", Right.OPERATE, revoke, "Revoke an unused invitation", ()),
    Route(
        "POST",
        f"{ONE}/pairing",
        Right.OPEN,
        take,
        "The session that a desk paired, sealed for this agent: the body is the archive",
        answers=(201,),
        invite=True,
        takes_archive=True,
    ),
    Route(
        "GET",
        f"{ONE}/pairing",
        Right.OPEN,
        show,
        "How the instance is that a desk paired",
        invite=True,
    ),
)
