"""Redis' own protocol (RESP 2) over one connection, with the standard library alone: cron jobs and
containers run this where no Redis library is installed. No error has a key's value or the address'
password.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

LARGEST = 64 << 20
_PORT = 6379
Command = Sequence[bytes | str | int]


class RespError(Exception):
    """Redis answered with an error; `word` is its first one: WRONGTYPE, NOAUTH, ERR."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.word = text.split(" ", 1)[0]


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a Redis is, and who asks it. An empty password is none."""

    host: str = ""
    port: int = _PORT
    socket: str = ""
    """The path of a Unix socket, in the place of host and port."""
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    database: int = 0

    def __str__(self) -> str:
        return self.socket or f"{self.host}:{self.port}"


def read_address(url: str) -> RedisAddress:
    """`redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, rediss:// or unix://; ValueError names
    the fault, without the password."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError("it begins with redis://, rediss:// or unix://")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if user and parts.password is None:
        user, password = "", user  # redis-cli takes the only word before the @ as the password
    options = dict(parse_qsl(parts.query))
    if more := options.keys() - {"db"}:
        raise ValueError(f"it has an unknown option {min(more)!r:.40}; only db is known")
    database = options.get("db") or ("" if parts.scheme == "unix" else parts.path.strip("/"))
    if not (database or "0").isascii() or not (database or "0").isdigit():
        raise ValueError("its database is no number")
    who = RedisAddress(user=user, password=password, database=int(database or 0))
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError("it names no socket")
        return replace(who, socket=unquote(parts.path))
    try:
        port = parts.port or _PORT
    except ValueError:
        raise ValueError("its port is no number") from None
    tls = parts.scheme == "rediss"
    return replace(who, host=parts.hostname or "localhost", port=port, tls=tls)


class Resp:
    """One connection, made when it is needed and again when it was lost; used in turns."""

    def __init__(self, address: RedisAddress, timeout: float = 10.0, ca_file: str = "") -> None:
        """`timeout`: seconds to connect, and for the answers of what is asked at once."""
        self.address = address
        self._timeout = timeout
        self._ca_file = ca_file
        self._turn = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, *commands: Command) -> list[Any]:
        """The answers in order, sent at once; the first error among them is raised."""
        async with self.turn() as conversation:
            return await conversation.ask(*commands)

    @asynccontextmanager
    async def turn(self) -> "AsyncIterator[Conversation]":
        """The connection for several questions that belong together (WATCH … EXEC)."""
        async with self._turn:
            reader, writer = await self._connected()
            conversation = Conversation(reader, writer, self._timeout)
            try:
                yield conversation
            finally:
                if conversation.open_questions or conversation.watches:
                    self._drop()

    async def close(self) -> None:
        self._drop()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None:
            reader, writer = self._streams
            if not reader.at_eof() and not writer.is_closing():
                return self._streams
            self._drop()
        async with asyncio.timeout(self._timeout):
            reader, writer = self._streams = await self._open()
        greeting = _greeting(self.address)
        if greeting:
            try:
                await Conversation(reader, writer, self._timeout).ask(*greeting)
            except BaseException:
                self._drop()
                raise
        return self._streams

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = self.address
        if address.socket:
            return await asyncio.open_unix_connection(address.socket, limit=LARGEST)
        tls = None
        if address.tls:
            tls = ssl.create_default_context()
            if self._ca_file:
                tls.load_verify_locations(self._ca_file)
        return await asyncio.open_connection(address.host, address.port, ssl=tls, limit=LARGEST)

    def _drop(self) -> None:
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()


@dataclass(slots=True)
class Conversation:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    timeout: float
    open_questions: int = 0
    """Questions whose answers were not read: the connection is of no use any more."""
    watches: bool = False
    """WATCH without EXEC or DISCARD: the next question must not stand in it."""

    async def ask(self, *commands: Command) -> list[Any]:
        if not commands:
            return []
        self.open_questions = len(commands)
        answers = []
        async with asyncio.timeout(self.timeout):
            self.writer.write(b"".join(_packed(command) for command in commands))
            await self.writer.drain()
            for _ in commands:
                answers.append(await _answer(self.reader))
                self.open_questions -= 1
        for command, answer in zip(commands, answers, strict=True):
            if isinstance(answer, RespError):
                raise answer
            if command[0] in ("WATCH", "EXEC", "DISCARD"):
                self.watches = command[0] == "WATCH"
        return answers


def _greeting(address: RedisAddress) -> list[Command]:
    raw: list[Command] = []
    if address.password:
        who = [address.user] if address.user else []
        raw.append(["AUTH", *who, address.password])
    if address.database:
        raw.append(["SELECT", address.database])
    return raw


def _packed(command: Command) -> bytes:
    words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
    parts = [b"*%d\r\n" % len(words)]
    parts += [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
    return b"".join(parts)


async def _answer(reader: asyncio.StreamReader) -> Any:
    line = await reader.readuntil(b"\r\n")
    kind, rest = line[:1], line[1:-2]
    match kind:
        case b"+":
            return rest.decode("utf-8", "replace")
        case b"-":
            return RespError(rest.decode("utf-8", "replace"))
        case b":":
            return int(rest)
        case b"$":
            length = int(rest)
            if length > LARGEST:
                raise ValueError("the answer is too large")
            return None if length < 0 else (await reader.readexactly(length + 2))[:-2]
        case b"*":
            count = int(rest)
            return None if count < 0 else [await _answer(reader) for _ in range(count)]
        case _:
            raise ValueError("the answer is not Redis'")
