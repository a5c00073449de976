"""One Node for the sessions of many workers: started, watched, shared, ended as a whole.

A worker connects to the pack's socket and hands over the open folder of its session; the pack's
unit sees no other. Each connection is one session, in JSON lines like a client's, and ends with its
worker.
"""

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.engines.baileys.client import Client
from agent.engines.baileys.codes import stray_words
from agent.engines.baileys.conversation import MOST_LINES
from agent.engines.baileys.node import find_node
from agent.engines.baileys.packages import find_packages
from agent.engines.surroundings import cache_folder
from agent.errors import EngineError, WaError

log = logging.getLogger(__name__)

TICK, TICK_WITHIN = 2.0, 3.0
"""Seconds between two looks at Node, and for its answer."""
LONGEST_ORDER = 2 << 20
ORDERS_AT_ONCE = 64
ORDER_WITHIN = 90.0
"""Seconds; the worker waits less."""
UNREAD = 4 << 20
"""Bytes that a worker may leave unread."""
FORGET_WITHIN, FREE_WITHIN = 20.0, 25.0
MEMORY, MEMORY_EACH = 256 << 20, 64 << 20
"""Bytes that Node may use, and more for each of its sessions: above that it leaks."""
ORDERS = frozenset(
    [
        "open",
        "lease",
        "connect",
        "disconnect",
        "look",
        "pairing_code",
        "send",
        "read",
        "presence",
        "file_part",
        "file_open",
        "file_next",
        "file_close",
        "kept",
        "logout",
        "save",
        "free",
        "upload_pre_keys",
    ]
)


@dataclass(eq=False, slots=True)
class Member:
    name: str
    folder: int
    """The open folder that its worker handed over."""
    place: tuple[int, int]
    writer: asyncio.StreamWriter
    orders: set[asyncio.Task[None]] = field(default_factory=set)

    def send(self, line: Mapping[str, Any]) -> None:
        if self.writer.transport.get_write_buffer_size() > UNREAD:
            log.error("a worker reads nothing of its session's lines: its connection is closed")
            self.writer.transport.abort()
        else:
            self.writer.write(
                json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
            )


