"""Which sessions wait for which address, the looks at it, and the wake-ups when it is back.

One state per address, shared by all sessions that need it; looks only while one of them wants to
try. The rules are the core's (core.network.reach).
"""

import asyncio
import logging
import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from agent.clock import boot_now
from agent.core.model import Address, Category, ConnectionStatus, InstanceId, JournalEntry
from agent.core.network.reach import (
    NETWORK_CODES,
    UNREACHABLE,
    May,
    Reach,
    ReachPolicy,
    after_connection,
    after_failed_look,
    after_failure,
    after_good_look,
    after_route_change,
    ask_reach,
    begin_try,
    next_moment,
)
from agent.core.reasons import reason_of
from agent.engines.catalog import needed_address
from agent.host.base import Host
from agent.host.machine.routes import Routes
from agent.supervise.facts import Facts
from agent.supervise.reach.look import look

log = logging.getLogger(__name__)

LOOKS_AT_ONCE = 32
LOOKS_APART = 1.0
"""Seconds in which many that lose their connection share one look."""
ASK_AGAIN = 5.0
"""Seconds after which a session that waits asks by itself, if it is not woken."""


@dataclass(slots=True)
class Watched:
    address: Address
    reach: Reach = field(default_factory=Reach)
    waiting: dict[InstanceId, Facts] = field(default_factory=dict)
    looking: asyncio.Task[None] | None = None
    looked_at: float = float("-inf")


