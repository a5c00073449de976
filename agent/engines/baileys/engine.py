"""The baileys engine: one session on the unmodified library, in a Node process under its worker."""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.core.words import Claim, ConnectionStatus, Happening
from agent.engines.baileys.client import Client
from agent.engines.baileys.codes import CRYPTO_WORDS, why_closed
from agent.engines.baileys.files import set_aside
from agent.engines.baileys.node import find_node
from agent.engines.baileys.packages import find_packages
from agent.engines.baileys.settings import KNOWN_GOOD, BaileysSettings, read_settings
from agent.engines.base import ProbeAnswer, Qr, Reporter
from agent.engines.surroundings import cache_folder, probe_limit
from agent.errors import EngineError, InvalidRequest, WaError
from agent.files import write_whole

log = logging.getLogger(__name__)

Status = ConnectionStatus
NOTE = "baileys.json"
OLD_FRAME = 20.0
"""Seconds after which a frame no longer proves the connection: WhatsApp is asked."""
FIRST_CODE, NEXT_CODE = 60.0, 20.0
SENDING, ANSWER = 60.0, 8.0
"""Seconds for the whole of it, and for WhatsApp's confirmation once it was handed over."""
STARTS_WITHIN = 600.0
HANGS = 10.0
"""Seconds without a line of a client that was asked for one: its loop stands still."""
WAITING = frozenset({"qr_idle", "passkey_required"})
"""Reasons of a login that waits for a person."""
MISSING = frozenset({"node_missing", "packages_missing"})
STORE = frozenset({"session_missing", "session_damaged", "storage_failed"})


def open_engine(folder: Path, settings: Mapping[str, Any], reporter: Reporter) -> "BaileysEngine":
    return BaileysEngine(folder, read_settings(settings), reporter)


