"""Invitations to pair an instance at a desk: one token each, kept as a hash, good for one upload.

The token travels sealed inside the upload. The desk sends its `door` openly, a hash that opens the
route and unseals nothing; the store keeps a hash of the door.
"""

import asyncio
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from agent.api.http.wrong_tries import WrongTries
from agent.core.invitation_line import Invitation
from agent.core.model import Category, InstanceId, JournalEntry
from agent.errors import Forbidden, InvalidRequest, Refused, Unauthorized
from agent.store.database import Store
from agent.supervise.copies.invitations import Candidate
from agent.vault.archives.seal import Sealed, make_key
from agent.vault.copies.manifest import Manifest

ENGINE = "web"
"""Engines whose session is a browser's profile, which a desk can make."""
_FACT = "invite/"
_NO_HASH = "0" * 64


@dataclass(frozen=True, slots=True)
class _Kept:
    hash: str
    created_wall: float
    """Tells a later instance of the same name apart."""
    expires_wall: float
    used_wall: float = 0.0


@dataclass(slots=True, eq=False, repr=False)
class Invites:
    """`find` raises NotFound for an unknown id."""

    store: Store
    key_file: Path
    find: Callable[[InstanceId], Candidate]
    seconds: Callable[[], float]
    wall: Callable[[], float] = time.time
    wrong: WrongTries = field(default_factory=lambda: WrongTries("an invitation"))
    """The addresses that came with another token."""
    _known: dict[InstanceId, _Kept] = field(default_factory=dict)
    """What the store keeps: a check of a door waits for it once."""

    async def invite(self, id: InstanceId, url: str) -> tuple[Invitation, float]:
        """A new invitation and the time of its end; it voids the one before."""
        candidate = self.find(id)
        _refuse_paired(candidate)
        if candidate.instance.engine != ENGINE:
            raise Refused(
                f"cannot pair {id} at a desk: its engine is {candidate.instance.engine}, a desk"
                f" pairs engine {ENGINE}",
                code="not_supported",
            )
        public = await asyncio.to_thread(make_key, self.key_file)
        made = Invitation(id, public, secrets.token_urlsafe(32), url)
        expires = self.wall() + self.seconds()
        kept = _Kept(_hash(made.door), candidate.instance.created_wall, expires)
        await self._write(id, kept)
        await self._say(id, "invited", f"invited a desk to pair it, for {self.seconds():g} s")
        return made, expires

    async def revoke(self, id: InstanceId) -> bool:
        """Whether there was an unused invitation."""
        self.find(id)
        kept = await self._read(id)
        if kept is None or kept.used_wall:
            return False
        await self.store.forget_facts([_FACT + id])
        self._known.pop(id, None)
        await self._say(id, "invite_revoked", "its invitation to pair at a desk was revoked")
        return True

    async def check_door(self, id: InstanceId, door: str, *, used: bool = False) -> None:
        """Unauthorized for a wrong door; Forbidden for one that expired or was used. `used`: the
        desk that used it may still ask for the result."""
        kept = await self._read(id)
        same = hmac.compare_digest(_hash(door), kept.hash if kept else _NO_HASH)
        if kept is None or not same or not self._is_of_present(id, kept):
            raise Unauthorized(
                "cannot accept this invitation: it is unknown or revoked", code="invite_unknown"
            )
        if kept.used_wall and not used:
            raise Forbidden(
                "cannot accept this invitation: it was used already", code="invite_used"
            )
        if self.wall() > max(kept.expires_wall, kept.used_wall + self.seconds() * bool(used)):
            raise Forbidden("cannot accept this invitation: it has expired", code="invite_expired")

    async def check_sealed(self, id: InstanceId, sealed: Sealed) -> None:
        if sealed.id != id:
            raise Refused(
                f"cannot import {id}: the session was sealed for instance {sealed.id}",
                code="other_instance",
            )
        await self.check_door(id, Invitation(id, b"", sealed.token).door)

    def refuse_unfit(self, id: InstanceId, manifest: Manifest) -> None:
        candidate = self.find(id)
        _refuse_paired(candidate)
        if manifest.engine != candidate.instance.engine:
            raise Refused(
                f"cannot import {id}: its engine is {candidate.instance.engine}, the session's"
                f" {manifest.engine}",
                code="other_engine",
            )
        from agent.engines.web.files import NOTE, PROFILE

        # The engine would use its other files: `pages` has documents that it serves.
        listing = manifest.listing
        paths = [*listing.folders, *(file.path for file in listing.files)]
        odd = next((path for path in paths if path.partition("/")[0] not in (PROFILE, NOTE)), None)
        if odd is not None or not manifest.paired:
            cause = "it is not paired" if odd is None else f"a desk sends no {odd!r:.80}"
            raise InvalidRequest(f"cannot import {id}: {cause}", field="archive", code="not_good")

    async def is_used(self, id: InstanceId) -> bool:
        kept = await self._read(id)
        return kept is not None and bool(kept.used_wall)

    async def use(self, id: InstanceId, sha256: str) -> None:
        kept = await self._read(id)
        if kept is not None:
            await self._write(id, replace(kept, used_wall=self.wall()))
        await self._say(id, "invite_used", f"a desk paired it, SHA-256 of the upload {sha256}")

    async def _read(self, id: InstanceId) -> _Kept | None:
        if id not in self._known and (text := await self.store.get_fact(_FACT + id)):
            self._known.setdefault(id, _Kept(**json.loads(text)))
        return self._known.get(id)

    async def _write(self, id: InstanceId, kept: _Kept) -> None:
        await self.store.put_fact(_FACT + id, json.dumps(asdict(kept)))
        self._known[id] = kept

    def _is_of_present(self, id: InstanceId, kept: _Kept) -> bool:
        return self.find(id).instance.created_wall == kept.created_wall

    async def _say(self, id: InstanceId, kind: str, sentence: str) -> None:
        await self.store.append(JournalEntry(kind, sentence, Category.SESSION, id, self.wall(), {}))


def _refuse_paired(candidate: Candidate) -> None:
    if candidate.paired:
        raise Refused(
            f"cannot pair {candidate.instance.id} at a desk: it is paired already",
            code="already_paired",
        )


def _hash(door: str) -> str:
    return hashlib.sha256(door.encode("utf-8", "surrogateescape")).hexdigest()
