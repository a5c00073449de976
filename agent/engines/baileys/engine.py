"""The baileys engine: one session on the unmodified library, in a Node process under its worker."""

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.clock import shown_by_monotonic
from agent.core.words import ConnectionStatus
from agent.engines.baileys.files import set_aside
from agent.engines.baileys.pack_client import PackedClient, read_place
from agent.engines.baileys.session_state import WAITING, SessionState
from agent.engines.baileys.settings import KNOWN_GOOD, BaileysSettings, read_settings
from agent.engines.baileys.version_note import read_version
from agent.engines.base import ProbeAnswer, Qr, Reporter
from agent.engines.surroundings import cache_folder, probe_limit
from agent.errors import EngineError, InvalidRequest, WaError

if TYPE_CHECKING:
    from agent.engines.baileys.client import Client

log = logging.getLogger(__name__)

Status = ConnectionStatus
OLD_FRAME = 20.0
"""Seconds after which a frame no longer proves the connection: WhatsApp is asked."""
SENDING, ANSWER = 60.0, 8.0
"""Seconds for the whole of it, and for WhatsApp's confirmation once it was handed over."""
STARTS_WITHIN = 600.0


def open_engine(folder: Path, settings: Mapping[str, Any], reporter: Reporter) -> "BaileysEngine":
    return BaileysEngine(folder, read_settings(settings), reporter)


