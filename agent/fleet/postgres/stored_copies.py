"""What the fleet's database keeps of a session's files: a whole copy, the changes since, and what
travels beside it."""

from collections.abc import Collection, Mapping, Sequence

from agent.fleet.coordinator import Member, Stored, StoredPiece
from agent.fleet.postgres import documents
from agent.fleet.postgres.database import Database
from agent.fleet.postgres.tables import NUMBERED


class StoredCopies:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._do = database.do

    async def store_copy(
        self, member: Member, session: str, epoch: int, packed: bytes, number: int | None = None
    ) -> bool:
        """False: not written, as the session has a newer epoch, or its stored copy that number."""
        copy = (session, epoch, packed)
        return bool(
            await self._do(
                "store_copy", member.id, member.epoch, *copy, newer={NUMBERED: (number,)}
            )
        )

    async def stored(self, session: str) -> Stored | None:
        rows = await self._database.ask(lambda version: documents.copy_of(version, session))
        if not rows:
            return None
        changes = tuple((number, after, bytes(it)) for *_, number, after, it in rows if number)
        return Stored(rows[0][0], bytes(rows[0][1]), rows[0][2], changes)

    async def store_change(
        self, member: Member, session: str, epoch: int, packed: bytes, *, number: int, after: int
    ) -> bool | None:
        """None: a whole copy is wanted. False: the session has another owner."""
        me = (member.id, member.epoch)
        found = await self._database.ask(
            lambda version: documents.change(version, *me, session, epoch, packed, number, after)
        )
        stored: bool | None = found[0][0]
        return stored

    async def copies_lack(self, member: Member, numbers: Mapping[str, int]) -> None:
        """Of sessions of this machine: no newer copy is stored for long. By the last number that
        was begun; told until a copy is stored, or an operator accepts the old one."""
        told = (list(numbers), list(numbers.values()))
        await self._database.ask(
            lambda version: documents.copies_lack(version, member.id, member.epoch, *told)
        )

    async def lacking(self) -> Mapping[str, float]:
        """Sessions whose owner said so, and for how many seconds it is so."""
        return dict(await self._database.ask(documents.lacking))

    async def accept_copy(
        self, member: Member, session: str, owner: int, its_renewals: int
    ) -> bool:
        """An operator lets it start elsewhere. False: its copy lacks nothing, or its machine
        renewed its lease after that number."""
        asked = (session, owner, its_renewals)
        return bool(await self._do("accept_copy", member.id, member.epoch, *asked))

    async def store_baggage(
        self,
        member: Member,
        session: str,
        epoch: int,
        number: int,
        *,
        pieces: Mapping[str, bytes],
        kept: Collection[str] | None,
    ) -> bool | None:
        """`kept`: all names from now on; None: more pieces are to come. False: the session has
        another owner; None: a later number is stored."""
        written = (list(pieces), list(pieces.values()), None if kept is None else list(kept))
        given = (member.id, member.epoch, session, epoch, number, *written)
        stored: bool | None = await self._do("store_baggage", *given)
        return stored

    async def baggage(self, session: str) -> Sequence[StoredPiece] | None:
        """What is stored, without its content. None: older tables have no place for it."""
        found = await self._database.ask(lambda version: documents.baggage_of(version, session))
        return None if found == [(None,)] else [StoredPiece(*row) for row in found]

    async def piece(self, session: str, name: str) -> bytes | None:
        rows = await self._database.rows(documents.PIECE, session, name)
        return bytes(rows[0][0]) if rows else None
