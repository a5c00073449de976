"""WhatsApp's side of the sandbox: the server of one connection, the faults, and what is written
between the account and its contacts.

Each fault does what the real thing would do, to the process, the session, the server or the way to
it; the engine only sees frames, answers, refusals, or nothing. WhatsApp gives each message until
the session has it on its disk, and a contact gets each one once, also over a kill of the worker.
That lies beside the session's own folder: no copy of a session has messages in it.
"""

import asyncio
import binascii
import itertools
import json
import os
import re
import signal
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from agent import clock, files
from agent.core.words import Happening
from agent.engines import base, tasks, whatsapp
from agent.engines.sandbox.rules import NETWORK, SandboxSettings, saving, write_shared
from agent.errors import EngineError, InvalidRequest

# The faults: which are active, until when, and which outlive the worker: those that a
# restart would not cure in reality are kept in the session's folder with their end in wall time.
# crash: the worker is killed; with --for also at each start. hang: its event loop stops. zombie:
# the session says CONNECTED, but gets no frame and answers no query. slow: probes and calls take
# seconds. drop: the connection is lost; with --for the network stays down. leak: memory grows
# steadily. bad-mac, prekey: a peer's messages cannot be decrypted (Bad MAC, Invalid PreKey ID).
# logout: the phone removes this device. ban, temp-ban: WhatsApp bans the account, for good or for
# the time of --for (else an hour). conflict: another client takes over. outdated: the server
# refuses this client's version. passkey: WhatsApp asks for one after a scan. stuck-loading: the
# sync after a login stops.
# corrupt-files: the session file is damaged, then the worker is killed.

FAULTS_FILE = "faults.json"

_ALWAYS_KEPT = {"ban", "temp-ban", "outdated", "passkey"}
KEPT_WITH_END = {"crash", "drop", "conflict", "stuck-loading"}
LOST_BY = {
    **{"drop": "connection_lost", "conflict": "conflict", "outdated": "client_outdated"},
    **{"ban": "banned", "temp-ban": "temporary_ban"},
}
TEMPORARY_BAN = 3600.0
"""Seconds of a ban, if none are given."""


class Fault(NamedTuple):
    name: str
    until_wall: float | None
    arguments: Mapping[str, Any]

    @property
    def lost(self) -> dict[str, Any]:
        """Return why the connection ends by this fault, as the claim has it."""
        until = self.until_wall if self.name == "temp-ban" else None
        return {"reason": LOST_BY[self.name], "until_wall": until}


class Faults:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._active: dict[str, Fault] = {}
        # A file that cannot be read holds no faults.
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            kept = json.loads((folder / FAULTS_FILE).read_bytes())["faults"]
            self._active = {name: Fault(name, **fault) for name, fault in kept.items()}

    def begin(self, name: str, seconds: float | None, arguments: Mapping[str, Any]) -> Fault:
        if name == "temp-ban" and seconds is None:
            seconds = TEMPORARY_BAN
        until = None if seconds is None else time.time() + seconds
        self._active[name] = fault = Fault(name, until, arguments)
        self._keep()
        return fault

    def active(self, name: str) -> Fault | None:
        fault = self._active.get(name)
        ended = fault is None or (fault.until_wall or float("inf")) <= time.time()
        return None if ended else fault

    def list(self) -> dict[str, float | None]:
        """Return every active fault with its end."""
        return {name: fault.until_wall for name, fault in self._active.items() if self.active(name)}

    def clear(self, *names: str) -> None:
        """End these faults, or all if none is named."""
        for name in names or tuple(self._active):
            self._active.pop(name, None)
        self._keep()

    def _keep(self) -> None:
        lasting = {
            name: {"until_wall": fault.until_wall, "arguments": fault.arguments}
            for name, fault in self._active.items()
            if name in _ALWAYS_KEPT or (name in KEPT_WITH_END and fault.until_wall is not None)
        }
        contents = {
            FAULTS_FILE: json.dumps({"version": 1, "faults": lasting}) if lasting else "",
            # A look from outside finds the network away until then.
            NETWORK: f"{lasting['drop']['until_wall']:.3f}\n" if "drop" in lasting else "",
        }
        with saving("keep the faults"):
            for name, content in contents.items():
                if content:
                    write_shared(self.folder / name, content.encode())
                else:
                    (self.folder / name).unlink(missing_ok=True)