class BaileysEngine:
    """Translates between the client and the worker. It never reconnects by itself."""

    def __init__(self, folder: Path, settings: BaileysSettings, reporter: Reporter) -> None:
        self._folder = folder
        self._settings = settings
        self._state = SessionState(folder, reporter)
        self._cache = cache_folder()
        self._pack = read_place(folder.parent)
        self._client: Client | PackedClient | None = None
        self._stopping = False
        self._ends: list[float] = []
        self._asked_at: float | None = None
        self._lease: float | None = None
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
            if self._has_connection():
                return
            self._state.begin_login()
            try:
                client = await self._open()
                await client.call("connect", 15.0)
            except WaError as error:
                self._state.failed(error)
            except OSError as error:
                self._state.failed(EngineError(f"cannot start the client: {error}"))

    def _has_connection(self) -> bool:
        if self._client is None or not self._client.alive or self._state.spoiled:
            return False
        return self._state.has_connection

    async def _stop_connecting(self) -> None:
        if self._work is not None and not self._work.done():
            self._work.cancel()
            await asyncio.wait({self._work})

    async def disconnect(self) -> None:
        await self.close()
        self._state.change(Status.DISCONNECTED)

    async def probe(self, *, deep: bool = False) -> ProbeAnswer:
        limit = probe_limit()
        client = self._client
        if client is None or not client.alive:
            return ProbeAnswer(self._state.current(), {"client": False})
        ask = self._state.connected and (deep or (self._state.frame_age() or 0.0) > OLD_FRAME)
        if self._asked_at is None or client.heard_at > self._asked_at:
            self._asked_at = time.monotonic()
        try:
            answer = await client.call("look", limit, ask=ask, seconds=limit * 0.8)
        except EngineError as error:
            if error.code == "timeout":
                await self._end_hanging(client)
            raise
        self._asked_at = None
        self._state.note_frame(answer.get("frame_age"))
        detail: dict[str, Any] = {
            "client": True,
            "pid": client.pid,
            "open": answer.get("open") is True,
        }
        if isinstance(seconds := answer.get("ping_seconds"), int | float):
            detail["ping_seconds"] = round(seconds, 4)
        return ProbeAnswer(self._state.current(), detail)

    async def lease(self, until: float | None) -> None:
        """Node ends the connection past it by itself, whatever becomes of this process."""
        self._lease = until
        if self._client is not None and self._client.alive:
            await self._client.call("lease", 5.0, until=shown_by_monotonic(until))

    async def qr(self) -> Qr | None:
        state = self._state
        if state.code() is None and state.claim.reason in WAITING:
            await self.connect()
        deadline = time.monotonic() + 3.0
        while state.code() is None and self._client is not None and time.monotonic() < deadline:
            if state.claim.status in (Status.CONNECTED, Status.DISCONNECTED):
                break
            await asyncio.sleep(0.05)
        return state.code()

    async def send(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        if not isinstance(message.get("to"), str) or not message["to"]:
            raise InvalidRequest("cannot send: the message names no receiver", field="to")
        client = self._connected("send")
        answer = await client.call("send", SENDING, seconds=ANSWER, message=dict(message))
        sent = {"id": str(answer.get("id", "")), "outcome": str(answer.get("outcome", ""))}
        if sent["outcome"] == "unknown":
            return {**sent, "cause": f"WhatsApp did not confirm it within {ANSWER:.0f} s"}
        if sent["outcome"] != "sent":
            raise EngineError(
                f"cannot send: WhatsApp refused the message with error {answer.get('error')}",
                code="refused",
            )
        return sent

    async def logout(self) -> None:
        client = self._client
        if client is None or not self._state.connected:
            raise EngineError("cannot log out: not connected", code="not_connected")
        # WhatsApp's confirmation comes before the answer, and makes the claim.
        await client.call("logout", 15.0)

    async def regenerate_keys(self, peers: list[str]) -> None:
        """The client ends first: a running one would write the old keys back."""
        await self._stop_connecting()
        async with self._busy:
            again = self._state.connected
            await self._hang_up()
            removed = await asyncio.to_thread(set_aside, self._folder, peers)
            for peer in peers:
                self._state.happened("key_regeneration", peer=peer, ok=bool(removed))
        if again:
            await self.connect()
        if not removed:
            raise EngineError(
                "cannot make new keys: this session holds none of these peers", code="no_keys"
            )

    async def free_memory(self) -> None:
        if self._client is not None and self._client.alive:
            await self._client.call("free", 5.0)

    async def prepare_stop(self) -> None:
        self._stopping = True

    async def save(self) -> None:
        if self._client is not None and self._client.alive:
            await self._client.call("save", 30.0)

    async def save_elsewhere(self, folder: Path) -> None:
        raise EngineError(
            f"cannot save the session into {folder}: its keys are in the lost folder alone",
            code="not_supported",
        )

    async def close(self) -> None:
        await self._stop_connecting()
        async with self._busy:
            await self._hang_up()

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if name == "file_part":
            taker = self._connected("take a part of a file")
            return await taker.call("file_part", ANSWER, part=dict(arguments))
        if name == "pairing_code":
            client = self._client
            if client is None or self._state.claim.status is not Status.QR_REQUIRED:
                raise EngineError(
                    "cannot make a pairing code: no login waits for one", code="not_waiting"
                )
            return await client.call("pairing_code", 20.0, phone=str(arguments.get("phone", "")))
        raise InvalidRequest(
            f"cannot {name!r:.40}: baileys knows pairing_code and file_part", field="name"
        )

    async def _open(self) -> "Client | PackedClient":
        if self._client is not None and self._client.alive and not self._state.spoiled:
            return self._client
        await self._end_client()
        now = time.monotonic()
        self._ends = [at for at in self._ends if now - at < STARTS_WITHIN]
        if self._ends and len(self._ends) > self._settings.client_starts:
            raise EngineError(
                f"the client ended {len(self._ends)} times in ten minutes", code="client_crashed"
            )
        client = await self._begin_client()
        self._client, self._state.spoiled = client, True
        answer = await client.call("open", 20.0, **self._orders())
        self._state.spoiled = False
        self._state.note_identity(answer)
        return client

    async def _begin_client(self) -> "Client | PackedClient":
        heard, ended = self._state.hear, self._client_ended
        if self._pack is not None:
            return await PackedClient.join(self._pack, self._folder, heard, ended, self._find_parts)
        # Not above: a session of a pack does not need it, so it would only cost memory there.
        from agent.engines.baileys.client import Client

        return await Client.start(*await self._find_parts(), heard, ended)

    async def _find_parts(self) -> tuple[Path, Path]:
        """Node and the packages; ConfigError says what is missing, and the next try looks again."""
        from agent.engines.baileys.node import find_node
        from agent.engines.baileys.packages import find_packages

        return await asyncio.to_thread(find_node), find_packages(self._cache)

    async def _end_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.kill("its store failed")

    def _orders(self) -> dict[str, Any]:
        version = self._settings.version
        if version == KNOWN_GOOD:
            version = read_version(self._folder)
        return {
            "folder": str(self._folder),
            "paired": self._state.claim.paired,
            "url": self._settings.url,
            "version": [int(part) for part in version.split(".")] if version else None,
            "browser": self._settings.device_name,
            "proxy": self._settings.proxy,
            "until": shown_by_monotonic(self._lease),
        }

    async def _hang_up(self) -> None:
        client, self._client = self._client, None
        self._state.forget_code()
        if client is None:
            return
        if client.alive:
            try:
                await client.call("disconnect", 20.0)
            except EngineError as error:
                log.warning("the client did not save in order: %s", error)
        await client.close()

    async def _end_hanging(self, client: "Client | PackedClient") -> None:
        """End a client whose loop hangs; the next connect starts another. One late answer on a busy
        machine is no such loop."""
        now = time.monotonic()
        silent = now - max(self._asked_at or now, client.heard_at)
        if client is self._client and silent >= client.hangs_after:
            self._asked_at = None
            await client.kill("its loop stood still")
            self._client_ended(f"its loop did not answer within {silent:.0f} s; it was killed")

    def _client_ended(self, why: str) -> None:
        log.warning("Node of this session: %s", why)
        self._client = None
        self._state.forget_code()
        self._ends.append(time.monotonic())
        if self._pack is not None:
            self._state.happened("pack_ended", text=why)
            self._state.change(Status.DISCONNECTED, "pack_ended", raw=why)
            return
        self._state.happened("error", code="client_ended")
        self._state.change(Status.DISCONNECTED, "client_crashed", raw=why)

    def _connected(self, what: str) -> "Client | PackedClient":
        client = self._client
        if client is None or not self._state.connected or self._stopping:
            raise EngineError(f"cannot {what}: not connected", code="not_connected")
        return client