class BaileysEngine:
    """Translates between the client and the worker. It never reconnects by itself."""

    def __init__(self, folder: Path, settings: BaileysSettings, reporter: Reporter) -> None:
        self._folder = folder
        self._settings = settings
        self._reporter = reporter
        self._cache = cache_folder()
        self._claim = Claim(Status.INITIALIZING, phase="process")
        self._client: Client | None = None
        self._code: Qr | None = None
        self._code_until = 0.0
        self._codes = 0
        self._stopping = False
        self._ends: list[float] = []
        self._spoiled = False
        """The client's store failed: its memory is not what the disk holds, so it ends first."""
        self._asked_at: float | None = None
        self._work: asyncio.Task[None] | None = None
        self._frame_age: float | None = None
        self._frame_at = 0.0
        self._busy = asyncio.Lock()

    # what the worker calls

    async def connect(self) -> None:
        if self._stopping:
            raise EngineError("cannot connect: the session is stopping", code="stopping")
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._connect(), name="connect")
        # A caller that gives up ends only its waiting: the claims tell how it goes on.
        work = self._work
        await asyncio.wait({work})
        if work.cancelled():
            raise EngineError("cannot connect: it was stopped meanwhile", code="stopping")
        work.result()

    async def _connect(self) -> None:
        async with self._busy:
            if self._has_connection():
                return
            self._codes, self._code = 0, None
            self._tell(Status.INITIALIZING, phase="attached", until_wall=None)
            try:
                client = await self._open()
                await client.call("connect", 15.0)
            except WaError as error:
                self._failed(error)
            except OSError as error:
                self._failed(EngineError(f"cannot start the client: {error}"))

    def _has_connection(self) -> bool:
        """Each end of a connection comes with another claim, so such a claim says it is there."""
        if self._client is None or not self._client.alive or self._spoiled:
            return False
        return self._claim.status in (Status.CONNECTED, Status.LOADING) or self._code is not None

    async def _stop_connecting(self) -> None:
        if self._work is not None and not self._work.done():
            self._work.cancel()
            await asyncio.wait({self._work})

    async def disconnect(self) -> None:
        await self._stop_connecting()
        async with self._busy:
            await self._hang_up()
        self._tell(Status.DISCONNECTED)

    async def probe(self, *, deep: bool = False) -> ProbeAnswer:
        limit = probe_limit()
        client = self._client
        if client is None or not client.alive:
            return ProbeAnswer(self._now(), {"client": False})
        connected = self._claim.status is Status.CONNECTED
        ask = connected and (deep or (self._age() or 0.0) > OLD_FRAME)
        if self._asked_at is None or client.heard_at > self._asked_at:
            self._asked_at = time.monotonic()
        try:
            answer = await client.call("look", limit, ask=ask, seconds=limit * 0.8)
        except EngineError as error:
            if error.code == "timeout":
                await self._end_hanging(client)
            raise
        self._asked_at = None
        self._note_age(answer.get("frame_age"))
        detail: dict[str, Any] = {
            "client": True,
            "pid": client.pid,
            "open": answer.get("open") is True,
        }
        if isinstance(seconds := answer.get("ping_seconds"), int | float):
            detail["ping_seconds"] = round(seconds, 4)
        return ProbeAnswer(self._now(), detail)

    async def qr(self) -> Qr | None:
        if self._code is None and self._claim.reason in WAITING:
            await self.connect()
        deadline = time.monotonic() + 3.0
        while self._code is None and self._client is not None and time.monotonic() < deadline:
            if self._claim.status in (Status.CONNECTED, Status.DISCONNECTED):
                break
            await asyncio.sleep(0.05)
        if self._code is None:
            return None
        return replace(self._code, expires_in=max(self._code_until - time.monotonic(), 0.0))

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
        if client is None or self._claim.status is not Status.CONNECTED:
            raise EngineError("cannot log out: not connected", code="not_connected")
        # WhatsApp's own word of it comes before the answer, and makes the claim.
        await client.call("logout", 15.0)

    async def regenerate_keys(self, peers: list[str]) -> None:
        """The client ends first: a running one would write the old keys back."""
        await self._stop_connecting()
        async with self._busy:
            again = self._claim.status is Status.CONNECTED
            await self._hang_up()
            removed = await asyncio.to_thread(set_aside, self._folder, peers)
            for peer in peers:
                self._happened("key_regeneration", peer=peer, ok=bool(removed))
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
            if client is None or self._claim.status is not Status.QR_REQUIRED:
                raise EngineError(
                    "cannot make a pairing code: no login waits for one", code="not_waiting"
                )
            return await client.call("pairing_code", 20.0, phone=str(arguments.get("phone", "")))
        raise InvalidRequest(
            f"cannot {name!r:.40}: baileys knows pairing_code and file_part", field="name"
        )

    # the client's process

    async def _open(self) -> Client:
        if self._client is not None and self._client.alive and not self._spoiled:
            return self._client
        await self._end_client()
        now = time.monotonic()
        self._ends = [at for at in self._ends if now - at < STARTS_WITHIN]
        if self._ends and len(self._ends) > self._settings.client_starts:
            raise EngineError(
                f"the client ended {len(self._ends)} times in ten minutes", code="client_crashed"
            )
        # What is missing may be there for the next try.
        node = await asyncio.to_thread(find_node)
        packages = find_packages(self._cache)
        client = await Client.start(node, packages, self._heard, self._client_ended)
        self._client, self._spoiled = client, True
        answer = await client.call("open", 20.0, **self._orders())
        self._spoiled = False
        self._note_identity(answer)
        return client

    async def _end_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.kill("its store failed")

    def _orders(self) -> dict[str, Any]:
        version = self._settings.version
        if version == KNOWN_GOOD:
            version = _read_note(self._folder).get("version", "")
        return {
            "folder": str(self._folder),
            "paired": self._claim.paired,
            "url": self._settings.url,
            "version": [int(part) for part in version.split(".")] if version else None,
            "browser": self._settings.device_name,
            "proxy": self._settings.proxy,
        }

    async def _hang_up(self) -> None:
        client, self._client = self._client, None
        self._code = None
        if client is None:
            return
        if client.alive:
            try:
                await client.call("disconnect", 20.0)
            except EngineError as error:
                log.warning("the client did not save in order: %s", error)
        await client.close()

    async def _end_hanging(self, client: Client) -> None:
        """A loop that stands still is no client: the next connect starts another.

        A machine under load answers late, so one late answer is not yet such a loop.
        """
        now = time.monotonic()
        silent = now - max(self._asked_at or now, client.heard_at)
        if client is self._client and silent >= HANGS:
            self._asked_at = None
            await client.kill("its loop stood still")
            self._client_ended(f"its loop did not answer within {silent:.0f} s; it was killed")

    def _client_ended(self, why: str) -> None:
        log.warning("Node of this session: %s", why)
        self._client, self._code = None, None
        self._ends.append(time.monotonic())
        self._happened("error", code="client_ended")
        self._tell(Status.DISCONNECTED, "client_crashed", raw=why)

    def _failed(self, error: WaError) -> None:
        reason = error.code if error.code in STORE | MISSING else "client_crashed"
        refused = reason in ("session_missing", "session_damaged")
        status = Status.AUTH_FAILURE if refused else Status.DISCONNECTED
        self._tell(status, reason, raw=str(error))

    # what the client says

    def _heard(self, event: Mapping[str, Any]) -> None:
        handle = getattr(self, f"_on_{event.get('event')}", None)
        if handle is not None:
            handle(event)

    def _on_connecting(self, _event: Mapping[str, Any]) -> None:
        status = Status.LOADING if self._claim.paired else Status.INITIALIZING
        self._tell(status, phase="login")

    def _on_qr(self, event: Mapping[str, Any]) -> None:
        self._codes += 1
        lasts = FIRST_CODE if self._codes == 1 else NEXT_CODE
        self._code = Qr(str(event.get("qr", "")), lasts, self._codes)
        self._code_until = time.monotonic() + lasts
        # The phone that was asked for a passkey is still at it; another may scan the new code.
        asked = "passkey_required" if self._claim.reason == "passkey_required" else ""
        self._tell(Status.QR_REQUIRED, asked, phase="login", raw=f"code {self._codes}")

    def _on_passkey(self, _event: Mapping[str, Any]) -> None:
        if not self._claim.paired:
            self._tell(Status.QR_REQUIRED, "passkey_required", phase="login")

    def _on_paired(self, event: Mapping[str, Any]) -> None:
        self._code = None
        self._note_identity(event)
        self._tell(Status.LOADING, phase="login")

    def _on_open(self, event: Mapping[str, Any]) -> None:
        self._code = None
        self._note_identity(event)
        self._note_age(0.0)
        version = str(event.get("version", ""))
        self._claim = replace(self._claim, version=version)
        self._tell(Status.CONNECTED)
        _write_note(self._folder, {"version": version})

    def _on_close(self, event: Mapping[str, Any]) -> None:
        self._code = None
        code, expire = event.get("code"), event.get("expire")
        ended = why_closed(
            code if isinstance(code, int) else None,
            str(event.get("raw", "")),
            paired=self._claim.paired,
            expire=expire if isinstance(expire, int | float) else None,
            now_wall=time.time(),
        )
        reason = ended.reason
        if reason == "qr_idle" and self._claim.reason == "passkey_required":
            reason = self._claim.reason  # why no scan came to anything
        if reason == "logout":
            self._claim = replace(self._claim, paired=False)
        status = Status.QR_REQUIRED if reason in WAITING else Status.DISCONNECTED
        self._tell(status, reason, raw=ended.raw, until_wall=ended.until_wall)

    def _on_stray(self, event: Mapping[str, Any]) -> None:
        name, code = str(event.get("name", ""))[:40], str(event.get("code", ""))[:40]
        log.warning("the library left an error unhandled: %s %s", name, code)
        self._happened("error", code="stray")

    def _on_store(self, event: Mapping[str, Any]) -> None:
        self._spoiled = True
        self._failed(EngineError(str(event.get("raw", "")), code=str(event.get("code", ""))))

    def _on_restricted(self, event: Mapping[str, Any]) -> None:
        if self._claim.status is not Status.CONNECTED:
            return
        until = event.get("until")
        wall = float(until) if isinstance(until, int | float) else None
        reason = "restricted" if event.get("active") is True else ""
        self._tell(Status.CONNECTED, reason, until_wall=wall if reason else None)

    def _on_refused(self, event: Mapping[str, Any]) -> None:
        self._happened("error", code=f"refused_{event.get('code')}")
        if event.get("code") == 463 and self._claim.status is Status.CONNECTED:
            self._tell(Status.CONNECTED, "restricted", raw="463")

    def _on_message(self, event: Mapping[str, Any]) -> None:
        detail = {key: str(event.get(key, "")) for key in ("direction", "type", "id")}
        self._happened("message", **detail)

    def _on_ack(self, event: Mapping[str, Any]) -> None:
        self._happened("ack", id=str(event.get("id", "")), ack=str(event.get("ack", "")))
        if event.get("refused") == "463":
            self._on_refused({"code": 463})

    def _on_undecryptable(self, event: Mapping[str, Any]) -> None:
        kind = str(event.get("kind", ""))
        if text := CRYPTO_WORDS.get(kind):
            peer, group = str(event.get("peer", "")), str(event.get("group", ""))
            self._happened("crypto_error", pattern=kind, text=text, peer=peer, group=group)

    # small things

    def _connected(self, what: str) -> Client:
        client = self._client
        if client is None or self._claim.status is not Status.CONNECTED or self._stopping:
            raise EngineError(f"cannot {what}: not connected", code="not_connected")
        return client

    def _note_identity(self, said: Mapping[str, Any]) -> None:
        self._claim = replace(
            self._claim,
            paired=said.get("paired") is True,
            account=str(said.get("account", ""))[:40],
        )

    def _note_age(self, age: object) -> None:
        self._frame_age = float(age) if isinstance(age, int | float) else None
        self._frame_at = time.monotonic()

    def _age(self) -> float | None:
        if self._frame_age is None or self._claim.status is not Status.CONNECTED:
            return None
        return self._frame_age + time.monotonic() - self._frame_at

    def _happened(self, kind: str, **detail: Any) -> None:
        self._reporter.happened(Happening(kind, detail))

    def _tell(self, status: ConnectionStatus, reason: str = "", **more: Any) -> None:
        rest: dict[str, Any] = {"phase": "", "progress": None, "raw": "", "until_wall": None}
        self._claim = replace(self._claim, status=status, reason=reason, **(rest | more))
        self._reporter.claim(self._now())

    def _now(self) -> Claim:
        claim = replace(self._claim, proof_age=self._age())
        if claim.status is Status.QR_REQUIRED:
            # What asks for a code does not say in the same word that it is paired.
            return replace(claim, paired=False)
        return claim


def _read_note(folder: Path) -> dict[str, str]:
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in note.items() if isinstance(v, str)} if isinstance(note, dict) else {}


def _write_note(folder: Path, note: Mapping[str, str]) -> None:
    """Not worth a failure: it only helps after WhatsApp refuses a newer version."""
    if _read_note(folder) == note:
        return
    try:
        write_whole(folder / NOTE, json.dumps(dict(note)).encode())
    except OSError as error:
        log.info("cannot note the version that connected: %s", error)