@dataclass(frozen=True, slots=True)
class ReachNews:
    """An address is away, or back."""

    back: bool
    sessions: tuple[Facts, ...]
    """Those that waited for it."""
    entry: JournalEntry | None
    """What the history says of it; None: it is not worth a line (the sandbox's own)."""


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class Reaching:
    """Asked before each login; hears of each failure and success. `wanted`: whether it should run,
    is not connected, and may try by itself."""

    policy: Callable[[], ReachPolicy]
    session_root: Path
    wake: Callable[[InstanceId], None]
    wanted: Callable[[Facts], bool]
    _all: dict[Address, Watched] = field(init=False, default_factory=dict)
    _of: dict[InstanceId, tuple[object, Watched | None]] = field(init=False, default_factory=dict)
    """By instance: the settings that this was found from, and what it needs."""
    _places: asyncio.Semaphore = field(
        init=False, default_factory=lambda: asyncio.Semaphore(LOOKS_AT_ONCE)
    )
    _changed: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    on_news: list[Callable[[ReachNews], None]] = field(init=False, default_factory=list)
    on_route: list[Callable[[], None]] = field(init=False, default_factory=list)
    """Called when the kernel's routes change."""

    def wait_reason(self, facts: Facts) -> str:
        """The wait reason while its address is away; "" while it can be reached, or is unknown."""
        watched = self._watched(facts)
        if watched is None or facts.asked.past_looks or not watched.reach.away:
            return ""
        watched.waiting[facts.id] = facts
        may = ask_reach(watched.reach, self.policy(), boot_now())
        return "" if may is May.TRY else UNREACHABLE

    def sentence(self, facts: Facts) -> str:
        watched = self._watched(facts)
        if watched is None or not watched.reach.away:
            return ""
        return f"cannot reach {watched.address.name}: {watched.reach.cause}"

    def back_at(self, facts: Facts) -> float | None:
        watched = self._watched(facts)
        return None if watched is None else watched.reach.back_at

    def way_out(self, facts: Facts) -> str:
        """The session's server and proxy, to be compared and not shown: it may hold a password."""
        watched = self._watched(facts)
        if watched is None or watched.address.url.startswith("file:"):
            return ""
        return f"{watched.address.url} {watched.address.proxy}"

    def away(self, facts: Facts) -> bool:
        watched = self._watched(facts)
        return watched is not None and watched.reach.away

    def ask(self, facts: Facts, now: float) -> float | None:
        """None: it may try now. A time: ask again then, or when it is woken."""
        watched = self._watched(facts)
        if watched is None or facts.asked.past_looks:
            return None
        match ask_reach(watched.reach, self.policy(), now):
            case May.TRY:
                watched.reach = begin_try(watched.reach, now)
                watched.waiting.pop(facts.id, None)
                return None
            case May.LOOK:
                watched.waiting[facts.id] = facts
                self._begin_look(watched)
                return now + self.policy().look_timeout + 1.0
            case May.WAIT:
                watched.waiting[facts.id] = facts
                self._changed.set()
                moment = next_moment(watched.reach, self.policy())
                return max(min(moment, now + ASK_AGAIN), now + 0.05)

    def doubt(self, facts: Facts) -> None:
        """The session's engine waits for the network: look whether the address is away."""
        watched = self._watched(facts)
        if watched is None or watched.reach.away:
            return
        if boot_now() - watched.looked_at > self.policy().look_every:
            watched.waiting[facts.id] = facts
            self._begin_look(watched)

    def failed(self, facts: Facts, code: str) -> None:
        """The session's connection was lost, or a try failed; its record has counted that."""
        if (watched := self._watched(facts)) is None:
            return
        tried, now = facts.record.attempts > 0, boot_now()
        before = watched.reach
        watched.reach = after_failure(before, code, self.policy(), now, tried=tried)
        if code in NETWORK_CODES and not watched.reach.away:
            # Look before its own delay is over: an address that is away costs no attempt.
            watched.waiting[facts.id] = facts
            if now - watched.looked_at > LOOKS_APART:
                self._begin_look(watched)
        self._changed.set()

    def succeeded(self, facts: Facts) -> None:
        if (watched := self._watched(facts)) is None:
            return
        watched.waiting.pop(facts.id, None)
        was_away = watched.reach.away
        watched.reach = after_connection(watched.reach, boot_now())
        if was_away:
            log.info("sessions reach %s, although the agent's probes do not", watched.address.name)
            self._is_back(watched)

    def forget(self, id: InstanceId) -> None:
        _, watched = self._of.pop(id, (None, None))
        if watched is None:
            return
        watched.waiting.pop(id, None)
        if not any(other is watched for _, other in self._of.values()):
            self._all.pop(watched.address, None)

    async def run(self, kernel: socket.socket | None = None) -> None:
        """Look again at addresses that are away while a session waits for them. `kernel`: the
        socket for news of routes, where systemd opened it."""
        routes = Routes.open(self.route_changed, kernel)
        try:
            while True:
                now = boot_now()
                due = [watched for watched in self._all.values() if self._is_waited_for(watched)]
                for watched in due:
                    if watched.reach.look_at <= now and watched.looking is None:
                        self._begin_look(watched)
                self._changed.clear()
                moments = [watched.reach.look_at for watched in due if watched.looking is None]
                wait = max(min(moments) - boot_now(), 0.0) if moments else None
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    pass
        finally:
            if routes is not None:
                routes.close()
            for watched in self._all.values():
                if watched.looking is not None:
                    watched.looking.cancel()

    def route_changed(self) -> None:
        now = boot_now()
        for watched in self._all.values():
            watched.reach = after_route_change(watched.reach, now)
        self._changed.set()
        for listener in self.on_route:
            listener()

    def _is_waited_for(self, watched: Watched) -> bool:
        if watched.reach.away_since is None or self.policy().look_every <= 0:
            return False
        for facts in [waiting for waiting in watched.waiting.values() if not self.wanted(waiting)]:
            del watched.waiting[facts.id]
        return bool(watched.waiting)

    def _begin_look(self, watched: Watched) -> None:
        if watched.looking is None and self.policy().look_every > 0:
            watched.looked_at = boot_now()
            watched.looking = asyncio.get_running_loop().create_task(
                self._look(watched), name=f"look at {watched.address.name}"
            )

    async def _look(self, watched: Watched) -> None:
        policy, was_away = self.policy(), watched.reach.away_since is not None
        try:
            async with self._places:
                cause = await look(watched.address, policy.look_timeout)
        except Exception as error:
            log.exception("cannot probe %s: internal error", watched.address.name)
            cause = f"the probe failed ({type(error).__name__})"
        finally:
            watched.looking = None
        now, before = boot_now(), watched.reach
        if not cause:
            watched.reach = after_good_look(before, now)
            if was_away:
                self._is_back(watched)
            else:
                self._wake_waiting(watched)
                watched.waiting.clear()
            return
        begun = watched.looked_at
        watched.reach = after_failed_look(before, cause, policy, begun, random.random())
        self._changed.set()
        if not was_away:
            said = f"cannot reach {watched.address.name}: {cause}; its sessions wait"
            self._tell(watched, back=False, said=said)

    def _is_back(self, watched: Watched) -> None:
        count = len(watched.waiting)
        said = f"this machine reaches {watched.address.name} again; {count} sessions waited"
        self._tell(watched, back=True, said=said)

    def _tell(self, watched: Watched, *, back: bool, said: str) -> None:
        entry = None
        if not watched.address.url.startswith("file:"):
            log.log(logging.INFO if back else logging.WARNING, "%s", said)
            kind = "address_back" if back else "address_away"
            detail = {"address": watched.address.name}
            entry = JournalEntry(kind, said, Category.HEALTH, None, time.time(), detail)
        news = ReachNews(back, tuple(watched.waiting.values()), entry)
        self._wake_waiting(watched)
        if back:
            watched.waiting.clear()
        for listener in self.on_news:
            listener(news)

    def _wake_waiting(self, watched: Watched) -> None:
        ids = list(watched.waiting)
        random.shuffle(ids)
        for id in ids:
            self.wake(id)

    def _watched(self, facts: Facts) -> Watched | None:
        settings = facts.instance.settings
        known = self._of.get(facts.id)
        if known is not None and known[0] is settings:
            return known[1]
        if known is not None and known[1] is not None:
            known[1].waiting.pop(facts.id, None)
        folder = self.session_root / facts.id / "session"
        address = needed_address(facts.instance.engine, settings, folder)
        watched = None
        if address is not None:
            watched = self._all.setdefault(address, Watched(address))
        self._of[facts.id] = (settings, watched)
        return watched


def waits_for_its_address(facts: Facts, host: Host) -> bool:
    record = facts.record
    if facts.gone or record.status is ConnectionStatus.CONNECTED:
        return False
    return facts.desired(host.boot_id()).should_run and not reason_of(record.reason).hopeless
