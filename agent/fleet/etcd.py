"""etcd over the JSON gateway of its members, 3.4 or newer.

A read goes to the next member on any error. A write goes to the next one only if the connection
was not made: a write that was sent and not answered may have happened.

A key that ends with "/" means all keys below it. Each value has the revision of the write that
made it; a key that is absent has revision 0.
"""

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import aiohttp
import msgspec

from agent.errors import TryLater
from agent.supervise.reach import cause_of

T = TypeVar("T")
EACH, CONNECT = 1.0, 0.7
"""Seconds for one member's answer, and those of them in which it must have taken a connection."""
LARGEST = 8 << 20
"""Bytes of one line of a watch."""


class StoreAway(TryLater):
    """The store gave no usable answer. Nothing was written, unless it is MayHaveHappened."""

    code = "fleet_store"


class MayHaveHappened(StoreAway):
    """A write was sent and not answered: it is committed, or may still be at any later moment.

    Never send it again. The next compare-and-swap on the same key says what became of it.
    """


class Pair(msgspec.Struct, frozen=True):
    key: str
    value: bytes
    revision: int


class Same(msgspec.Struct, frozen=True):
    """True if `key` still has the value that `revision` wrote; 0: if it is absent. With a `value`,
    which one write alone makes: if it has that. A store that went back repeats revisions."""

    key: str
    revision: int
    value: bytes = b""


class Put(msgspec.Struct, frozen=True):
    key: str
    value: bytes


class Delete(msgspec.Struct, frozen=True):
    key: str


class Get(msgspec.Struct, frozen=True):
    """A read of keys. `since`: only what this revision or a later one wrote."""

    key: str
    since: int = 0


Step = Put | Delete | Get


class Answer(msgspec.Struct, frozen=True):
    committed: bool
    """True if every Same held; else nothing was written."""
    revision: int
    """Revision of the whole store, which is that of this write if it wrote."""
    cluster: str
    """Identity of the etcd cluster: another one after a restore under new addresses."""
    found: Sequence[Sequence[Pair]]
    """Answer to each Get, in their order."""


class _Kv(msgspec.Struct):
    key: bytes
    value: bytes = b""
    mod_revision: int = 0


class _Header(msgspec.Struct):
    cluster_id: str = ""
    revision: int = 0


class _Range(msgspec.Struct):
    header: _Header = msgspec.field(default_factory=_Header)
    kvs: list[_Kv] = []


class _Txn(msgspec.Struct):
    header: _Header
    succeeded: bool = False
    responses: list[dict[str, _Range]] = []


class _Events(msgspec.Struct):
    events: list[dict[str, _Kv]] = []


class Member(msgspec.Struct, rename={"id": "ID", "peers": "peerURLs", "clients": "clientURLs"}):
    id: str
    name: str = ""
    """Name of the member; "" until it has started."""
    peers: list[str] = []
    clients: list[str] = []


class _Members(msgspec.Struct):
    members: list[Member] = []


