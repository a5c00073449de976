"""Carries the journal, and what arrives in sessions, to one webhook: each source in order behind
its cursor, at least once, at the target's own pace.

The journal and the sessions are the queues, so an outage costs no memory and a crash loses nothing:
what is behind a cursor is read again. While the target fails, one source tries for all.

One POST is signed, bounded, and goes only to an address that it may lead to. No error has the URL,
the secret or the event. An address is judged when the socket is made: a name may change its
address, and an address has many spellings.
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import random
import socket
import ssl
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from typing import Any

import aiohttp
import msgspec
from aiohttp.client_proto import ResponseHandler

from agent import VERSION, clock, errors, files, log
from agent.core import addresses, breaker, model, session
from agent.supervise.reach import Resolver, cause_of
from agent.webhooks.part import Read
from agent.webhooks.settings import WebhookDeclaration, matches, secret_of, shown_target

LONGEST_RETRY_AFTER = 3600.0
"""Seconds of wait that a target may ask for."""
POSTS = 8
"""Posts under way at once, to one target."""
_SAID = 200
"""Bytes of an answer that are read; only its status counts."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int | None = None
    """Status of the answer; None: the target did not answer."""
    problem: str = ""
    wait: float = 0.0
    """Seconds that the target asks to wait; 0 without a wish."""
    said: str = ""

    @property
    def taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        """True if the target refuses this event; neither: it is away, slow, or has too much to do.
        A redirect is a refusal: it is not followed, for it may lead anywhere."""
        later = self.status is None or self.status >= 500 or self.status in (408, 425, 429)
        return not (later or self.taken)


@dataclass(frozen=True, slots=True)
class Parcel:
    kind: str
    delivery: str
    """The same each time it is sent, and never another's: a new journal counts from 1 again, so
    the number alone would not do."""
    wall: float
    """Unix time at which it happened."""
    body: bytes
    what: str
    """Words for log and journal, without text and numbers."""


def pack_event(entry: model.JournalEntry) -> Parcel:
    """Pack an entry of the journal, as the API shows it."""
    shown, name = session.show_event(entry), f"{entry.cursor}-{round(entry.wall * 1000)}"
    shown = {"id": shown.pop("cursor"), **shown}
    return Parcel(entry.kind, name, entry.wall, _body(shown), f"event {entry.cursor}")


def pack_record(id: model.InstanceId, record: Mapping[str, Any]) -> Parcel:
    """Pack a record that arrived in a session, as the API shows it, with its session."""
    cursor, kept = record["cursor"], record.get("kept")
    name = f"{id}-{cursor}-{round((kept or record.get('since') or 0.0) * 1000)}"
    body, what = _body({**record, "instance": id}), f"record {cursor} of {id}"
    return Parcel(str(record["kind"]), name, float(kept or time.time()), body, what)


