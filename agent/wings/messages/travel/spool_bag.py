"""What a session keeps of messages goes with it: in pieces of its spool, and a head that says how
far all of it is. Records are read from the disk only when there are new ones."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.core.fleet.baggage import Journey, Packing
from agent.core.model import InstanceId
from agent.errors import VaultError
from agent.files import open_plain
from agent.supervise.messages.kept_messages import KeptMessages
from agent.vault.errors import explain
from agent.wings.messages.readers import Readers
from agent.wings.messages.spool.folder import LONGEST_STATE, STATE, State, parse_state
from agent.wings.messages.travel.arriving_spool import Arriving
from agent.wings.messages.travel.pieces import Cutter

FOLDER, HEAD = "messages", "head"


class MessagesBag:
    def __init__(self, root: Path, source: KeptMessages, readers: Readers) -> None:
        self._root = root
        self._source = source
        self._readers = readers
        self._cutters: dict[InstanceId, Cutter] = {}

    def mark(self, id: InstanceId) -> Hashable:
        newest, settled = self._source.position(id)
        return (newest, settled, self._readers.of(id)) if newest else None

    def left_out(self) -> Mapping[InstanceId, int]:
        """Records that no stored piece holds, as there are too many that nobody has."""
        return {id: it.left_out for id, it in self._cutters.items() if it.left_out}

    async def pack(self, id: InstanceId, *, fresh: bool, exact: bool) -> Packing:
        folder = self._root / id / FOLDER
        if not await asyncio.to_thread(folder.is_dir):
            self._cutters.pop(id, None)
            return Packing()
        cutter = self._cutters.get(id)
        if cutter is None or fresh:
            cutter = self._cutters[id] = Cutter(folder)
        known, settled = self._source.position(id)
        try:
            return await asyncio.to_thread(self._pack, id, cutter, (known, settled), exact, fresh)
        except OSError as error:
            raise VaultError(
                f"cannot store the messages of {id} for the fleet: {error.strerror} ({folder});"
                " a worker that began before its machine joined the fleet keeps them for itself:"
                " restart it",
                code="unreadable",
            ) from error

    def _pack(
        self, id: InstanceId, cutter: Cutter, at: tuple[int, int], exact: bool, fresh: bool
    ) -> Packing:
        state = _read_state(cutter.folder)
        settled = max(state.settled, at[1])
        if settled < at[0] or exact or fresh:
            packing = cutter.cut(settled, fresh=fresh, exact=exact)
        else:  # everybody has everything: nothing of it is read
            packing = cutter.rest(settled)
        newest = max(cutter.newest, at[0], settled)
        head = {
            "v": 1,
            "oldest": cutter.oldest,
            "newest": newest,
            "state": {**asdict(state), "settled": settled},
            "reader": self._readers.of(id),
            "at": time.time(),
        }
        text = json.dumps(head).encode()
        return Packing({**packing.write, HEAD: lambda: text}, packing.kept)

    async def unpack(
        self,
        id: InstanceId,
        names: Sequence[str],
        read: Callable[[str], Awaitable[bytes]],
        journey: Journey,
    ) -> None:
        head: dict[str, Any] = json.loads(await read(HEAD)) if HEAD in names else {}
        arriving = Arriving(journey.folder / FOLDER, journey)
        try:
            await asyncio.to_thread(arriving.begin)
            for name in sorted(name for name in names if name != HEAD):
                await asyncio.to_thread(arriving.add, await read(name))
            state = parse_state(json.dumps(head.get("state", {})).encode())
            oldest, newest = int(head.get("oldest", 0)), int(head.get("newest", 0))
            await asyncio.to_thread(arriving.end, state, oldest, newest)
        except OSError as error:
            raise explain("write the messages of", journey.folder / FOLDER, error) from error
        except (ValueError, TypeError) as error:
            raise VaultError(
                f"cannot use the stored messages of {id}: {error}", code="damaged"
            ) from error
        finally:
            arriving.abandon()
        if cursor := int(head.get("reader") or 0):
            await self._readers.note(id, cursor)

    async def leave(self, id: InstanceId) -> None: ...

    async def follow(self, id: InstanceId) -> None: ...

    def stay(self, id: InstanceId) -> None: ...


def _read_state(folder: Path) -> State:
    try:
        with open_plain(folder / STATE) as file:
            return parse_state(file.read(LONGEST_STATE))
    except (FileNotFoundError, ValueError, TypeError, RecursionError):
        return State()  # as its worker takes it