class Etcd:
    """One client. Made inside a running loop; `aclose` ends it. Every answer is linearizable, but
    for `watch` and the members; each call raises StoreAway."""

    def __init__(self, members: Sequence[str], tls: ssl.SSLContext | None = None) -> None:
        """`members`: the addresses as "https://10.0.0.1:2379"."""
        self._members = list(members)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls or True),
            timeout=aiohttp.ClientTimeout(total=EACH, sock_connect=CONNECT),
            read_bufsize=LARGEST,
        )
        self.aclose = self._session.close

    async def commit(
        self, same: Sequence[Same], then: Sequence[Step], otherwise: Sequence[Get] = ()
    ) -> Answer:
        """One transaction: `then` if every Same holds, else `otherwise`. MayHaveHappened if it was
        sent and not answered."""
        compare, success = [*map(_compare, same)], [*map(_operation, then)]
        asked = {"compare": compare, "success": success, "failure": [*map(_operation, otherwise)]}
        txn = await self._ask("kv/txn", asked, _Txn, writes=True)
        ranges = [it["response_range"] for it in txn.responses if "response_range" in it]
        found = [[*map(_pair, it.kvs)] for it in ranges]
        return Answer(txn.succeeded, txn.header.revision, txn.header.cluster_id, found)

    async def read(self, get: Get) -> Answer:
        one = await self._ask("kv/range", _range(get), _Range)
        return Answer(True, one.header.revision, one.header.cluster_id, [[*map(_pair, one.kvs)]])

    async def watch(self, key: str) -> AsyncIterator[Pair]:
        """Yield pairs as they are written from now on; one may be left out."""
        asked = msgspec.json.encode({"create_request": _keys(key)})
        # Each machine renews far sooner: a watch that is silent for so long is a broken one.
        endless = aiohttp.ClientTimeout(sock_connect=CONNECT, sock_read=60.0)
        member = self._members[0]
        try:
            async with self._session.post(f"{member}/v3/watch", data=asked, timeout=endless) as it:
                async for line in it.content:
                    heard = msgspec.json.decode(line, type=dict[str, _Events], strict=False)
                    for event in heard["result"].events:
                        yield _pair(event["kv"])
        except (aiohttp.ClientError, OSError, ValueError, KeyError) as error:
            raise StoreAway(f"cannot watch etcd at {member}: {cause_of(error)}") from error

    async def compact(self, revision: int) -> None:
        """Forget the older values of keys, as of this revision."""
        await self._ask("kv/compaction", {"revision": str(revision)}, _Members)

    async def members(self, how: str = "list", member: Any = None) -> list[Member]:
        """Return the members as they are, or after `how`, a change of one."""
        return (await self._ask(f"cluster/member/{how}", member or {}, _Members)).members

    async def is_well(self, member: Member) -> bool:
        with suppress(aiohttp.ClientError, OSError, ValueError, IndexError):
            async with self._session.get(f"{member.clients[0]}/health") as reply:
                return b'"true"' in await reply.read()
        return False

    async def _ask(self, path: str, asked: Any, kind: type[T], *, writes: bool = False) -> T:
        """Ask the members in turn, the one that answered last first."""
        body, causes = msgspec.json.encode(asked), list[str]()
        for _ in range(len(self._members)):
            member = self._members[0]
            try:
                async with self._session.post(f"{member}/v3/{path}", data=body) as reply:
                    content = await reply.read()
                if reply.status == 200:
                    return msgspec.json.decode(content, type=kind, strict=False)
                cause, sent = content[:200].decode(errors="replace"), True
            except (aiohttp.ClientError, OSError, ValueError) as error:
                cause, sent = cause_of(error), not isinstance(error, _NOT_MADE)
            self._members.append(self._members.pop(0))
            if writes and sent:
                raise MayHaveHappened(f"cannot know if etcd wrote; no majority? {member}: {cause}")
            causes.append(f"{member}: {cause}")
        raise StoreAway(f"cannot reach etcd: {'; '.join(sorted(causes))}")


_NOT_MADE = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


def _keys(key: str) -> dict[str, bytes]:
    below = {"range_end": key[:-1].encode() + b"0"}  # "0" comes right after "/"
    return {"key": key.encode(), **(below if key.endswith("/") else {})}


def _range(get: Get) -> dict[str, Any]:
    return {**_keys(get.key), "min_mod_revision": str(get.since)}


def _compare(same: Same) -> dict[str, Any]:
    if same.value:
        return {"key": same.key.encode(), "target": "VALUE", "value": same.value}
    return {"key": same.key.encode(), "target": "MOD", "mod_revision": str(same.revision)}


def _operation(it: Step) -> dict[str, Any]:
    if isinstance(it, Get):
        return {"request_range": _range(it)}
    if isinstance(it, Delete):
        return {"request_delete_range": _keys(it.key)}
    return {"request_put": {"key": it.key.encode(), "value": it.value}}


def _pair(kv: _Kv) -> Pair:
    return Pair(kv.key.decode(), kv.value, kv.mod_revision)