def _body(shown: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode({**shown, "machine": socket.gethostname(), "agent": VERSION})


def sign(key: bytes, delivery: str, moment: str, body: bytes) -> str:
    """Return the header of Standard Webhooks. The time is signed: a copy cannot be sent later."""
    signed = hmac.digest(key, f"{delivery}.{moment}.".encode() + body, hashlib.sha256)
    return f"v1,{b64encode(signed).decode()}"


def retry_after(text: str, date: str | None) -> float:
    """The seconds that a Retry-After header asks for, within bounds; 0 = none. `date`: when it was
    answered, by the clock of the target; without it a time in the header counts from now."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        until, now = map(parsedate_to_datetime, (text, date or formatdate(usegmt=True)))
        text = f"{(until - now).total_seconds():.0f}"
    return min(float(text), LONGEST_RETRY_AFTER) if text.isdecimal() else 0.0


def open_files(declared: WebhookDeclaration) -> tuple[bytes, ssl.SSLContext | None]:
    """Return the key and the trusted certificates. ConfigError: one of them cannot be read."""
    key, path = secret_of(declared), declared.ca_file
    try:
        return key, ssl.create_default_context(cafile=files.plain_path(path)) if path else None
    except OSError as error:
        cause = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        whose = f"ca_file of webhook {declared.name}"
        raise errors.ConfigError(f"cannot read {path} ({whose}): {cause}") from error


class RequestLine:
    """Connections to one webhook, kept while there is more to send."""

    def __init__(self, declared: WebhookDeclaration, key: bytes, tls: ssl.SSLContext | None):
        self._url, self._key, trace = declared.url, key, aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_kept)
        self._http = aiohttp.ClientSession(
            connector=open_connector(private=declared.private, tls=tls),
            timeout=aiohttp.ClientTimeout(total=declared.timeout),
            headers={"User-Agent": f"wa-agent/{VERSION}", "Content-Type": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,  # a proxy would look names up itself, and judge no address
            trace_configs=[trace],
        )
        self.close = self._http.close

    @classmethod
    async def open(cls, declared: WebhookDeclaration) -> "RequestLine":
        """Open the line. ConfigError: a file of the webhook cannot be read."""
        return cls(declared, *await asyncio.to_thread(open_files, declared))

    async def post(self, parcel: Parcel) -> Reply:
        moment = str(int(time.time()))
        headers = {"webhook-id": parcel.delivery, "webhook-timestamp": moment}
        if self._key:
            headers["webhook-signature"] = sign(self._key, parcel.delivery, moment, parcel.body)
        how: dict[str, Any] = {"allow_redirects": False, "trace_request_ctx": (kept := set[str]())}
        said = b""
        try:
            async with self._http.post(self._url, data=parcel.body, headers=headers, **how) as back:
                # Read, so that the connection can be used again.
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    async with asyncio.timeout(1.0):
                        said = await back.content.read(_SAID)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if kept and isinstance(error, aiohttp.ClientConnectionError):
                return await self.post(parcel)  # a target closes what is kept open when it likes
            return Reply(problem=problem_of(error))
        problem = "" if 200 <= back.status < 300 else f"it answered {back.status}"
        if 300 <= back.status < 400:
            problem += ": redirects are not followed"
        wait = retry_after(back.headers.get("Retry-After", ""), back.headers.get("Date"))
        return Reply(back.status, problem, wait, said.decode(errors="replace"))


async def _note_kept(_session: object, context: Any, _told: object) -> None:
    context.trace_request_ctx.add("kept")


def problem_of(error: Exception) -> str:
    if isinstance(denied := getattr(error, "os_error", None), AddressDenied):
        return str(denied)
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return f"it cannot be reached: {cause_of(error)}"


class AddressDenied(OSError):
    """The address is one to which nothing is sent."""


def open_connector(*, private: bool, tls: ssl.SSLContext | None) -> aiohttp.TCPConnector:
    """Open a connector. `private`: allow this machine and private networks."""

    def make_socket(info: Any) -> socket.socket:
        address = str(info[4][0])
        if why := addresses.refuse_address(address, private=private):
            raise AddressDenied(f"nothing is sent to {address}: {why}")
        return socket.socket(*info[:3])

    connector = aiohttp.TCPConnector(
        ssl=True if tls is None else tls,
        resolver=Resolver(),
        use_dns_cache=False,
        socket_factory=make_socket,
        limit=POSTS,
    )
    connector._factory = lambda: _HeadFirst(loop=asyncio.get_running_loop())  # type: ignore[assignment]
    return connector


class _HeadFirst(ResponseHandler):
    """Reads the head of an answer by itself: the library forgets a status of 2xx when more bytes
    than the head announces come with it, as with a 204 that has a body."""

    def data_received(self, data: bytes) -> None:
        head, end, rest = data.partition(b"\r\n\r\n")
        super().data_received(head + end)
        if rest:
            super().data_received(rest)


LONGEST_WAIT = 300.0
"""Seconds between two tries of a target that fails, at most."""
CIRCUIT = breaker.BreakerPolicy(5, 60.0)
"""Failures in a row after which the target counts as failing, and the least pause from then on."""
MOST_IN_A_ROW = 10
"""Given up without a delivery between them. A target that refuses more than that refuses
everything: then it is tried as one that is down."""
PAGE = 20
"""Parcels read at once from a source: a kill lets no more of them be sent twice."""
SESSIONS = 32
"""Sessions whose records are in memory, at most."""
AGAIN = 5.0
"""Seconds after an internal error."""
CLOCK_JUMP = 3600.0
"""Seconds that the wall clock may gain on the boot clock; beyond them it was set."""
OWN_KINDS = "webhook"
"""Beginning of the kinds that are about webhooks themselves; `detail` names which."""
GAP = "message_gap"

Page = list[tuple[int, Parcel | None]]
"""Each cursor behind the one before, with its parcel; None: the webhook does not want it."""


class Source:
    """A source: the journal, or what one session got; a task of its own carries each."""

    def __init__(self, fact: str, page: Callable[[Any], Awaitable[Page]], id: str = "") -> None:
        """Make a source. `fact`: the cursor's name in the store."""
        self.fact, self.page, self.id = fact, page, model.InstanceId(id)
        self.cursor, self.saved, self.loaded = 0, -1, False
        """All up to `cursor` is settled."""
        self.news = asyncio.Event()
        self.tried: float | None = None
        """Unix time of the parcel that is tried now: the oldest that waits."""


def next_wait(failures: int, asked: float) -> float:
    """Return seconds to the next try: up to 1, 2, 4 …, at random, and at least `asked`."""
    return max(random.random() * min(2.0 ** min(failures - 1, 30), LONGEST_WAIT), asked)


def wants(declared: WebhookDeclaration, entry: model.JournalEntry) -> bool:
    """True if the webhook wants the entry: never one about itself, or it would go round."""
    own = entry.kind.startswith(OWN_KINDS) and entry.detail.get("webhook") == declared.name
    chosen = declared.chooses(entry.instance) if entry.instance else "*" in declared.instances
    return chosen and not own and matches(entry.kind, declared.kinds)


class Courier:
    """Carries events and messages to one webhook. `run` carries; the rest never waits."""

    def __init__(self, declared: WebhookDeclaration, results: Counter[str], read: Read) -> None:
        """Make a courier. `results`: counts since the agent's start."""
        self.declared, self.name, self._results = declared, declared.name, results
        self._store, self._bus, self._reader, self._sessions = read
        self._journal = Source(f"webhook.{self.name}", self._journal_page)
        self._fact = f"webhook_refused.{self.name}"
        """Name of the store's fact with the number given up in a row."""
        self._sources = {"": self._journal}
        self._newest, self._begun = 0, [(0.0, ["*"])]
        """The journal's newest entry; Unix times at which messages began, 0.0 = with the oldest."""
        self._apart = time.time() - clock.boot_now()
        self._line: RequestLine | None = None
        self._opening, self._alone = asyncio.Lock(), asyncio.Lock()
        self._turns, self._posts = asyncio.Semaphore(SESSIONS), asyncio.Semaphore(POSTS)
        self._hurry = asyncio.Event()
        self._breaker, self._in_a_row, self._next_try, self._problem = breaker.Breaker(), 0, 0.0, ""
        self._next_try_wall: float | None = None
        self._delivered_wall: float | None = None

    def retry(self) -> None:
        """Try now, whatever failed before."""
        self._breaker, self._in_a_row = breaker.Breaker(), 0
        self._hurry.set()

    @property
    def messages(self) -> int:
        """Return how many records of messages stand behind the cursors."""
        read = [it for it in self._sources.values() if it.id and it.loaded]
        return sum(self._reader.behind(self.name, it.id) or it.tried is not None for it in read)

    @property
    def waiting(self) -> int:
        return self.messages + max(self._newest - self._journal.cursor, 0)

    @property
    def oldest_wall(self) -> float | None:
        """Unix time of the oldest that waits; None: none waits."""
        tried = [it.tried for it in self._sources.values() if it.tried is not None]
        return min(tried, default=None)

    def view(self) -> dict[str, Any]:
        waiting, failing, settings = self.waiting, self._breaker.failures, self.declared
        return {
            "name": self.name,
            "url": shown_target(settings.url),
            "state": "failing" if failing else "sending" if waiting else "idle",
            "circuit": str(self._breaker.state(clock.boot_now(), CIRCUIT)),
            "cursor": self._journal.cursor,
            "waiting": waiting,
            "oldest": session.wall_text(self.oldest_wall),
            "problem": self._problem,
            "next_try": session.wall_text(self._next_try_wall),
            "delivered": session.wall_text(self._delivered_wall),
            "dead": self._results[f"dead {self.name}"],
            "messages": self.messages if settings.message_kinds else None,
        }

    async def run(self) -> None:
        """Carry until cancelled; after an internal error go on from the cursors."""
        while True:
            self._sources = {"": self._journal}
            try:
                self._in_a_row = int(await self._store.get_fact(self._fact) or 0)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._carry(self._journal), name=self._journal.fact)
                    group.create_task(self._follow_journal())
                    if self.declared.message_kinds:
                        group.create_task(self._follow_sessions(group))
            except* Exception:
                log.exception("webhook %s: internal error; it starts again", self.name)
            finally:
                if self._line is not None:
                    await self._line.close()
                self._line = None
            await asyncio.sleep(AGAIN)

    # The journal

    async def _follow_journal(self) -> None:
        while True:  # a subscription that was too slow ends
            with contextlib.closing(self._bus.subscribe()) as subscription:
                self._journal.news.set()
                async for entry in subscription:
                    self._newest = max(entry.cursor, self._newest)
                    self._journal.news.set()

    async def _journal_page(self, source: Source) -> Page:
        if not source.loaded:
            newest = await self._store.history(limit=1)
            self._newest = newest[0].cursor if newest else 0
            if not await self._load(source, source.fact):
                source.cursor = self._newest
                await self._save(source)
                await self._report("webhook_begun", "it starts with the next event")
            source.cursor = min(source.cursor, self._newest)
        entries = await self._store.history(after=source.cursor, limit=PAGE)
        missing = entries[0].cursor - source.cursor - 1 if entries and source.cursor else 0
        # Without an older entry they have left; else these numbers were never given.
        if missing > 0 and not await self._store.history(before=entries[0].cursor, limit=1):
            source.cursor += missing
            self._results["expired"] += missing
            await self._report("webhook_gap", f"{missing} entries left the journal unsent")
        if len(entries) == PAGE:
            source.news.set()
        return [(it.cursor, pack_event(it) if wants(self.declared, it) else None) for it in entries]

    # Sessions

    async def _follow_sessions(self, group: asyncio.TaskGroup) -> None:
        changes, fact = self._reader.follow_changes(), f"webhook_sessions.{self.name}"
        begun = json.loads(await self._store.get_fact(fact) or "[]")
        if list(self.declared.instances) not in [earlier for _, earlier in begun]:
            begun.append((0.0 if self.declared.oldest else time.time(), self.declared.instances))
            await self._store.put_facts({fact: json.dumps(begun)})
        self._begun = begun
        there: Iterable[model.InstanceId] = list(self._sessions)
        while True:
            for id in filter(self.declared.chooses, there):
                if id not in self._sources:
                    source = self._sources[id] = Source("", self._session_page, id)
                    group.create_task(self._carry(source), name=f"{self.name}: {id}")
                self._sources[id].news.set()
            there = await changes.next()

    async def _session_page(self, source: Source) -> Page:
        if (session := self._sessions.get(source.id)) is None:
            raise errors.NotFound(f"cannot read messages of {source.id}: it was deleted")
        # Each creation of a session has its own cursor: another session of this name may come, and
        # this one may come back from the trash.
        fact = f"webhook_message.{self.name}.{source.id}.{session.instance.created_wall}"
        if source.fact != fact:
            await self._load(source, fact)
        if not source.cursor:  # none of this session was sent, or came, yet
            since = min(at for at, chosen in self._begun if matches(source.id, chosen))
            found = await self._reader.ask(source.id, "messages_behind", {"since": since})
            source.cursor = max(int(found["before"]), int(found["settled"])) if since else 0
        await self._save(source)
        page = await self._reader.page(source.id, source.cursor, limit=PAGE, by=self.name)
        if page.more:
            source.news.set()
        if page.records and not source.cursor:
            # Noted before it is sent: a reader at 0 begins, and hears of nothing that others had.
            source.cursor = int(page.records[0].get("first", page.records[0]["cursor"])) - 1
            await self._save(source)
        kinds = (*self.declared.message_kinds, GAP)

        def pack(it: dict[str, Any]) -> Parcel | None:
            return pack_record(source.id, it) if matches(str(it.get("kind")), kinds) else None

        return [*((int(it["cursor"]), pack(it)) for it in page.records), (page.next, None)]

    # One source

    async def _carry(self, source: Source) -> None:
        pause = 0.0
        while True:
            await source.news.wait()
            source.news.clear()
            try:
                async with self._turns:
                    await self._carry_page(source)
                pause = 0.0
            except (errors.Refused, errors.NotFound):
                pass  # it was deleted, or keeps nothing
            except errors.WaError as error:
                say = log.error if isinstance(error, errors.StoreError) else log.debug
                say("webhook %s: %s", self.name, error)
                await asyncio.sleep(pause := min(max(pause * 2, 1.0), CIRCUIT.pause))
                source.news.set()

    async def _carry_page(self, source: Source) -> None:
        if source.loaded:  # what could not be noted comes again after a kill: no more until then
            await self._save(source)
        try:
            for cursor, parcel in await source.page(source):
                if parcel is not None:
                    source.tried = parcel.wall
                    await self._settle(parcel, ages=not source.id)
                    source.tried = None
                source.cursor = cursor
                if parcel and parcel.kind == GAP:  # after a kill it would come again, and larger
                    await self._save(source)
        finally:
            with contextlib.suppress(errors.StoreError):
                await self._save(source)

    async def _load(self, source: Source, fact: str) -> bool:
        """Load the source's cursor; True if it was noted."""
        text = await self._store.get_fact(fact)
        source.fact, source.saved, source.loaded = fact, -1 if text is None else int(text), True
        source.cursor = max(source.saved, 0)
        return text is not None

    async def _save(self, source: Source) -> None:
        if source.cursor != source.saved:
            noted = {source.fact: str(source.cursor), self._fact: str(self._in_a_row)}
            await self._store.put_facts(noted)
            source.saved = source.cursor
        if source.id:
            self._reader.settle(self.name, source.id, source.cursor)

    # One parcel

    async def _settle(self, parcel: Parcel, *, ages: bool) -> None:
        """Return when it is delivered, too old or given up. A message never `ages` here: what its
        session keeps no longer is a gap."""
        refused = 0
        while True:
            now_wall = time.time()
            # Ages by a clock that was set are wrong.
            was_set = now_wall - clock.boot_now() - self._apart > CLOCK_JUMP
            if ages and not was_set and now_wall - parcel.wall > self.declared.longest_age * 3600:
                self._results["expired"] += 1
                return
            reply = await self._try_in_turn(parcel)
            if reply.taken:
                return
            if reply.refused and self._in_a_row < MOST_IN_A_ROW:
                if (refused := refused + 1) >= self.declared.tries:
                    await self._give_up(parcel, reply.problem)
                    return
                await self._pause(next_wait(refused, reply.wait))

    async def _try_in_turn(self, parcel: Parcel) -> Reply:
        while True:
            failing = bool(self._breaker.failures)
            async with self._alone if failing else self._posts:
                if failing and self._breaker.failures:
                    await self._pause(self._next_try - clock.boot_now())
                if failing == bool(self._breaker.failures):
                    return await self._try(parcel)

    async def _pause(self, seconds: float) -> None:
        """Wait until the next try, or until a person wants it now."""
        self._next_try_wall = time.time() + max(seconds, 0.0)
        self._hurry.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), max(seconds, 0.0))
        self._next_try_wall = None

    async def post(self, parcel: Parcel) -> Reply:
        try:
            async with self._opening:
                self._line = self._line or await RequestLine.open(self.declared)
            return await self._line.post(parcel)
        except errors.ConfigError as error:
            # Unsigned would be worse than late: the receiver could not tell it from a forgery.
            return Reply(problem=str(error))

    async def _try(self, parcel: Parcel) -> Reply:
        before = self._breaker.failures
        self._breaker = self._breaker.after_try(clock.boot_now(), CIRCUIT)
        reply = await self.post(parcel)
        self._results["delivered" if reply.taken else "failed"] += 1
        self._problem = reply.problem
        if reply.taken:
            self._delivered_wall = time.time()
            if before >= CIRCUIT.failures:
                log.info("webhook %s: it takes events again", self.name)
            self._breaker, self._in_a_row = breaker.Breaker(), 0
        # Tries side by side fail as one.
        elif before == self._breaker.failures and (
            not reply.refused or self._in_a_row >= MOST_IN_A_ROW
        ):
            if not before:
                log.warning("webhook %s: %s; it is tried again", self.name, reply.problem)
            now = clock.boot_now()
            self._breaker = self._breaker.after_failure(now, CIRCUIT)
            wait = next_wait(self._breaker.failures, reply.wait)
            self._next_try = now + max(wait, self._breaker.trial_in(now, CIRCUIT))
        return reply

    async def _give_up(self, parcel: Parcel, problem: str) -> None:
        self._results.update(("dead", f"dead {self.name}"))
        self._in_a_row += 1
        await self._store.put_facts({self._fact: str(self._in_a_row)})
        # No event about a webhook's own events: two webhooks would answer each other for ever.
        if not parcel.kind.startswith(OWN_KINDS):
            sentence = f"it refused {parcel.what} ({parcel.kind}), which is given up: {problem}"
            await self._report("webhook_dead", sentence)

    async def say_gone(self) -> None:
        """Report that the webhook is gone: only a webhook of this name gets what waits."""
        if waiting := self.waiting:
            sentence = f"it is gone from agent.toml, and {waiting} events and messages wait for it:"
            sentence += " they are sent when a webhook has this name again, and to no other"
            await self._report("webhook_gone", sentence)

    async def _report(self, kind: str, sentence: str) -> None:
        text, detail = f"webhook {self.name}: {sentence}", {"webhook": self.name}
        (log.info if kind == "webhook_begun" else log.warning)("%s", text)
        entry = model.JournalEntry(kind, text, model.Category.SYSTEM, None, time.time(), detail)
        await self._store.note(entry)
