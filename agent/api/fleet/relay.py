"""Live events of other machines for one listener, who keeps listening while a machine is away."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import WSCloseCode, WSMsgType
from yarl import URL

from agent.api.http.auth import Caller
from agent.api.http.fleet_gate import show_caller
from agent.fleet.directory import Directory
from agent.fleet.peers import PeerAway, Peers

Send = Callable[[dict[str, Any]], Awaitable[None]]

_LOOK = 2.0
"""Seconds between two looks for machines that are new in the fleet."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 10.0
_HEARTBEAT = 15.0
_MOST_IN_QUERY = 100
"""Ids in an address; the events of more of them are chosen here."""


class Relay:
    def __init__(
        self,
        directory: Directory,
        peers: Peers,
        caller: Caller,
        query: Mapping[str, Any],
        send: Send,
    ) -> None:
        """`query`: what the listener wants."""
        self._directory = directory
        self._peers = peers
        self._caller = show_caller(caller)
        self._instances = frozenset(query.get("instance", ()))
        self._query = {
            name: ",".join(query[name])
            for name in ("kind", "category", "instance")
            if name in query and len(query[name]) <= _MOST_IN_QUERY
        }
        self._send = send

    async def follow_all(self) -> None:
        """Until it is cancelled, or the listener takes no more."""
        followed: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                for row in self._directory.others:
                    if row.name not in followed or followed[row.name].done():
                        followed[row.name] = group.create_task(self.follow(row.name))
                await asyncio.sleep(_LOOK)

    async def follow(self, name: str, *, after: int | None = None, whole: bool = False) -> None:
        """One machine's events, while it is in the fleet.

        After a break they go on behind the last one. `whole`: its own frames are passed on too.
        """
        following = _Following(name, self._send, self._instances, after, whole=whole)
        pause = _FIRST_PAUSE
        while (row := self._directory.machines.get(name)) is not None:
            code, cause = None, "it ended the connection"
            try:
                path = self._path(following.cursor)
                async with self._peers.listen(
                    row, path, self._caller, heartbeat=_HEARTBEAT
                ) as socket:
                    async for message in socket:
                        if message.type is WSMsgType.TEXT:
                            pause = _FIRST_PAUSE
                            await following.take(message.data)
                    code = socket.close_code
            except PeerAway as error:
                cause = str(error)
            if code == WSCloseCode.TRY_AGAIN_LATER:
                continue  # too much at once; the rest is read from its journal
            await following.lose(cause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _path(self, cursor: int | None) -> str:
        query = {**self._query} if cursor is None else {**self._query, "after": str(cursor)}
        return str(URL.build(path="/api/events", query=query))


class _Following:
    """What a listener knows of one machine."""

    def __init__(
        self,
        name: str,
        send: Send,
        instances: frozenset[str],
        cursor: int | None,
        *,
        whole: bool,
    ) -> None:
        self.cursor = cursor
        self._name = name
        self._send = send
        self._instances = instances
        self._whole = whole
        self._away = False

    async def take(self, text: str) -> None:
        try:
            frame = json.loads(text)
            kind, cursor = frame["type"], frame.get("cursor")
        except (ValueError, TypeError, KeyError, AttributeError):
            return
        if self._away:
            self._away = False
            await self._send({"type": "machine_back", "machine": self._name})
        wanted = not self._instances or frame.get("instance") in self._instances
        if (kind == "event" and wanted) or kind == "reset" or (self._whole and kind != "event"):
            await self._send({**frame, "machine": self._name})
        if isinstance(cursor, int) and (cursor or kind == "reset"):
            self.cursor = cursor

    async def lose(self, cause: str) -> None:
        if not self._away:
            self._away = True
            await self._send({"type": "machine_away", "machine": self._name, "message": cause})
