"""What the outbox's file has beside its messages: its own mark, and of each session the account
that its messages are for, when it sent last, and whom it knows, as keyed hashes. An older program
that opens the file leaves these tables alone."""

import secrets
from collections.abc import Collection
from dataclasses import dataclass

from sqlite_utils import Database

from agent.core.model import InstanceId
from agent.store.writer import Writer
from agent.wings.messages.out.session.pace import Moment, Used

MOST_PEOPLE = 100_000
"""Of one session, on the disk; the oldest go."""

TABLES = """
create table if not exists mark (id text not null, opened integer not null);
create table if not exists accounts (
    instance text primary key, born real not null, account text not null
);
create table if not exists paces (
    instance text primary key, boot text not null, at real not null, wall real not null,
    pause real not null
);
create table if not exists people (
    instance text not null, person integer not null, first integer not null,
    boot text not null, at real not null, wall real not null,
    primary key (instance, person)
) without rowid;
create index if not exists people_first on people (instance, wall) where first = 1;
create table if not exists people_read (instance text primary key, cursor integer not null);
"""


@dataclass(frozen=True, slots=True)
class Mark:
    id: str
    opened: int
    """How often an agent has opened it: a copy from before has a lower number."""
    fresh: bool = False
    """This agent made it."""


class Ledger:
    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def open_mark(self) -> Mark:
        """The file's mark, with this opening."""
        return await self._writer.write(_open_mark)

    async def account(self, instance: InstanceId, born: float) -> str:
        """ "" = none is known."""
        row = "select account from accounts where instance = ? and born = ?"
        return await self._writer.read(
            lambda db: next((str(found[0]) for found in db.execute(row, [instance, born])), "")
        )

    async def put_account(self, instance: InstanceId, born: float, account: str) -> None:
        row = "insert or replace into accounts values (?, ?, ?)"
        await self._writer.write(lambda db: db.execute(row, [instance, born, account]))

    async def used(self, instance: InstanceId) -> Used | None:
        """The last message that a session sent at a pace."""
        row = "select boot, at, wall, pause from paces where instance = ?"
        found = await self._writer.read(lambda db: db.execute(row, [instance]).fetchone())
        return None if found is None else Used(Moment(*found[:3]), found[3])

    async def firsts(self, instance: InstanceId, most: int) -> list[Moment]:
        """When it wrote to new people, the newest ones."""
        rows = (
            "select boot, at, wall from people where instance = ? and first = 1"
            " order by wall desc limit ?"
        )
        found = await self._writer.read(lambda db: db.execute(rows, [instance, most]).fetchall())
        return [Moment(*row) for row in found]

    async def settle(self, instance: InstanceId, now: Moment) -> None:
        """After a boot on which the wall's clock is behind: what lies ahead of it is now."""
        behind = "where instance = ? and boot <> ? and wall > ?"
        given = [now.boot, now.at, now.wall, instance, now.boot, now.wall]

        def write(db: Database) -> None:
            for table in ("paces", "people"):
                db.execute(f"update {table} set boot = ?, at = ?, wall = ? {behind}", given)

        await self._writer.write(write)

    async def knows(self, instance: InstanceId, person: int) -> bool:
        row = "select 1 from people where instance = ? and person = ?"
        found = await self._writer.read(lambda db: db.execute(row, [instance, person]).fetchone())
        return found is not None

    async def use(self, instance: InstanceId, used: Used, first: int | None) -> None:
        """A message goes now; `first`: to this new person."""
        moment = used.moment
        when = [moment.boot, moment.at, moment.wall]

        def write(db: Database) -> None:
            row = "insert or replace into paces values (?, ?, ?, ?, ?)"
            db.execute(row, [instance, *when, used.pause])
            if first is not None:
                row = "insert or ignore into people values (?, ?, 1, ?, ?, ?)"
                db.execute(row, [instance, first, *when])

        await self._writer.write(write)

    async def meet(
        self, instance: InstanceId, people: Collection[int], cursor: int, now: Moment
    ) -> None:
        """These are known from now on; all records up to the cursor were read."""

        def write(db: Database) -> None:
            row = "insert or ignore into people values (?, ?, 0, ?, ?, ?)"
            when = [now.boot, now.at, now.wall]
            db.conn.executemany(row, [[instance, person, *when] for person in people])
            over = (
                "delete from people where instance = ? and person in (select person from people"
                " where instance = ? and first = 0 order by wall desc limit -1 offset ?)"
            )
            db.execute(over, [instance, instance, MOST_PEOPLE])
            db.execute("insert or replace into people_read values (?, ?)", [instance, cursor])

        await self._writer.write(write)

    async def read_up_to(self, instance: InstanceId) -> int | None:
        """None: nobody has read what arrived for whom it knows."""
        row = "select cursor from people_read where instance = ?"
        found = await self._writer.read(lambda db: db.execute(row, [instance]).fetchone())
        return None if found is None else int(found[0])

    async def written_to(self, instance: InstanceId) -> list[str]:
        """The chats whose messages are still shown as sent."""
        rows = (
            "select distinct chat from messages where instance = ?"
            " and state in ('sent', 'delivered', 'read', 'played')"
        )
        found = await self._writer.read(lambda db: db.execute(rows, [instance]).fetchall())
        return [str(row[0]) for row in found]

    async def key(self) -> bytes:
        """Of the hashes of people: another one in each file."""
        row = await self._writer.read(lambda db: db.execute("select id from mark").fetchone())
        return str(row[0] if row else "").encode()


def forget(db: Database, instance: InstanceId) -> None:
    for table in ("accounts", "paces", "people", "people_read"):
        db.execute(f"delete from {table} where instance = ?", [instance])


def _open_mark(db: Database) -> Mark:
    row = db.execute("select id, opened from mark").fetchone()
    if row is None:
        db.execute("insert into mark values (?, 1)", [id := secrets.token_hex(8)])
        return Mark(id, 1, fresh=True)
    db.execute("update mark set opened = opened + 1")
    return Mark(str(row[0]), int(row[1]) + 1)
