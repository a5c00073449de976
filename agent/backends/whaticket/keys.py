"""The keys of a server's sessions, in an auth folder of Baileys (a file for each), in Redis, or in
both; their removals, each a file that is kept for seven days; and which records Baileys cannot use.

A removal's file has the records themselves, and is whole and read back before the first record
goes: a removal that was killed at any step can be put back. No link is followed. All of it blocks,
so it runs in threads. Redis is asked by its own protocol (RESP 2), by a connection for each piece
of work, and no error has a key's value or the address' password.
"""

import base64
import hashlib
import json
import os
import re
import socket
import ssl
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from errno import EBUSY, EINVAL
from functools import partial
from io import BufferedRWPair
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from agent import errors, files
from agent.backends.http import cannot, naming
from agent.backends.whaticket.contract import BackendSettings, is_safe
from agent.config.config import BackendDeclaration
from agent.engines.baileys.peer_keys import mappings_of, owns, user_of, with_mapped
from agent.engines.base import inside, text

KEEP = 7 * 86400.0
LARGEST = 256 << 20
AGAIN = 0.1
"""Seconds until a damaged record is read again: Baileys empties a file before it writes it."""
Key = tuple[bool, str]
"""True if the key is in Redis; and its name there, or the file's."""
SUFFIX = ".json"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
LARGEST_KEY, LARGEST_LINE, LARGEST_ANSWER = 16 << 20, 4096, 64 << 20
_BATCH = 100
_GLOB = re.compile(r"([*?\[\]\\^-])")


@dataclass(frozen=True, slots=True)
class Record:
    name: str
    """Name of the file, or of the key without the session's prefix; by `surrogateescape`."""
    content: bytes = field(repr=False)
    """Content of the file, or Redis' own form for RESTORE."""
    redis: bool = False
    mode: int = 0
    uid: int = 0
    gid: int = 0
    ttl: int = -1
    """Milliseconds left in Redis; -1 = for ever."""

    @property
    def key(self) -> Key:
        return self.redis, self.name


@dataclass(frozen=True, slots=True)
class Removal:
    name: str
    remote: str
    """The server's id of the session."""
    why: str
    wall: float
    state: str
    """begun, done or put_back"""
    whole: bool
    """True if all keys of the session were taken."""
    records: tuple[Record, ...] = field(repr=False)

    def shown(self) -> dict[str, Any]:
        keys = sum(record.redis for record in self.records)
        told = {name: getattr(self, name) for name in ("name", "why", "state", "whole")}
        return told | {"at": self.wall, "files": len(self.records) - keys, "keys": keys}


@dataclass(frozen=True, slots=True)
class Shelf:
    """All removals of one backend."""

    root: Path

    def keep(self, remote: str, why: str, records: Sequence[Record], *, whole: bool) -> Removal:
        """Write records down and read them back; removals of long ago are deleted."""
        self.sweep()
        wall = time.time()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall))
        names = (f"{stamp}.{number:04}" for number in range(10_000))
        name = next(name for name in names if not self._path(remote, name).exists())
        removal = Removal(name, remote, why[:200], wall, "begun", whole, tuple(records))
        self.write(removal)
        if _read(self._path(remote, name)) != removal:
            raise cannot("back up keys", f"{self._path(remote, name)} reads differently", "files")
        return removal

    def write(self, removal: Removal) -> None:
        raw = asdict(removal)
        for record in raw["records"]:
            record["content"] = base64.b64encode(record["content"]).decode()
        body, path = json.dumps(raw).encode(), self._path(removal.remote, removal.name)
        with naming(f"write {path}"):
            files.make_folder(path.parent)
            files.write_whole(path, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)

    def all(self, remote: str) -> list[Removal]:
        """Return the removals of a session, oldest first."""
        paths = sorted((self.root / _safe(remote)).glob("*.json"))
        return [removal for path in paths if (removal := _read(path)) is not None]

    def find(self, remote: str, name: object) -> Removal:
        """A removal that can be put back. What lies in the session's place after it was put back
        may be the live pairing, which nothing may move away for it again."""
        removal = next((it for it in self.all(remote) if it.name == name), None)
        if removal is None:
            cause = "there is no such removal, or it is damaged"
            raise errors.InvalidRequest(f"cannot put back {name!r:.40}: {cause}", field="name")
        if removal.state == "put_back":
            cause = "it was put back already, and nothing of the session was touched"
            raise cannot(f"put back {name}", cause, "put_back_already")
        return removal

    def sweep(self) -> None:
        for path in self.root.glob("*/*.json"):
            if (removal := _read(path)) is not None and time.time() - removal.wall > KEEP:
                path.unlink(missing_ok=True)

    def _path(self, remote: str, name: str) -> Path:
        return self.root / _safe(remote) / f"{name}.json"


