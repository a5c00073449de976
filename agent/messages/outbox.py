"""outbox.db of the agent: each message that was accepted, until hours after its end.

A write that returned is on the disk; writes that come together share one commit. The file is never
put back from a copy: where it is one all the same, what may have been sent is not sent again.

Its times are Unix times of a clock that is never set (`Outbox.now`): a message has the same time
however the machine's clock is set.
"""

import hashlib
import json
import secrets
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from sqlite_utils import Database

from agent import clock, errors
from agent.core import model, session
from agent.messages.database import Form, open_file
from agent.messages.outcomes import WAITING, State, after_ack
from agent.store.connect import explain, opened
from agent.store.writer import Writer

NAME = "outbox.db"
CUT = 64
"""Characters that an event has of WhatsApp's id."""
# In a query that one message answers, +instance keeps SQLite from reading all of the instance.
_WAITS = "state in ('accepted', 'sending')"
_FOLLOWED = "state in ('accepted', 'sending', 'sent', 'delivered')"
LOST = "a copy of outbox.db was put back while it was sent: check whether it went out"


@dataclass(frozen=True, slots=True)
class OutMessage:
    """One row without its content, which the sender alone reads."""

    number: int
    """Messages of a lane leave in this order."""
    id: str
    instance: model.InstanceId
    born: float
    """Unix time at which its instance was made: another one of that name sends no such row."""
    account: str
    """The session's number when the message was accepted; "" = the session was not paired."""
    lane: str
    """The chat, by one of its names."""
    chat: str
    type: str
    state: State
    accepted_wall: float
    changed_wall: float
    expires_wall: float
    repeats: str = field(default="", repr=False)
    """Hash of the Idempotency-Key; "" = there is none, or the key may be used again."""
    digest: str = field(default="", repr=False)
    """Hash of the request with that key."""
    message_id: str = ""
    """WhatsApp's id of the message; "" = not known yet."""
    tries: int = 0
    begun_wall: float = 0.0
    """Unix time of the last try; 0 = none was made."""
    reason: str = ""
    sentence: str = ""
    """Why the message waits, or how it ended."""
    not_before_wall: float = 0.0
    """Unix time of the next try; 0 = as soon as one can be."""
    file: str = ""
    """Name of the media file; "" = the content holds the file, or there is none."""
    size: int = 0
    """Bytes of content and file."""

    def show(self, waits: str, set_by: float) -> dict[str, Any]:
        """As the API answers; `waits`: why its session sends nothing now; `set_by`: seconds that
        the machine's clock is ahead of the outbox's."""
        walls = (self.accepted_wall, self.changed_wall, self.expires_wall, self.not_before_wall)
        accepted, changed, expires, next_try = (session.wall_text(wall + set_by) for wall in walls)
        waiting = self.state in WAITING
        return {
            "id": self.id,
            "instance": self.instance,
            "to": self.chat,
            "type": self.type,
            "state": self.state.value,
            "message_id": self.message_id or None,
            "reason": self.reason,
            "sentence": (waits if waiting else "") or self.sentence,
            "tries": self.tries,
            "accepted": accepted,
            "changed": changed,
            "expires": expires if waiting else None,
            "next_try": next_try if waiting and self.not_before_wall else None,
        }


class Mark(NamedTuple):
    """The mark of an outbox. The agent's database has the one of the outbox that it had last."""

    id: str
    times: int
    """Rises with each opening and `tidy`: a copy from before has a lower one."""


Ack = tuple[str, str]
"""WhatsApp's id of a message, which may be cut, and a word."""

