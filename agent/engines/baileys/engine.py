"""The baileys engine: one session on the unmodified library, in a Node process under its worker.
That client is started, killed when its loop hangs, and closed in order."""

import asyncio
import logging
import time
from binascii import a2b_base64
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.core.words import ConnectionStatus as Status
from agent.engines import base, tasks, whatsapp
from agent.engines.baileys import peer_keys, rules, session_state
from agent.errors import EngineError, InvalidRequest, WaError, cause_of

if TYPE_CHECKING:
    from agent.engines.baileys.client import Client, Conversation, OnEnd, OnEvent
    from agent.engines.baileys.pack import NodeShare

    Join = Callable[[OnEvent, OnEnd], Awaitable[NodeShare]]

log = logging.getLogger(__name__)

ANSWERED = 20.0
"""Seconds for the client to hear an answer."""
STARTS_WITHIN = 600.0

COPIES = "sent.log"
"""File of copies of sent messages, beside the session's folder."""


class ClientLife:
    def __init__(
        self,
        folder: Path,
        settings: rules.BaileysSettings,
        state: session_state.SessionState,
        keeper: base.Keeper,
        join: "Join | None",
    ) -> None:
        self.client: Client | NodeShare | None = None
        self._speaker: Conversation | None = None
        """The conversation whose events come, also while it is hung up."""
        self._folder = folder
        self._settings = settings
        self._state = state
        self._keeper = keeper
        self._keeping: set[asyncio.Task[None]] = set()
        self._cache = base.cache_folder()
        self._join = join
        self._ends: list[float] = []

    @property
    def alive(self) -> bool:
        return self.client is not None and self.client.alive

    async def open(self) -> "Client | NodeShare":
        """Return the client that is there, or a new one with the session's store open."""
        if self.client is not None and self.client.alive and not self._state.spoiled:
            return self.client
        await self.kill("its store failed")
        now = time.monotonic()
        self._ends = [at for at in self._ends if now - at < STARTS_WITHIN]
        if self._ends and len(self._ends) > self._settings.client_starts:
            why = f"the client ended {len(self._ends)} times in ten minutes"
            raise EngineError(why, code=session_state.FAILING)
        claim = self._state.claim
        account = claim.account if claim.paired else ""
        await asyncio.to_thread(rules.check_login, self._folder, account)
        client = self._speaker = await self._begin()
        self.client, self._state.spoiled = client, True
        answer = await client.call("open", 20.0, **self._orders())
        self._state.spoiled = False
        self._state.note_identity(answer)
        return client

    async def look(self, client: "Client | NodeShare", *, ask: bool) -> Mapping[str, Any]:
        """The client's answer to a probe; ends one whose loop hangs. The next connect starts
        another."""
        try:
            return await client.look(base.probe_limit(), ask=ask)
        except EngineError as error:
            if client is self.client and (why := client.hangs(error)):
                await client.kill("its loop stood still")
                self._ended(why)
            raise

    async def hang_up(self) -> None:
        client, self.client = self.client, None
        self._state.forget_code()
        if client is None:
            return
        if client.alive:
            try:
                await client.call("disconnect", 20.0)
            except EngineError as error:
                log.warning("the client did not save in order: %s", error)
        await client.close()

    async def kill(self, why: str) -> None:
        """Let go of the session without a save."""
        client, self.client = self.client, None
        if client is not None:
            await client.kill(why)

    async def _begin(self) -> "Client | NodeShare":
        if self._join is not None:
            return await self._join(self._hear, self._ended)
        from agent.engines.baileys import client, node

        # ConfigError says what is missing, and the next try looks again.
        found, packages = await asyncio.to_thread(node.find_node), node.find_packages(self._cache)
        return await client.Client.start(found, packages, self._hear, self._ended)

    def _hear(self, event: Mapping[str, Any]) -> None:
        if event.get("event") != "keep":
            self._state.hear(event)
        elif self._speaker is not None:
            task = asyncio.create_task(self._keep(event, self._speaker), name="keep")
            self._keeping.add(task)
            task.add_done_callback(self._keeping.discard)

    async def _keep(self, event: Mapping[str, Any], client: "Conversation") -> None:
        """Keep records. `client`: the one that sent them, which gets the answer."""
        answer: dict[str, Any] = {"n": str(event.get("n", ""))}
        raw = event.get("records")
        records = [each for each in raw if isinstance(each, dict)] if isinstance(raw, list) else []
        try:
            await base.keep_usable(self._keeper, records)
        except EngineError as error:
            answer["error"] = str(error)
        except Exception as error:
            log.exception("records cannot be kept")
            answer["error"] = f"the worker failed ({type(error).__name__})"
        try:
            await client.call("kept", ANSWERED, **answer)
        except EngineError as error:
            # It gives up by itself, and WhatsApp sends them again.
            log.warning("the client was not told what is kept: %s", error)

    def _orders(self) -> dict[str, Any]:
        version = self._settings.version
        if version == rules.KNOWN_GOOD:
            version = rules.read_version(self._folder)
        return {
            "folder": str(self._folder),
            "paired": self._state.claim.paired,
            "url": self._settings.url,
            "media_url": self._settings.media_url,
            "version": [int(part) for part in version.split(".")] if version else None,
            "browser": self._settings.device_name,
            "proxy": self._settings.proxy,
            "keeps": self._keeper.keeps,
            # Copies of sent messages outlive the client where messages are kept.
            "copies": str(self._folder.parent / COPIES) if self._keeper.keeps else "",
        }

    def _ended(self, why: str) -> None:
        log.warning("Node of this session: %s", why)
        self.client = None
        self._state.forget_code()
        self._ends.append(time.monotonic())
        if self._join is not None:
            self._state.happened("pack_ended", text=why)
        else:
            self._state.happened("error", code="client_ended")
        self._state.change(Status.DISCONNECTED, "client_crashed", raw=why)