def _safe(id: str) -> str:
    if not is_safe(id):
        raise cannot(f"keep keys of {id!r:.60}", "its name cannot name a folder", "remote_name")
    return id


def _read(path: Path) -> Removal | None:
    """Read a removal; None: it is not whole."""
    try:
        with files.open_plain(path) as file:
            digest, _, body = file.read(LARGEST).partition(b"\n")
        if digest.decode() != hashlib.sha256(body).hexdigest():
            return None
        raw = json.loads(body)
        for record in raw["records"]:
            record["content"] = base64.b64decode(record["content"], validate=True)
        removal = Removal(**{**raw, "records": tuple(Record(**it) for it in raw["records"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return removal if removal.name == path.stem else None


@dataclass(frozen=True, slots=True)
class FolderKeys:
    """Keys in folders. `template`: /path/{id}. Names are the files' names."""

    template: str
    redis = False

    def path(self, id: str) -> Path:
        return Path(self.template.rstrip("/").replace("{id}", _safe(id)))

    def names(self, id: str) -> list[str]:
        if not os.path.lexists(self.path(id)):
            return []
        with _opened(self.path(id), "list") as fd, os.scandir(fd) as entries:
            # A link counts: it must be refused, not passed over.
            return sorted(it.name for it in entries if not it.is_dir(follow_symlinks=False))

    def values(self, id: str, names: Sequence[str]) -> dict[str, bytes]:
        """Return the files' contents; files that are gone or unreadable are left out."""
        values: dict[str, bytes] = {}
        for name in names:
            with suppress(errors.EngineError):
                values |= {it.name: it.content for it in self.read(id, [name])}
        return values

    def read(self, id: str, names: Sequence[str]) -> list[Record]:
        """Read the files there. EngineError: one is a link, a pipe, a giant, or unreadable."""
        records = []
        with _opened(self.path(id), "read a key of") as fd:
            for name in names:
                with suppress(FileNotFoundError):
                    records.append(_read_key(fd, name))
        return records

    def remove(self, id: str, records: Sequence[Record]) -> None:
        """Remove files. EngineError, before it goes, for one that is not as it was backed up."""
        with _opened(self.path(id), "remove a key of") as fd:
            for record in records:
                with suppress(FileNotFoundError):
                    if _read_key(fd, record.name).content != record.content:
                        raise OSError(EBUSY, "it changed meanwhile: the server still writes it")
                    os.unlink(record.name, dir_fd=fd)
            os.fsync(fd)

    def restore(self, id: str, records: Sequence[Record]) -> None:
        """Restore files with owner and mode of before. The caller moved away what was there."""
        path, what = self.path(id), "put keys back into"
        if not path.exists():
            with naming(f"{what} {path}"):
                path.mkdir(mode=0o700)
                os.chown(path, records[0].uid, records[0].gid)
        with _opened(path, what) as fd:
            for record in records:
                with files.replacement(fd, record.name, mode=record.mode) as file:
                    file.write(record.content)
                    os.fchown(file.fileno(), record.uid, record.gid)


@contextmanager
def _opened(path: Path, verb: str) -> Iterator[int]:
    """Open a file; a link in its place is refused."""
    with naming(f"{verb} {path}"), files.opened(path, _DIRECTORY) as fd:
        yield fd


def _read_key(folder_fd: int, name: str) -> Record:
    with files.open_plain(name, within=folder_fd) as file:
        status = os.fstat(file.fileno())
        content = file.read(LARGEST_KEY + 1)
    if len(content) > LARGEST_KEY:
        raise OSError(EINVAL, "it is no file of keys")
    mode = stat.S_IMODE(status.st_mode)
    return Record(name, content, mode=mode, uid=status.st_uid, gid=status.st_gid)


class RespError(Exception):
    """Redis answered with an error, or a key is not as it was backed up. Its first word is shown:
    NOAUTH, NOPERM, READONLY."""


@dataclass(frozen=True, slots=True)
class RedisKeys:
    """Names are the keys behind the session's prefix. `pattern` ends with its only star.

    Each batch is watched, dumped again and compared in the transaction that deletes it, so only
    values that were backed up go.
    """

    url: str = field(repr=False)
    pattern: str = "sessions:{id}:*"
    timeout: float = 10.0
    ca_file: str = ""
    redis = True

    def names(self, id: str) -> list[str]:
        prefix, cursor, found = self._prefix(id), b"0", set[str]()
        match = os.fsencode(_GLOB.sub(r"\\\1", prefix) + "*")
        with self.talk("list the keys") as ask:
            while True:  # not KEYS: it would block all other clients of this Redis
                [[cursor, keys]] = ask(["SCAN", cursor, "MATCH", match, "COUNT", 500])
                found |= {os.fsdecode(key).removeprefix(prefix) for key in keys}
                if cursor == b"0":
                    return sorted(found)

    def values(self, id: str, names: Sequence[str]) -> dict[str, bytes]:
        """Return the stored texts; other types, and keys that are gone, are left out."""
        values: list[bytes | None] = []
        with self.talk("read the keys") as ask:
            for batch in _batches(names):
                [stored] = ask(["MGET", *(self._key(id, name) for name in batch)])
                values += stored
        return {n: it for n, it in zip(names, values, strict=True) if it is not None}

    def read(self, id: str, names: Sequence[str]) -> list[Record]:
        """Read all keys that are there, of any type."""
        records = []
        with self.talk("back up the keys") as ask:
            for batch in _batches(names):
                keys = [self._key(id, name) for name in batch]
                raw = ask(*((w, key) for key in keys for w in ("PTTL", "DUMP")))
                for name, ttl, dump in zip(batch, raw[::2], raw[1::2], strict=True):
                    if dump is not None:
                        records.append(Record(name, dump, redis=True, ttl=int(ttl)))
        return records

    def remove(self, id: str, records: Sequence[Record]) -> None:
        """Remove keys; EngineError for one that is not as it was backed up."""
        with self.talk("delete the keys") as ask:
            for batch in _batches(records):
                keys = [self._key(id, record.name) for record in batch]
                ask(["WATCH", *keys])
                stored = ask(*(("DUMP", key) for key in keys))
                same = all(now in (it.content, None) for it, now in zip(batch, stored, strict=True))
                if not same or (ask(["MULTI"], ["DEL", *keys], ["EXEC"]))[-1] is None:
                    raise RespError("CHANGED")

    def restore(self, id: str, records: Sequence[Record]) -> None:
        """Restore keys; the caller moved away what was in their place."""
        with self.talk("put the keys back") as ask:
            for batch in _batches(records):
                ask(*(("RESTORE", self._key(id, r.name), max(r.ttl, 0), r.content) for r in batch))

    def _prefix(self, id: str) -> str:
        return self.pattern[:-1].replace("{id}", id)

    def _key(self, id: str, name: str) -> bytes:
        return os.fsencode(self._prefix(id) + name)

    @contextmanager
    def talk(self, what: str) -> Iterator[Callable[..., list[Any]]]:
        """Yield a function that takes commands, each a sequence of words, and answers in order."""
        parts = urlsplit(self.url)
        # redis-cli reads the only word before the @ as the password.
        login = [unquote(word) for word in (parts.username, parts.password) if word]
        path = unquote(parts.path)
        number = dict(parse_qsl(parts.query)).get("db")
        try:
            with ExitStack() as held:
                link: socket.socket
                if parts.scheme == "unix":
                    link = held.enter_context(socket.socket(socket.AF_UNIX))
                    link.settimeout(self.timeout)
                    link.connect(path)
                else:
                    place = (parts.hostname, parts.port or 6379)
                    link = held.enter_context(socket.create_connection(place, self.timeout))
                    number = number or path[1:]
                if parts.scheme == "rediss":
                    tls = ssl.create_default_context(cafile=files.plain_path(self.ca_file))
                    link = held.enter_context(tls.wrap_socket(link, server_hostname=parts.hostname))
                ask = partial(_ask, held.enter_context(link.makefile("rwb")))
                if login:
                    ask(["AUTH", *login])
                ask(["SELECT", number or "0"])
                yield ask
        except (RespError, OSError, EOFError, ValueError) as error:
            # Redis' own words may have a key's value or the password.
            cause = "no connection to Redis"
            if isinstance(error, RespError):
                cause = f"Redis answers {str(error).split(' ', 1)[0][:20]}"
            elif isinstance(error, TimeoutError):
                cause = f"no answer from Redis within {self.timeout:g} s"
            raise cannot(what, cause, "redis") from None


def _batches(all: Sequence[Any]) -> list[Sequence[Any]]:
    return [all[at : at + _BATCH] for at in range(0, len(all), _BATCH)]


def _ask(file: BufferedRWPair, *commands: Sequence[bytes | str | int]) -> list[Any]:
    """Send the commands at once; raise the first error among the answers."""
    for command in commands:
        words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
        file.write(b"*%d\r\n" % len(words))
        file.write(b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
    file.flush()
    answers = [_answer(file) for _ in commands]
    for answer in answers:
        if isinstance(answer, RespError):
            raise answer
    return answers


def _answer(file: BufferedRWPair) -> Any:
    line = file.readline(LARGEST_LINE)
    if not line.endswith(b"\r\n"):
        raise EOFError
    kind, rest = line[:1], line[1:-2]
    if kind == b"+":
        return rest.decode("utf-8", "replace")
    if kind == b"-":
        return RespError(rest.decode("utf-8", "replace"))
    count = int(rest)  # ValueError: it is not Redis
    if kind == b"$" and count <= LARGEST_ANSWER:
        return None if count < 0 else file.read(count + 2)[:-2]
    if kind == b"*":
        return None if count < 0 else [_answer(file) for _ in range(count)]
    return count


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """Keys of sessions, each named by the server's id of it."""

    shelf: Shelf
    stores: tuple[FolderKeys | RedisKeys, ...]

    def look(self, id: str) -> str:
        """Return the state of creds: absent, unpaired, paired, damaged, unreadable or unknown."""
        if not self.stores:
            return "unknown"
        try:
            state = state_of_creds(self._creds(id))
            if state == "damaged":
                time.sleep(AGAIN)
                state = state_of_creds(self._creds(id))
        except errors.EngineError:
            return "unreadable"
        return state

    def _creds(self, id: str) -> bytes | None:
        store = self.stores[0]
        name = "creds" if store.redis else f"creds{SUFFIX}"
        values = store.values(id, [name])
        if not values and name in store.names(id):
            raise cannot("read the creds", "it is no readable file", "files")
        return values.get(name)

    def names(self, id: str) -> set[Key]:
        return {(store.redis, name) for store in self.stores for name in store.names(id)}

    def all(self, id: str) -> list[Record]:
        return [it for store in self.stores for it in store.read(id, store.names(id))]

    def plan(self, id: str, peers: Sequence[str], *, damaged: bool) -> list[Record]:
        """The records of these peers; where they have none, or with `damaged`, also those that
        Baileys cannot use. EngineError: one of them cannot be backed up."""
        plan: list[Record] = []
        for store in self.stores:
            keys = {name.removesuffix(SUFFIX): name for name in store.names(id)}
            users = {user for peer in peers if (user := user_of(peer))}
            maps = [keys[m] for user in users for m in mappings_of(user) if m in keys]
            mapped = store.values(id, maps).values()
            users = with_mapped(users, [it.decode(errors="replace").strip('" ') for it in mapped])
            wanted = {key for key in keys if owns(users, key)}
            if damaged or not wanted:
                wanted |= self._damaged(store, id, keys)
            if wanted:
                plan += store.read(id, sorted(keys[key] for key in wanted))
        return plan

    def _damaged(self, store: FolderKeys | RedisKeys, id: str, keys: dict[str, str]) -> set[str]:
        """With a damaged sender key of the account's own goes the note of who in the group has it:
        it must be given out again."""
        bad = [key for key in keys if JUDGED.fullmatch(key)]
        for pause in (0.0, AGAIN):
            time.sleep(pause if bad else 0.0)
            values = store.values(id, [keys[key] for key in bad])
            stored = {key: values[keys[key]] for key in bad if keys[key] in values}
            bad = [key for key, raw in stored.items() if not is_record(key, raw)]
        own = own_users(self._creds(id) or b"") if bad else frozenset()
        named = [found for found in map(_SENDER_KEY.fullmatch, bad) if found]
        notes = {_MEMORY + found["group"] for found in named if found["user"] in own}
        return {*bad, *(notes & keys.keys())}

    def take_out(
        self, id: str, records: Sequence[Record], why: str, *, whole: bool = False
    ) -> Removal:
        """Take records out, but none that was not backed up. `whole`: all keys of the session."""
        removal = self.shelf.keep(id, why, records, whole=whole)
        for store in self.stores:
            if own := [it for it in records if it.redis == store.redis]:
                store.remove(id, own)
        self.shelf.write(replace(removal, state="done"))
        return removal

    def in_the_way(self, id: str, removal: Removal) -> list[Record]:
        """The records that must go before that removal can come back: others of the same names, and
        of a whole one all others."""
        kept = {it.key: it.content for it in removal.records}
        every = [it for it in self.all(id) if removal.whole or it.key in kept]
        return [it for it in every if kept.get(it.key) != it.content]

    def put_back(self, id: str, removal: Removal) -> None:
        """Put records back while the session is down. Records that are back already stay."""
        there = self.names(id)
        for store in self.stores:
            own = [it for it in removal.records if it.redis == store.redis]
            if missing := [it for it in own if it.key not in there]:
                store.restore(id, missing)
        self.shelf.write(replace(removal, state="put_back"))


def open_keys(declared: BackendDeclaration, folder: Path) -> SessionKeys:
    """Open the keys of a backend. `folder`: for what is removed."""
    own: BackendSettings = declared.own
    folders = [FolderKeys(own.auth_folder)] if own.auth_folder else []
    redis = RedisKeys(own.redis_url, own.redis_pattern, declared.timeout, declared.ca_file)
    return SessionKeys(Shelf(folder), (*folders, *([redis] if own.redis_url else [])))


# Which records Baileys cannot use: cut short, empty, or not what their name says. A record that
# only looks unusual is whole: damage must be certain, for the record is taken out. Creds and
# app-state keys are not judged here: nothing may take those out.

JUDGED = re.compile(r"(?:session|identity-key|sender-key|pre-key)-.+")
_MEMORY = "sender-key-memory-"
_SENDER_KEY = re.compile(
    r"sender-key-(?!memory-)(?P<group>[^/]{1,200}?)(?:--|::)(?P<user>\d{1,20})(?:_\d{1,3})?"
    r"(?:--|::)\d{1,5}"
)


def is_record(key: str, raw: bytes) -> bool:
    """True if Baileys can use what is stored under that name; `null` is an absent one."""
    record = _parsed(raw)
    if record is _BROKEN:
        return False
    kind = next((kind for kind in _KINDS if key.startswith(kind)), "")
    return record is None or not kind or _KINDS[kind](record)


def state_of_creds(raw: bytes | None) -> str:
    """Return absent, unpaired, paired or damaged."""
    if raw is None:
        return "absent"
    creds = _parsed(raw)
    if not isinstance(creds, dict):
        return "damaged"
    return "paired" if inside(creds, "me", "id") else "unpaired"


def own_users(raw: bytes) -> frozenset[str]:
    """Return the digits of the account's own number and LID, by its creds."""
    ids = (text(inside(_parsed(raw), "me", kind)) for kind in ("id", "lid"))
    return frozenset(digits[0] for id in ids if (digits := re.match(r"\d+", id)))


def _is_session(raw: Any) -> bool:
    """True for libsignal's record: sessions by base key, each with its ratchet and its chains."""
    if not isinstance(raw, Mapping):
        return False
    if (own := _bytes(raw)) is not None:
        return bool(own)  # forks that store libsignal's own bytes
    sessions = raw.get("_sessions")
    return isinstance(sessions, Mapping) and all(map(_is_entry, sessions.values()))


def _is_entry(raw: Any) -> bool:
    ratchet, index = inside(raw, "currentRatchet"), inside(raw, "indexInfo")
    keys = [inside(ratchet, "ephemeralKeyPair", half) for half in ("pubKey", "privKey")]
    keys += [inside(ratchet, name) for name in ("rootKey", "lastRemoteEphemeralKey")]
    keys += [inside(index, name) for name in ("baseKey", "remoteIdentityKey")]
    chains = inside(raw, "_chains")
    whole = all(isinstance(key, str) and len(_decoded(key) or b"") in (32, 33) for key in keys)
    if not whole or not isinstance(chains, Mapping):
        return False
    parts = [(inside(it, "chainKey"), inside(it, "messageKeys")) for it in chains.values()]
    if not all(isinstance(part, Mapping) for pair in parts for part in pair):
        return False
    return all(isinstance(key, str) for _, keys in parts for key in keys.values())


def _is_sender_key(raw: Any) -> bool:
    """True for a sender key. Baileys stores its states as JSON in bytes; some forks as they are."""
    states = _parsed(_bytes(raw) or b"") if isinstance(raw, Mapping) else raw
    names = ("senderChainKey", "senderSigningKey")
    return isinstance(states, list) and all(
        isinstance(inside(state, name), Mapping) for state in states for name in names
    )


def _is_pair(raw: Any) -> bool:
    """True for a pre-key: both halves are bytes of a key's length."""
    return all(_is_bytes_of_key(inside(raw, half)) for half in ("private", "public"))


def _is_bytes_of_key(raw: Any) -> bool:
    return len(_bytes(raw) or b"") in (32, 33)


_BROKEN = object()


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return _BROKEN


def _bytes(raw: Any) -> bytes | None:
    """All forms of bytes that BufferJSON's reviver takes: base64 text or a list of numbers, marked
    by `type` or (in older ones) `buffer`, and an object of numbers by their places."""
    if not isinstance(raw, Mapping):
        return None
    if raw.get("type") == "Buffer" or raw.get("buffer") is True:
        data = raw.get("data") or raw.get("value")
        if isinstance(data, str):
            return _decoded(data)
    else:
        data = list(raw.values()) if raw and all(map(str.isdecimal, raw)) else None
    try:
        return bytes(data) if isinstance(data, list) else None
    except (ValueError, TypeError):
        return None


def _decoded(text: str) -> bytes | None:
    """Decode base64 as Node does: either alphabet, with or without padding."""
    text = text.rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        return None


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "session-": _is_session,
    "identity-key-": _is_bytes_of_key,
    _MEMORY: lambda raw: isinstance(raw, Mapping),
    "sender-key-": _is_sender_key,
    "pre-key-": _is_pair,
}