COLUMNS = ", ".join(each.name for each in fields(OutMessage))
FORM = Form(
    0x57414F42,  # WAOB
    1,
    f"""
create table messages (
    number integer primary key autoincrement, id text not null unique,
    {" not null, ".join(COLUMNS.split(", ")[2:])} not null, content text not null
);
create index messages_of_instance on messages (instance, number);
create unique index messages_by_key on messages (repeats) where repeats <> '';
create index messages_by_whatsapp on messages (message_id) where message_id <> '';
create index messages_waiting on messages (expires_wall) where {_WAITS};
create index messages_ended on messages (changed_wall) where not {_WAITS};
create index messages_followed on messages (instance) where {_FOLLOWED};
create table cursors (instance text primary key, cursor integer not null);
create table opened (id text, times integer, boot text, ahead real);
insert into opened values ('', 0, '', 0);
""",
    "integrity_check",
)


def hash_of(whose: Sequence[str], born: float) -> str:
    """Return the hash of an Idempotency-Key, which the file does not reveal; another one for
    another instance."""
    return hashlib.sha256("\0".join((*whose, str(born))).encode()).hexdigest()


class Outbox:
    def __init__(self, writer: Writer, damage: str) -> None:
        self.writer = writer
        self.fits: Callable[[OutMessage, int, int], object] = lambda *_: None
        """Raises where there is no room for a new row; asked in a thread, of no repeat. Also given:
        how many rows of its session wait beyond `told`, and the bytes of all that do."""
        self.told = 0
        """Number of the newest row that waits and that the owner of `fits` counts by itself."""
        self.mark = Mark("", 0)
        self.opened_so = damage
        """A sentence on what a person must know of how the file was opened."""
        self.ahead = 0.0
        """Seconds from the boot clock to this one."""
        self._early: deque[tuple[model.InstanceId, Ack]] = deque(maxlen=1000)
        """Acknowledgements of messages that are not known; a try under way may have sent them."""

    @classmethod
    async def open(cls, path: Path) -> "Outbox":
        """Open the outbox. The caller calls `begin` next, and closes the outbox."""
        found: list[str] = []

        def connect() -> Database:
            try:
                db, damage = open_file(path, FORM)
                found.append(damage)
            except (sqlite3.Error, OSError) as error:
                raise explain("open", path, error) from error
            db.execute("pragma secure_delete = on").fetchall()
            return opened(db)

        return cls(await Writer.open(path, connect), found[0])

    def now(self) -> float:
        return clock.boot_now() + self.ahead

    @property
    def set_by(self) -> float:
        """Seconds that the machine's clock is ahead of this one."""
        return time.time() - self.now()

    async def begin(self, known: Mark | None) -> None:
        """Compare the marks. `known`: of the file that this agent had last; None = it had none."""

        def write(db: Database) -> tuple[Mark, str, float]:
            id, times, boot, ahead = db.execute("select * from opened").fetchone()
            # With an id of its own no copy of an earlier file is ever taken for this one.
            new = not id or (known is not None and (id != known.id or times < known.times))
            mark = Mark(secrets.token_hex(8) if new else id, times + 1)
            if boot != clock.boot_id():  # only the wall's clock tells how long the machine was off
                newest = db.execute("select max(changed_wall) from messages").fetchone()[0] or 0.0
                ahead = max(time.time(), newest) - clock.boot_now()
            row = "update opened set id = ?, times = ?, boot = ?, ahead = ?"
            db.execute(row, [*mark, clock.boot_id(), ahead])
            # Else a damaged one could not be read, nor the others of its session.
            lost = "update messages set state = 'unknown', content = '' where state not in"
            db.execute(f"{lost} {tuple(map(str, State))}")
            return mark, id, ahead

        self.mark, found, self.ahead = await self.writer.write(write)
        lost = "messages that waited in it are not sent"
        if self.opened_so:
            self.opened_so += f"; the {lost}"
        elif known and not found:
            self.opened_so = f"{NAME} was removed; {lost}"
        elif known and self.mark.id != known.id:
            what = "an older copy" if found == known.id else "another agent's, or an old copy"
            copy = f"{NAME} is {what}; messages that this agent had taken since"
            self.opened_so = f"{copy} are not sent, and those whose sending had begun are unknown"
            for row in [it for it in await self.waiting() if it.begun_wall > 0]:
                await self.change(row.number, State.UNKNOWN, reason="unknown", sentence=LOST)
            # A try since then may have sent it: an engine that cannot repeat it does not.
            perhaps = "update messages set state = 'sending' where state = 'accepted'"
            await self.writer.write(lambda db: db.execute(perhaps))

    async def take(
        self, new: OutMessage, content: str, committed: Callable[[OutMessage, bool], None]
    ) -> tuple[OutMessage, bool]:
        """The row, and True if an earlier request with its key made it. `committed` is called in
        the order of the numbers, before another write."""

        def write(db: Database) -> tuple[OutMessage, bool]:
            rows = "select {} from messages where repeats = ? and repeats <> ''"
            for found in _find(db, rows, new.repeats):
                if found.digest == new.digest:
                    return found, True
                why = "cannot use this Idempotency-Key again: it was sent with another request"
                raise errors.Refused(why, field="Idempotency-Key", code="idempotency_key_reused")
            untold = "select count(*) filter (where instance = ?), coalesce(sum(size), 0)"
            untold = f"{untold} from messages where number > ? and {_WAITS}"
            self.fits(new, *db.execute(untold, [new.instance, self.told]).fetchone())
            row = {**asdict(new), "number": None, "content": content}
            return replace(new, number=_insert(db, row)), False

        return await self.writer.write(write, lambda taken: committed(*taken))

    async def take_over(self, rows: Sequence[Mapping[str, Any]], old: str, since: float) -> None:
        """Take rows of another machine's outbox, with their content. `old`: the instance whose
        rows here go first, but for others that wait and were accepted `since`, as one may just
        have been; "" = none goes, and one that is here stays as it is."""
        gone = f"delete from messages where instance = ? and not ({_WAITS} and accepted_wall > ?)"

        def write(db: Database) -> None:
            db.execute(gone, [old, since])
            for row in rows:
                _insert(db, row, "or replace" if old else "or ignore")

        await self.writer.write(write)

    async def waiting(self) -> list[OutMessage]:
        return await self._rows(f"select {{}} from messages where {_WAITS} order by number")

    async def content(self, number: int) -> dict[str, Any] | None:
        """Return a message's content; None: it ended meanwhile. Refused: the content is damaged."""
        row = "select content from messages where number = ?"
        found = await self.writer.read(lambda db: db.execute(row, [number]).fetchone())
        try:
            content: dict[str, Any] | None = json.loads(found[0]) if found and found[0] else None
        except ValueError as error:
            why = f"cannot send it: {NAME} was damaged, and what it says cannot be read"
            raise errors.Refused(why, code="file_lost") from error
        return content

    async def find(self, instance: model.InstanceId, id: str) -> OutMessage | None:
        """Find a message by its id in the outbox, or by WhatsApp's."""
        either = "(id = ?2 or (message_id = ?2 and message_id <> ''))"
        rows = f"select {{}} from messages where +instance = ?1 and {either} limit 1"
        return next(iter(await self._rows(rows, instance, id)), None)

    async def page(self, id: str, state: str, before: int, limit: int) -> list[OutMessage]:
        """Return rows, newest first; `before`: the number above them, or 0."""
        rows = "select {} from messages where instance = ?1 and (?2 = '' or state = ?2)"
        page = f"{rows} and (?3 = 0 or number < ?3) order by number desc limit ?4"
        return await self._rows(page, id, state, before, limit)

    async def last_begun(self, instance: model.InstanceId) -> float:
        """Unix time of the session's last try; 0 = none is known."""
        row = "select max(begun_wall) from messages where instance = ?"
        found = await self.writer.read(lambda db: db.execute(row, [instance]).fetchone())
        return float(found[0] or 0.0)

    async def change(self, number: int, state: State, **columns: Any) -> None:
        """Change a message that waits. Its content is wiped when it ends."""
        columns |= {"state": state, "changed_wall": self.now()}
        columns |= {} if state in WAITING else {"content": "", "file": "", "size": 0}
        names = ", ".join(f"{name} = ?" for name in columns)
        row = f"update messages set {names} where number = ? and {_WAITS}"
        sent = str(columns.get("message_id", ""))

        def write(db: Database) -> None:
            db.execute(row, [*columns.values(), number])
            for instance, ack in self._early if sent else ():
                if ack[0] in (sent, sent[:CUT]):
                    _note_ack(db, instance, ack, self.now())

        await self.writer.write(write)

    async def note_acks(
        self, instance: model.InstanceId, acks: Sequence[Ack], cursor: int | None = None
    ) -> None:
        """Note acknowledgements; `cursor`: that of the last record read for them."""

        def write(db: Database) -> None:
            if cursor is not None:
                db.execute("insert or replace into cursors values (?, ?)", [instance, cursor])
            for ack in acks:
                if ack[0] and not _note_ack(db, instance, ack, self.now()):
                    self._early.append((instance, ack))

        await self.writer.write(write)

    async def followed(self) -> dict[model.InstanceId, int]:
        """The sessions with messages that acknowledgements may move, and up to where these were
        read."""
        rows = "select distinct instance, coalesce(cursor, 0) from messages left join cursors"
        rows = f"{rows} using (instance) where {_FOLLOWED}"
        return await self.writer.read(lambda db: dict(db.execute(rows).fetchall()))

    async def forget_instance(self, id: model.InstanceId, born: float = 0.0) -> list[OutMessage]:
        """Delete the rows of an instance, but for those of the instance of that name that was made
        at `born`. Return those that waited."""
        mine = "where instance = ? and born <> ?"

        def write(db: Database) -> list[OutMessage]:
            waited = _find(db, f"select {{}} from messages {mine} and {_WAITS}", id, born)
            db.execute(f"delete from messages {mine}", [id, born])
            db.execute("delete from cursors where instance = ?", [id])
            return waited

        return await self.writer.write(write)

    async def tidy(self) -> None:
        """Rows that ended long ago go, what was wiped goes from the journal as well, and the mark
        is another one: a copy from before has a lower one."""
        due = self.now() - 72 * 3600.0

        def write(db: Database) -> Mark:
            db.execute(f"delete from messages where not {_WAITS} and changed_wall < ?", [due])
            mark = "update opened set times = times + 1 returning id, times"
            return Mark(*db.execute(mark).fetchone())

        self.mark = await self.writer.write(write)
        await self.writer.read(lambda db: db.execute("pragma wal_checkpoint(truncate)").fetchall())

    async def _rows(self, sql: str, *given: Any) -> list[OutMessage]:
        return await self.writer.read(lambda db: _find(db, sql, *given))


def _insert(db: Database, row: Mapping[str, Any], how: str = "") -> int:
    into = f"insert {how} into messages ({', '.join(row)}) values ({', '.join('?' * len(row))})"
    return int(db.execute(into, [*row.values()]).lastrowid or 0)


def _find(db: Database, sql: str, *given: Any) -> list[OutMessage]:
    made = (OutMessage(*row) for row in db.execute(sql.format(COLUMNS), list(given)))
    return [replace(each, state=State(each.state)) for each in made]


def _note_ack(db: Database, instance: model.InstanceId, ack: Ack, now: float) -> bool:
    """True if the message is known."""
    id, word = ack
    last = id + ("\x7f" if len(id) == CUT else "")
    rows = "select {} from messages where message_id between ? and ? and message_id <> ''"
    found = _find(db, f"{rows} and +instance = ?", id, last, instance)
    for row in found:
        state = after_ack(row.state, word)
        why = ("refused", "WhatsApp refused it afterwards") if state is State.FAILED else ("", "")
        if state is not row.state:
            change = "state = ?, changed_wall = ?, reason = ?, sentence = ? where number = ?"
            db.execute(f"update messages set {change}", [state, now, *why, row.number])
    return bool(found)