OLD_FRAME = 20.0
"""Seconds after which a frame no longer proves the connection: WhatsApp is asked."""
FILE_OPENS, FILE_STILL = 85.0, 50.0
"""Seconds until a file begins to come, with a phone that must give it again; for its next piece."""
TELLING = 8.0
SENDING, ANSWER = 60.0, 8.0
"""Seconds for the whole of it, and for WhatsApp's confirmation once it was handed over."""


def open_engine(
    folder: Path, settings: Mapping[str, Any], reporter: base.Reporter
) -> "BaileysEngine":
    return BaileysEngine(folder, rules.read_settings(settings), reporter)


class BaileysEngine:
    """Translates between the client and the worker. It never reconnects by itself."""

    def __init__(
        self,
        folder: Path,
        settings: rules.BaileysSettings,
        reporter: base.Reporter,
        join: "Join | None" = None,
    ) -> None:
        """Make the engine. `join`: takes a share of a pack's Node; None: a Node of its own."""
        self._folder = folder
        self._state = session_state.SessionState(folder, reporter)
        self._life = ClientLife(folder, settings, self._state, reporter, join)
        self._stopping = False
        self._work: asyncio.Task[None] | None = None
        self._busy = asyncio.Lock()

    async def connect(self) -> None:
        if self._stopping:
            raise EngineError("cannot connect: the session is stopping", code="stopping")
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._connect(), name="connect")
        # A cancelled caller ends only its waiting: the claims tell how it goes on.
        work = self._work
        await asyncio.wait({work})
        if work.cancelled():
            raise EngineError("cannot connect: it was stopped meanwhile", code="stopping")
        work.result()

    async def _connect(self) -> None:
        async with self._busy:
            if self._life.alive and not self._state.spoiled and self._state.has_connection:
                return
            self._state.begin_login()
            try:
                client = await self._life.open()
                await client.call("connect", 15.0)
            except WaError as error:
                self._state.failed(error)
            except OSError as error:
                self._state.failed(EngineError(f"cannot start the client: {cause_of(error)}"))

    async def disconnect(self) -> None:
        await self.close()
        self._state.change(Status.DISCONNECTED)

    async def probe(self, *, deep: bool = False) -> base.ProbeAnswer:
        client = self._life.client
        if client is None or not client.alive:
            return base.ProbeAnswer(self._state.current(), {"client": False})
        ask = self._state.connected and (deep or (self._state.frame_age() or 0.0) > OLD_FRAME)
        answer = await self._life.look(client, ask=ask)
        self._state.note_frame(answer.get("frame_age"))
        detail: dict[str, Any] = {
            "client": True,
            "pid": client.pid,
            "open": answer.get("open") is True,
        }
        if isinstance(seconds := answer.get("ping_seconds"), int | float):
            detail["ping_seconds"] = round(seconds, 4)
        return base.ProbeAnswer(self._state.current(), detail)

    async def qr(self) -> base.Qr | None:
        state = self._state
        if state.code() is None and state.claim.reason in session_state.WAITING:
            await self.connect()
        deadline = time.monotonic() + 3.0
        while not state.code() and self._life.client and time.monotonic() < deadline:
            if state.claim.status in (Status.CONNECTED, Status.DISCONNECTED):
                break
            await asyncio.sleep(0.05)
        return state.code()

    async def send(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        outgoing = {**message, "to": whatsapp.receiver_of(message.get("to"))}
        client = self._connected("send")
        answer = await client.call("send", SENDING, seconds=ANSWER, message=outgoing)
        sent = {"id": str(answer.get("id", "")), "outcome": str(answer.get("outcome", ""))}
        if sent["outcome"] == "unknown":
            return {**sent, "cause": f"WhatsApp did not confirm it within {ANSWER:.0f} s"}
        if sent["outcome"] != "sent":
            why = f"cannot send: WhatsApp refused the message with error {answer.get('error')}"
            raise EngineError(why, code="refused")
        return sent

    async def load_media(self, record: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        client = self._connected("load the file")
        names = ("type", "chat", "message_id", "from_me")
        file = {name: record.get(name) for name in names} | {"media": record["_media"]}
        file["size"] = record["media"].get("size", 0)
        opened = await client.call("file_open", FILE_OPENS, file=file)
        try:
            done = False
            while not done:
                part = await client.call("file_next", FILE_STILL, download=opened["download"])
                done = part.get("done") is True
                if data := part.get("data"):
                    yield a2b_base64(data)
        finally:
            if client.alive:
                with suppress(EngineError):
                    await client.call("file_close", ANSWER, download=opened["download"])

    async def mark_read(self, asked: Mapping[str, Any]) -> None:
        await self._connected("mark messages as read").call("read", TELLING, asked=dict(asked))

    async def presence(self, asked: Mapping[str, Any]) -> None:
        await self._connected("show a presence").call("presence", TELLING, asked=dict(asked))

    async def logout(self) -> None:
        client = self._life.client
        if client is None or not self._state.connected:
            raise EngineError("cannot log out: not connected", code="not_connected")
        # WhatsApp's confirmation comes before the answer, and makes the claim.
        await client.call("logout", 15.0)

    async def regenerate_keys(self, peers: list[str]) -> None:
        """Make new keys with these peers: pre-keys if theirs were lost, else new sessions."""
        if lost := self._state.lost_pre_keys.intersection(peers):
            # The keys that this session holds of these peers are not at fault.
            await self._connected("upload pre-keys").call("upload_pre_keys", 30.0)
            self._state.lost_pre_keys -= lost
            for peer in lost:
                self._state.happened("key_regeneration", peer=peer, ok=True)
        if others := [peer for peer in peers if peer not in lost]:
            await self._set_keys_aside(others)

    async def _set_keys_aside(self, peers: list[str]) -> None:
        """The client ends first: a running one would write the old keys back. Peers of whom nothing
        is held cost no connection: what they send next brings their keys."""
        if not await asyncio.to_thread(peer_keys.keys_of, self._folder, peers):
            return
        await tasks.cancel(self._work)
        async with self._busy:
            if again := self._state.connected:
                self._state.begin_login()  # from here on it has no connection
            await self._life.hang_up()
            removed = await asyncio.to_thread(peer_keys.set_aside, self._folder, peers)
            for peer in peers:
                self._state.happened("key_regeneration", peer=peer, ok=bool(removed))
        if again:
            await self.connect()

    async def free_memory(self) -> None:
        if (client := self._life.client) is not None and client.alive:
            await client.call("free", 5.0)

    async def prepare_stop(self) -> None:
        self._stopping = True

    async def save(self) -> None:
        if (client := self._life.client) is not None and client.alive:
            await client.call("save", 30.0)

    async def close(self) -> None:
        await tasks.cancel(self._work)
        async with self._busy:
            await self._life.hang_up()

    async def abandon(self) -> None:
        """Let go of the session without a save, after a failure of its worker."""
        await tasks.cancel(self._work)
        await self._life.kill("its worker failed")

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if name == "file_part":
            taker = self._connected("take a part of a file")
            return await taker.call("file_part", ANSWER, part=dict(arguments))
        if name == "pairing_code":
            client = self._life.client
            if client is None or self._state.claim.status is not Status.QR_REQUIRED:
                why = "cannot make a pairing code: no login waits for one"
                raise EngineError(why, code="not_waiting")
            return await client.call("pairing_code", 20.0, phone=str(arguments.get("phone", "")))
        why = f"cannot {name!r:.40}: baileys knows pairing_code and file_part"
        raise InvalidRequest(why, field="name")

    def _connected(self, what: str) -> "Conversation":
        client = self._life.client
        if client is None or not self._state.connected or self._stopping:
            raise EngineError(f"cannot {what}: not connected", code="not_connected")
        return client