class Pack:
    """`ended` is set with the cause when Node ended; the pack ends then, and its host starts it
    again."""

    def __init__(self, name: str, ended: Callable[[str], None]) -> None:
        self._name = name
        self._ended = ended
        self._members: dict[str, Member] = {}
        self._places: dict[tuple[int, int], asyncio.Event] = {}
        """Folders that Node may still write to; set when it has let go."""
        self._count = 0
        self._client: Client | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def sessions(self) -> int:
        return len(self._members)

    async def open(self) -> None:
        node = await asyncio.to_thread(find_node)
        packages = find_packages(cache_folder())
        self._client = await Client.start(node, packages, self._pass_on, self._node_ended)

    async def serve(self, listener: socket.socket) -> None:
        """Take in workers until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listener)
            task = asyncio.create_task(self._serve(sock), name="member")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def watch(self, alive: Callable[[], None]) -> None:
        """`alive` is called after each answer of Node's loop."""
        while (client := self._client) is not None:
            client.most_lines = MOST_LINES * max(self.sessions, 1)
            with suppress(EngineError):
                await client.call("tick", TICK_WITHIN)
                alive()
            silent = time.monotonic() - client.heard_at
            limit = MEMORY + MEMORY_EACH * self.sessions
            if silent >= client.hangs_after:
                await self._end_node(client, f"its loop did not answer within {silent:.0f} s")
            elif (used := memory_of(client.pid)) > limit:
                words = f"it used {used >> 20} MiB, and {limit >> 20} MiB is its limit"
                await self._end_node(client, words)
            await asyncio.sleep(TICK)

    async def prepare_stop(self) -> None: ...

    async def save(self) -> None:
        if self._client is not None:
            names = list(self._members)
            await asyncio.gather(*(self._client.call("save", 20.0, session=n) for n in names))

    async def close(self) -> None:
        client, self._client = self._client, None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if client is not None:
            await client.close()

    async def _end_node(self, client: Client, why: str) -> None:
        if client.alive:
            await client.kill(why)
            self._node_ended(why)

    def _node_ended(self, why: str) -> None:
        self._client = None
        words = f"Node of pack {self._name}, which {self.sessions} sessions share, ended: {why}"
        log.error("%s", words)
        for member in self._members.values():
            member.send({"event": "ended", "why": words})
        self._ended(words)

    def _pass_on(self, event: Mapping[str, Any]) -> None:
        """Pass an event of Node on to the worker of its session."""
        member = self._members.get(str(event.get("session", "")))
        if member is not None:
            member.send({key: value for key, value in event.items() if key != "session"})
        elif event.get("event") == "stray":
            log.warning("%s", stray_words(event))

    async def _serve(self, sock: socket.socket) -> None:
        try:
            folder = await take_folder(sock)
        except (OSError, TimeoutError) as error:
            log.warning("a connection handed over no folder: %s", error)
            sock.close()
            return
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=LONGEST_ORDER)
        status = os.fstat(folder)
        self._count += 1
        member = Member(str(self._count), folder, (status.st_dev, status.st_ino), writer)
        try:
            async with asyncio.timeout(FREE_WITHIN):
                while (busy := self._places.get(member.place)) is not None:
                    await busy.wait()
        except TimeoutError:
            log.error("a session's folder is still in use: its new worker must try again")
            writer.close()
            os.close(folder)
            return
        self._places[member.place] = asyncio.Event()
        self._members[member.name] = member
        try:
            member.send({"event": "ready", "pid": self._client.pid if self._client else 0})
            await self._take_orders(member, reader)
        finally:
            await asyncio.shield(self._leave(member))

    async def _take_orders(self, member: Member, reader: asyncio.StreamReader) -> None:
        with suppress(OSError, ValueError, RecursionError):
            while line := await reader.readline():
                order = json.loads(line)
                if not is_order(order) or len(member.orders) >= ORDERS_AT_ONCE:
                    raise ValueError
                task = asyncio.create_task(self._carry_out(member, order), name="order")
                member.orders.add(task)
                task.add_done_callback(member.orders.discard)
            return
        log.error("a worker sent a line that is no order: its connection is closed")

    async def _carry_out(self, member: Member, order: dict[str, Any]) -> None:
        number, do = order.pop("id"), order.pop("do")
        if do == "open":
            order["folder"] = f"/proc/{os.getpid()}/fd/{member.folder}"
        order["session"] = member.name
        try:
            if self._client is None:
                raise EngineError("Node of the pack ended", code="not_ready")
            ok = await self._client.call(do, ORDER_WITHIN, **order)
            member.send({"answer": number, "ok": ok})
        except WaError as error:
            answer = {"code": error.code or "engine", "message": str(error)}
            member.send({"answer": number, "error": answer})

    async def _leave(self, member: Member) -> None:
        """Node closes the session's files before another worker may bring them again."""
        for task in list(member.orders):
            task.cancel()
        member.writer.close()
        try:
            if (client := self._client) is not None:
                await client.call("forget", FORGET_WITHIN, session=member.name)
        except EngineError as error:
            if self._client is not None:
                await self._end_node(self._client, f"it did not let go of a session: {error}")
        finally:
            del self._members[member.name]
            os.close(member.folder)
            self._places.pop(member.place).set()


open_pack = Pack


def is_order(raw: object) -> bool:
    if not isinstance(raw, dict) or "within" in raw or "self" in raw:
        return False
    return raw.get("do") in ORDERS and type(raw.get("id")) is int


async def take_folder(sock: socket.socket) -> int:
    """The open folder that comes with a connection's first byte."""
    sock.setblocking(False)
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sock, readable.set)
    try:
        async with asyncio.timeout(5.0):
            await readable.wait()
    finally:
        loop.remove_reader(sock)
    _, files, _, _ = socket.recv_fds(sock, 1, 1)
    if not files:
        raise OSError("its first byte came without one")
    for more in files[1:]:
        os.close(more)
    return files[0]


def memory_of(pid: int) -> int:
    """Bytes in memory; 0 where the process is gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