PONG_LIMIT = 0.5
"""Seconds that the protocol waits for the answer to a ping."""


class Server:
    """WhatsApp's server, as the sandbox plays it: one connection at a time."""

    def __init__(self, settings: SandboxSettings, faults: Faults) -> None:
        self._settings, self._faults = settings, faults
        self._last_frame, self.connected = 0.0, False

    async def connect(self) -> Fault | None:
        """Connect; return the fault for which the server, or the network before it, refuses."""
        await asyncio.sleep(self._settings.login_seconds)
        for name in ("drop", "outdated", "ban", "temp-ban", "conflict"):
            if fault := self._faults.active(name):
                return fault
        self.connected = True
        self.frame()
        return None

    def frame(self) -> bool:
        """Let one frame reach the engine; False when it gets lost."""
        if not self.connected or self._faults.active("zombie"):
            return False
        self._last_frame = clock.boot_now()
        return True

    def proof_age(self) -> float | None:
        """Seconds since the last frame reached the engine, which come all the time; None without a
        connection."""
        self.frame()
        return clock.boot_now() - self._last_frame if self.connected else None

    async def ping(self) -> float:
        """Ask the server for a sign of life; return how long it took."""
        begun = clock.boot_now()
        await self.lag()
        if not self.frame():
            await asyncio.sleep(PONG_LIMIT)
            raise EngineError("cannot reach the server: no answer to a ping", code="no_answer")
        return clock.boot_now() - begun

    async def lag(self) -> None:
        if self._faults.active("slow"):
            await asyncio.sleep(3.0)


REPLY_FIRST = 0.05
"""Seconds in which a command that ends or blocks the worker can still be answered."""
CRYPTO = {"bad-mac": ("bad_mac", "Bad MAC"), "prekey": ("prekey_error", "Invalid PreKey ID")}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def damage(path: Path) -> None:
    """Leave half of the file and rubbish after it, as a torn write does."""
    if not path.exists():
        raise InvalidRequest("cannot damage the session file: there is none", field="name")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + os.urandom(16))


Record = Mapping[str, Any]
Entry = tuple[int, Record]

NAME = "whatsapp.db"
MOST_HEARD = 20_000
"""Messages that the contacts remember."""
ANSWER_BYTES = 256 << 10
"""Bytes of one page; a message between worker and agent has at most four times as much."""
_TABLES = """
pragma journal_mode = wal;
pragma synchronous = off;
pragma cache_size = 16;
create table if not exists waiting (number integer primary key, due real, record text);
create table if not exists
heard (cursor integer primary key, chat text, id text, message text, unique (chat, id));
"""


