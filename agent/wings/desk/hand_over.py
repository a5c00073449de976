"""Gives the finished session to the agent that invited: sealed, over HTTP, acknowledged."""

import hashlib
import http.client
import json
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from agent.core.invitation_line import HEADER, Invitation
from agent.core.reasons import reason_of
from agent.engines.web.profile.notes import read_note
from agent.errors import AgentUnreachable, InvalidRequest, Refused, TryLater, WaError
from agent.vault.archives.pack import pack_session
from agent.vault.archives.seal import Sealed, Sealing

_TRIES = (0.0, 2.0, 5.0, 10.0)
"""Seconds before each try."""
_SILENCE = 120.0
_LOOK_EVERY = 1.0
_SETTLED = 5.0
"""Seconds that a hopeless status must last: right after a start it may be of the last run."""


class ServerSaidNo(WaError):
    """The agent's own error."""

    def __init__(self, status: int, raw: Mapping[str, Any]) -> None:
        super().__init__(str(raw.get("message", f"the agent answered {status}"))[:500])
        self.code = str(raw.get("error", "internal"))[:64]
        self.http = status
        self.exit_status = 75 if status == 503 else 4 if status < 500 else 1


def seal_session(
    session: Path, invitation: Invitation, out: IO[bytes], *, needs_passkey: bool = False
) -> None:
    """The session's folder as an archive that only the inviting agent can open."""
    sealing = Sealing(out, invitation.public_key, Sealed(invitation.id, invitation.token))
    pack_session(
        session,
        invitation.id,
        "web",
        sealing,
        wall=time.time(),
        account=read_note(session).account,
        needs_passkey=needs_passkey,
    )
    sealing.finish()


def look(invitation: Invitation) -> dict[str, Any]:
    """The instance as the agent sees it, and whether the invitation is used."""
    seen = _ask(invitation, "GET")
    if not isinstance(seen.get("used"), bool):
        raise AgentUnreachable(f"cannot use {invitation.url}: another program answers there")
    return seen


def look_before(invitation: Invitation) -> None:
    """Ask the agent for the invitation before the person links a phone in vain."""
    if look(invitation)["used"] is True:
        raise Refused("cannot pair: this invitation was used already", code="invite_used")


def send(invitation: Invitation, file: Path, say: Callable[[str], None]) -> None:
    """Returns when the agent has acknowledged the session, by its sum."""
    with file.open("rb") as body:
        sha256 = hashlib.file_digest(body, "sha256").hexdigest()
    for wait in _TRIES:
        time.sleep(wait)
        try:
            with file.open("rb") as body:
                taken = _ask(invitation, "POST", body, file.stat().st_size)
                if taken.get("sha256") != sha256:
                    raise AgentUnreachable("the agent did not acknowledge the session")
        except (AgentUnreachable, ServerSaidNo) as error:
            if isinstance(error, ServerSaidNo) and error.http != 503:
                raise
            last: WaError = error
        else:
            return
        # The answer may be lost while the session arrived.
        with suppress(AgentUnreachable, ServerSaidNo):
            if look(invitation)["used"] is True:
                return
        say(f"{last}; trying again")
    raise last


def wait_until_connected(invitation: Invitation, seconds: float) -> None:
    """Refused with the agent's reason when only a person can help; TryLater when it is late."""
    deadline = time.monotonic() + seconds
    hopeless_since: float | None = None
    while True:
        seen: dict[str, Any] = {}
        with suppress(AgentUnreachable):
            seen = look(invitation)
        if seen.get("connection_status") == "CONNECTED":
            return
        now, reason = time.monotonic(), str(seen.get("reason", ""))
        if not (reason and reason_of(reason).hopeless):
            hopeless_since = None
        elif hopeless_since is None:
            hopeless_since = now
        elif now - hopeless_since >= _SETTLED:
            raise Refused(
                f"{invitation.id} is not connected: {seen.get('sentence', '')}"[:500],
                code=reason[:64],
            )
        if now >= deadline:
            state = f"{seen.get('connection_status', 'unknown')}, {seen.get('sentence', '')}"
            raise TryLater(f"{invitation.id} is not connected yet: it is {state}"[:500])
        time.sleep(_LOOK_EVERY)


def _ask(
    invitation: Invitation, method: str, body: IO[bytes] | None = None, size: int = 0
) -> dict[str, Any]:
    parts = urlsplit(invitation.url)
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    if parts.scheme not in kinds or not parts.hostname:
        raise InvalidRequest(
            f"cannot use the address {invitation.url!r:.200} of the invitation", field="to"
        )
    headers = {HEADER: invitation.door, "Accept": "application/json"}
    if body is not None:
        headers |= {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
    with closing(kinds[parts.scheme](parts.netloc, timeout=_SILENCE)) as connection:
        try:
            # An agent that refuses does so before it has read all: its answer is what counts.
            with suppress(BrokenPipeError, ConnectionResetError):
                path = f"/api/instance/{invitation.id}/pairing"
                connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            status, raw = answer.status, answer.read(1 << 20)
        except (OSError, http.client.HTTPException) as error:
            cause = str(error) or type(error).__name__
            raise AgentUnreachable(
                f"cannot reach the agent at {invitation.url}: {cause}"
            ) from error
    try:
        content = json.loads(raw)
    except ValueError:
        content = None
    if not isinstance(content, dict) or status in range(202, 400):
        content, status = {}, 502  # another program answers there
    if status >= 400:
        raise ServerSaidNo(status, content)
    return content
