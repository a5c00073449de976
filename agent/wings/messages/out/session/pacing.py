"""Keeps a session to its pace: what it used is on the disk before the message goes."""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import blake2b

from agent.clock import boot_id, boot_now
from agent.core.event_json import wall_text
from agent.core.model import InstanceId
from agent.core.view import InstanceView
from agent.wings.messages.out.session.hold import Hold
from agent.wings.messages.out.session.ledger import Ledger
from agent.wings.messages.out.session.pace import Moment, Used, first_in, use
from agent.wings.messages.settings import PaceSettings

PACED = "paced"
NEW_PEOPLE = "new_people"
MOST_FIRSTS = 10_000
"""As many as [messages.pace] new_people may be."""


def moment_of(wall: float) -> Moment:
    return Moment(boot_id(), boot_now(), wall)


def person_in(chat: str, key: bytes) -> int | None:
    """What stands for the person of a chat; None: it is a group or a channel."""
    name, at, domain = chat.partition("@")
    if at and domain not in ("lid", "s.whatsapp.net", "c.us"):
        return None
    who = f"{name}@lid" if domain == "lid" else name
    digest = blake2b(who.encode(), digest_size=8, key=key[:64]).digest()
    return int.from_bytes(digest, "big", signed=True)


@dataclass(frozen=True, slots=True)
class PaceOf:
    """What all sessions' paces are made from."""

    rules: Callable[[], PaceSettings] = PaceSettings
    paired: Callable[[InstanceId], Awaitable[float | None]] | None = None
    """When a session was paired, as far as its history goes."""
    moment: Callable[[float], Moment] = moment_of


class Pacer:
    """Of one session, for as long as it has something to send."""

    def __init__(
        self,
        id: InstanceId,
        ledger: Ledger,
        of: PaceOf,
        wall: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._id = id
        self._ledger = ledger
        self._of = of
        self._wall = wall
        self._jitter = jitter
        self._used: Used | None = None
        self._firsts: deque[Moment] = deque(maxlen=MOST_FIRSTS)
        self._key: bytes | None = None
        """None: nothing was read yet."""
        self._paired_wall = 0.0

    @property
    def on(self) -> bool:
        rules = self._of.rules()
        return bool(rules.per_minute or rules.young_days or rules.new_people)

    async def load(self, view: InstanceView) -> None:
        """Once; StoreError: what was used is unknown, and nothing may go."""
        if self._key is not None or not self.on:
            return
        now = self._now()
        await self._ledger.settle(self._id, now)
        self._used = await self._ledger.used(self._id)
        self._firsts.extend(await self._ledger.firsts(self._id, MOST_FIRSTS))
        told = None if self._of.paired is None else await self._of.paired(self._id)
        self._paired_wall = max(told or 0.0, view.instance.created_wall)
        self._key = await self._ledger.key()

    def hold(self) -> Hold | None:
        """Until when no message of it may go."""
        if not self.on or self._used is None:
            return None
        now = self._now()
        if (left := self._used.left(now)) <= 0:
            return None
        until = now.wall + left
        return Hold(
            PACED,
            f"[messages.pace] lets one message go in {self._used.pause:.0f} s; the next one goes"
            f" at {wall_text(until)}",
            until,
        )

    async def take(self, chat: str) -> Hold | None:
        """Use the pace for a message to that chat, or say until when that chat waits."""
        if not self.on or self._key is None:
            return None
        rules, now = self._of.rules(), self._now()
        person = person_in(chat, self._key) if rules.new_people else None
        if person is not None and await self._ledger.knows(self._id, person):
            person = None
        if person is not None and (left := first_in(rules, self._firsts, now)) > 0:
            return _new_people(rules, now.wall + left)
        used = use(rules, now.wall - self._paired_wall, now, self._jitter())
        await self._ledger.use(self._id, used, person)
        self._used = used
        if person is not None:
            self._firsts.append(now)
        return None

    def _now(self) -> Moment:
        return self._of.moment(self._wall())


def _new_people(rules: PaceSettings, until: float) -> Hold:
    return Hold(
        NEW_PEOPLE,
        f"it is to a new person, and {rules.new_people} were written to within 24 hours"
        f" ([messages.pace] new_people); the next one may be at {wall_text(until)}",
        until,
    )