class Held:
    def __init__(self, folder: Path) -> None:
        import sqlite3  # for the first message: a worker without any has no need of it

        self._doing = partial(saving, kind=sqlite3.Error, where=f" in {folder / NAME}")
        with self._doing("open messages"):
            self._db = sqlite3.connect(folder / NAME)
            self._db.executescript(_TABLES)

    def close(self) -> None:
        self._db.close()

    def add(self, records: Sequence[Record], due: float = 0.0) -> None:
        """Add records, which are not lost once this returns. `due`: Unix time before which they are
        not given."""
        rows = [(due, json.dumps(record)) for record in records]
        with self._doing("hold messages"), self._db:
            self._db.executemany("insert into waiting (due, record) values (?, ?)", rows)

    def next(self, most: int) -> tuple[list[Entry], float | None]:
        """Those to be given now, oldest first; they stay. Seconds until there is one; None: nothing
        waits."""
        ask, now = "select * from waiting order by due, number limit ?", time.time()
        with self._doing("read messages"):
            found = self._db.execute(ask, (most,)).fetchall()
        entries = [(number, json.loads(record)) for number, due, record in found if due <= now]
        return entries, max(0.0, found[0][1] - now) if found else None

    def drop(self, entries: Sequence[Entry]) -> None:
        numbers = [(number,) for number, _ in entries]
        with self._doing("drop messages"), self._db:
            self._db.executemany("delete from waiting where number = ?", numbers)

    def receive(self, chat: str, id: str, message: Record) -> bool:
        """Bring a message to the contact's phone at once; False: it was there already."""
        add = "insert or ignore into heard (chat, id, message) values (?, ?, ?)"
        text = json.dumps({"at": round(time.time(), 3), **message})
        with self._doing("deliver messages"), self._db:
            done = self._db.execute(add, (chat, id, text))
            oldest = (done.lastrowid or 0) - MOST_HEARD
            self._db.execute("delete from heard where cursor <= ?", (oldest,))
        return done.rowcount == 1

    def page(self, after: int, limit: int) -> Mapping[str, Any]:
        """Return the messages after that cursor, and the cursor of the last one of them."""
        ask = "select * from heard where cursor > ? order by cursor limit ?"
        found: list[Mapping[str, Any]] = []
        size = 0
        with self._doing("read messages"):
            rows = self._db.execute(ask, (after, limit + 1)).fetchall()
        for cursor, chat, id, message in rows[:limit]:
            size += len(message)
            if size > ANSWER_BYTES and found:
                break
            found.append({"cursor": cursor, "chat": chat, "id": id, **json.loads(message)})
        last = found[-1]["cursor"] if found else max(after, 0)
        return {"messages": found, "next": last, "more": len(found) < len(rows)}


_MIMETYPES = {
    "image": "image/jpeg",
    "video": "video/mp4",
    "audio": "audio/ogg; codecs=opus",
    "document": "application/pdf",
    "sticker": "image/webp",
}
TYPES = ("text", *_MIMETYPES, "location", "contact", "poll", "other")
ABOUT_MESSAGE = ("message_reaction", "message_edit", "message_delete", "message_vote")
KINDS = ("message", *ABOUT_MESSAGE, "message_ack", "call")
MORE = (
    ("a text", str, ("name", "emoji", "state", "participant", "alias")),
    ("an object", dict, ("quote", "media", "location", "poll")),
    ("a list", list, ("mentions", "contacts", "options")),
    ("true or false", bool, ("video",)),
    ("a number", (int, float), ("at",)),
)
"""Fields of a record that `say` takes as they are, beside `say`'s own."""
_NOT_SHOWN = ("key", "to", "content", "upload")
"""Fields of a sent message that its contact does not see."""

FOLDER, MEDIA = "whatsapp", "media"
"""Folders beside the session's own: what WhatsApp and contacts have is no part of a session."""
AT_ONCE = 200
"""Messages that WhatsApp gives before it waits until they are taken."""
AGAIN_AFTER = 1.0
"""Seconds until WhatsApp gives again what was not taken."""
LARGEST = 256 << 10
"""Bytes of `fields`, which the link has to take beside the longest text and a part of a file."""
PIECE = 192 * 1024
NOISE = "5511900000001"
"""The contact that writes at the rate of the settings."""


class Conversation:
    """The messages of one account."""

    def __init__(self, session: Path, server: Server, reporter: base.Reporter, read_after: float):
        self._session, self._server, self._reporter = session, server, reporter
        self._read_after, self._changed = read_after, asyncio.Event()

    @cached_property
    def _held(self) -> Held:
        return Held(self._media().parent)

    async def take(self) -> None:
        """Take what WhatsApp holds, as long as the connection is there."""
        told = False
        while True:
            self._changed.clear()
            try:
                entries, pause = self._held.next(AT_ONCE)
                if not entries:
                    await tasks.until_set(self._changed, pause)
                    continue
                records = [record for _, record in entries]
                if not self._server.frame():
                    await asyncio.sleep(AGAIN_AFTER)
                    continue
                if self._reporter.keeps:
                    await self._reporter.keep(records)
                self._held.drop(entries)
            except EngineError as error:
                if not told:
                    self._reporter.happened(Happening("error", {"code": error.code}))
                told = True
                await asyncio.sleep(AGAIN_AFTER)
            else:
                told = False
                for record in records:
                    self._happened(record)

    def say(self, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """Let something happen at a contact, or on the account's phone; `count` times."""
        check_fields(said.get("fields", {}))
        said, hidden = self._with_file(said)
        every = [said]
        if (count := said.get("count", 1)) > 1:
            id, text = said.get("message_id") or new_id(), said.get("text", "")
            numbers = range(1, count + 1)
            every = [{**said, "message_id": f"{id}-{n}", "text": f"{text} {n}"} for n in numbers]
        records = [{**record_of(each), **hidden} for each in every]
        self._add(records)
        return {"id": records[0]["message_id"], "record": records[0]["id"]}

    def send(self, message: Mapping[str, Any]) -> str:
        """Return the message's id once the contact has it; for a key that came before, the same."""
        key = message.get("key")
        id = "3EB0" + key[:18].upper() if isinstance(key, str) and key else new_id()
        chat = jid_of(message["to"], "to")
        shown = {name: value for name, value in message.items() if name not in _NOT_SHOWN}
        if self._held.receive(chat, id, {"type": "text", **shown, **self._whole(message)}):
            self._add([own_message(chat, id, message)])
        self._add([ack(chat, id, "server"), ack(chat, id, "delivered")])
        self._add([ack(chat, id, "read")], time.time() + self._read_after)
        return id

    def tell(self, told: Mapping[str, Any]) -> None:
        """Show a presence to the contacts, for the moment only: it can never come twice."""
        chat = jid_of(told["chat"], "chat") if told.get("chat") else ""
        shown = {it: told[it] for it in told if it not in ("chat", "state") and told[it]}
        self._held.receive(chat, new_id(), shown)

    async def file_of(self, record: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        try:
            path = self._media() / Path(str(record["_media"].get("file", ""))).name
            file = await asyncio.to_thread(files.open_plain, path)
        except OSError as error:
            why = "cannot load the file: WhatsApp does not have it any more"
            raise EngineError(why, code="media_gone") from error
        with file:
            while piece := await asyncio.to_thread(file.read, PIECE):
                yield piece

    def heard(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._held.page(asked.get("after", 0), asked.get("limit", 100))

    async def make_noise(self, every: float) -> None:
        """Let a contact and the account's owner on the phone write by turns."""
        for number in itertools.count(1):
            await asyncio.sleep(every)
            if not self._server.frame():
                continue
            own, text = number % 2 == 0, f"message {number} of the sandbox"
            record = record_of({"contact": NOISE, "text": text, "from_me": own})
            more = [ack(record["chat"], record["message_id"], "server")] if own else []
            with suppress(EngineError):  # on a full disk there is none
                self._add([record, *more])

    def take_part(self, part: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take a part, for the command `file_part`: one after the other."""
        path, raw = self._upload(part.get("upload")), binascii.a2b_base64(part["data"])
        with saving("hold the file"), path.open("ab" if part["index"] else "wb") as file:
            file.write(raw)
            return {"size": file.tell()}

    def close(self) -> None:
        if "_held" in self.__dict__:
            self._held.close()

    def _with_file(self, said: Record) -> tuple[Record, Record]:
        """`say` as of a message with its file, and what the session needs to load that. What the
        caller says of the file itself holds, also where it is wrong."""
        if not (file := self._whole(said, stays=True)):
            return said, {}
        fields = said.get("fields", {})
        named = {name: said[name] for name in ("mimetype", "filename") if name in said}
        media = {"mimetype": "application/octet-stream", **named, **file, **fields.get("media", {})}
        word = said.get("type") or _type_of_file(str(media["mimetype"]))
        changed = {"type": word, "fields": {**fields, "media": media}}
        return {**said, **changed}, {"_media": {"file": file["sha256"]}}

    def _whole(self, message: Record, *, stays: bool = False) -> dict[str, Any]:
        """Return size and checksum of a message's file; {} without one. `stays`: to be loaded."""
        name = message.get("upload")
        if isinstance(content := message.get("content"), str):
            name = os.urandom(16).hex()
            self.take_part({"upload": name, "index": 0, "data": content})
        elif name is None:
            return {}
        path, digest = self._upload(name), base.new_sha256()
        size = path.stat().st_size if path.exists() else -1
        if size != message.get("size", max(size, 0)):
            raise EngineError("cannot send the file: it is not whole here", code="file_lost")
        with saving("hold the file"), path.open("rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
            sha256 = digest.hexdigest()
            if stays:
                path.replace(path.with_name(sha256))
            else:
                path.unlink()
        return {"size": size, "sha256": sha256}

    def _upload(self, name: object) -> Path:
        if not (isinstance(name, str) and re.fullmatch(r"[0-9a-f]{16,64}", name)):
            raise InvalidRequest("cannot take it: this is no part of a file", field="upload")
        return self._media() / f"{name}.part"

    def _add(self, records: Sequence[Record], due: float = 0.0) -> None:
        self._held.add(records, due)
        self._changed.set()

    def _happened(self, record: Record) -> None:
        kind, detail = "message", {}
        if record["kind"] == kind:
            detail = {"direction": "out" if record["from_me"] else "in", "type": record["type"]}
        elif record["kind"] == "message_ack":
            kind, detail = "ack", {"id": record["message_id"], "ack": record["state"]}
        if detail:
            self._reporter.happened(Happening(kind, detail))

    def _media(self) -> Path:
        """Return the folder of media; the first use makes it with the session folder's rights."""
        folder = self._session.with_name(FOLDER)
        with saving("hold the file"):
            for each in (folder, folder / MEDIA):
                if not each.is_dir():
                    each.mkdir(mode=0o700)
                    each.chmod(self._session.stat().st_mode & 0o770)
        return folder / MEDIA


# Records of what contacts do, of each kind that a real engine has. The API has checked the types
# of the fields.


def jid_of(contact: object, field: str = "contact") -> str:
    """Return the jid of a phone number, or a chat's id as it is."""
    text = contact.strip() if isinstance(contact, str) else ""
    if whatsapp.is_phone(text):
        return f"{whatsapp.digits_of(text)}@s.whatsapp.net"
    user, at, server = text.replace("@c.us", "@s.whatsapp.net").partition("@")
    if not (user and at and server) or len(text) > 64 or any(c.isspace() for c in text):
        why = f"cannot say it: {field} is neither a phone number nor a chat's id"
        raise InvalidRequest(why, field=field)
    return f"{user}@{server}"


def new_id() -> str:
    return "3EB0" + os.urandom(9).hex().upper()


def record_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record for the command `say`; InvalidRequest names the field."""
    kind, own = said.get("kind", "message"), said.get("from_me") is True
    sender = jid_of(said.get("contact"))
    about, own_id = said.get("of", ""), said.get("message_id") or new_id()
    if (kind in ABOUT_MESSAGE or kind == "message_ack") and not about:
        raise InvalidRequest(f"cannot say it: a {kind} needs the id of a message", field="of")
    record = {
        "v": 1,
        "kind": kind,
        "at": round(time.time(), 3),
        "chat": jid_of(said["group"], "group") if said.get("group") else sender,
        "from_me": own or kind == "message_ack",
        "sender": "" if own else sender,
        "alias": "",
        "message_id": about or own_id,
        **_content(kind, said),
        **said.get("fields", {}),
    }
    # The same for the same thing, whenever it comes. What is about a message is one itself.
    which = own_id if kind in ABOUT_MESSAGE else record["message_id"]
    parts = (kind, record["chat"], record["sender"] or "me", which, record.get("state", ""))
    return record | {"id": ":".join(parts)[:200]}


def check_fields(fields: Mapping[str, Any]) -> None:
    """Check more fields of a record for `say`; InvalidRequest names what is wrong."""
    if len(json.dumps(fields, ensure_ascii=False).encode(errors="replace")) > LARGEST:
        raise InvalidRequest(f"cannot say it: fields has more than {LARGEST} bytes", field="fields")
    known: dict[str, tuple[str, Any]] = {it: more[:2] for more in MORE for it in more[2]}
    for name, value in fields.items():
        field, cause = f"fields.{name}", ""
        if name not in known:
            field, cause = "fields", f"unknown field {name!r:.40}; known: {', '.join(known)}"
        elif not isinstance(value, known[name][1]):
            cause = f"{field} must be {known[name][0]}"
        elif name == "media" and type(value.get("size", 0)) is not int:
            field, cause = f"{field}.size", f"{field}.size must be a whole number"
        if cause:
            raise InvalidRequest(f"cannot say it: {cause}", field=field)


def own_message(chat: str, id: str, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message that the session sent, as its account's other devices see it."""
    word = message.get("type", "text")
    said = {"contact": chat, "from_me": True, "message_id": id, "kind": f"message_{word}"}
    if said["kind"] in ABOUT_MESSAGE:
        text = message.get("emoji" if word == "reaction" else "text", "")
        return record_of({**said, "text": text, "of": message["message_id"]})
    if word == "media":
        mimetype = message.get("mimetype", "")
        word, said["fields"] = _type_of_file(mimetype), {"media": {"mimetype": mimetype}}
    text = message.get("text") or message.get("caption") or ""
    type = word if word in TYPES else "other"
    return record_of({**said, "kind": "message", "type": type, "text": text})


def ack(chat: str, id: str, state: str) -> dict[str, Any]:
    own = {"contact": chat, "from_me": True, "of": id, "text": state}
    return record_of({"kind": "message_ack", **own})


def _type_of_file(mimetype: str) -> str:
    main = mimetype.partition("/")[0]
    return main if main in ("image", "video", "audio") else "document"


def _content(kind: str, said: Mapping[str, Any]) -> dict[str, Any]:
    text, word = said.get("text", ""), said.get("type", "text")
    contents: dict[str, dict[str, Any]] = {
        "message": {"type": word, "text": text, "fresh": True},
        "message_reaction": {"emoji": text},
        "message_edit": {"text": text},
        "message_vote": {"options": [text] if text else []},
        "message_ack": {"state": text or "delivered"},
        "call": {"call_id": said.get("of") or new_id(), "state": text or "offer", "video": False},
    }
    return contents.get(kind, {}) | (_sample(word, text) if kind == "message" else {})


def _sample(word: str, text: str) -> dict[str, Any]:
    """Return the fields that a message of this type must have, where the caller gives none."""
    if word in _MIMETYPES:
        return {"media": {"mimetype": _MIMETYPES[word], "size": 1024}}
    vcard = "BEGIN:VCARD\nVERSION:3.0\nFN:Ann\nTEL;type=CELL:+5511999990000\nEND:VCARD"
    samples: dict[str, dict[str, Any]] = {
        "location": {"location": {"latitude": -23.5505, "longitude": -46.6333, "name": text}},
        "contact": {"contacts": [{"name": "Ann", "vcard": vcard}]},
        "poll": {"poll": {"question": text, "options": ["yes", "no"], "several": False}},
    }
    return samples.get(word, {})
