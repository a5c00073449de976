"""What is written between the sandbox's account and its contacts: WhatsApp gives each message until
the session has it on its disk, and a contact gets each one once."""

import asyncio
import binascii
import json
import os
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.core.words import Happening
from agent.engines.base import Reporter
from agent.engines.files import new_sha256
from agent.engines.sandbox.drill import Server
from agent.engines.whatsapp import digits_of, is_phone
from agent.errors import EngineError, InvalidRequest
from agent.files import open_plain

if TYPE_CHECKING:
    from agent.engines.sandbox.held import Held

Record = Mapping[str, Any]

TYPES = (
    *("text", "image", "video", "audio", "document", "sticker", "location", "contact", "poll"),
    "other",
)
ABOUT_MESSAGE = {
    "message_reaction": "r",
    "message_edit": "e",
    "message_delete": "d",
    "message_vote": "v",
}
_OF_TYPE = {"reaction": "message_reaction", "edit": "message_edit", "delete": "message_delete"}
ME = "me"
"""In the place of a contact: this account."""
KINDS = ("message", *ABOUT_MESSAGE, "message_ack", "call")
MORE = (
    *("name", "quote", "mentions", "media", "location", "contacts", "poll", "emoji", "options"),
    *("state", "video", "participant", "alias", "at"),
)
"""Fields of a record that `say` takes as they are, beside its own."""
_MIMETYPES = {
    "image": "image/jpeg",
    "video": "video/mp4",
    "audio": "audio/ogg; codecs=opus",
    "document": "application/pdf",
    "sticker": "image/webp",
}

FOLDER = "whatsapp"
"""Beside the session's own folder: what WhatsApp and the contacts have is no part of a session."""
AT_ONCE = 200
"""Messages that WhatsApp gives before it waits until they are taken."""
AGAIN_AFTER = 1.0
"""Seconds until it gives again what was not taken."""
LARGEST = 256 << 10
MEDIA = "media"
PIECE = 192 * 1024
_UPLOAD = re.compile(r"[0-9a-f]{16,64}")
NOISE = "5511900000001"
"""Who writes at the rate of the settings."""


class Conversation:
    """The messages of one account."""

    def __init__(
        self, session: Path, server: Server, reporter: Reporter, read_after: float
    ) -> None:
        self._folder = session.with_name(FOLDER)
        self._session = session
        self._server = server
        self._reporter = reporter
        self._read_after = read_after
        self._held: Held | None = None
        self.commands: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
            "say": self.say,
            "heard": self.heard,
            "file_part": self.take_part,
        }
        self._changed = asyncio.Event()
        self._noise = 0

    async def take(self) -> None:
        """Take what WhatsApp holds, as long as the connection is there."""
        told = False
        while True:
            self._changed.clear()
            try:
                if not (entries := self._side().next(AT_ONCE)):
                    await self._until_more()
                    continue
                records = [record for _, record in entries]
                if not self._server.frame():
                    await asyncio.sleep(AGAIN_AFTER)
                    continue
                if self._reporter.keeps:
                    await self._reporter.keep(records)
                self._side().drop(entries)
            except EngineError as error:
                if not told:
                    self._happened("error", code=error.code)
                told = True
                await asyncio.sleep(AGAIN_AFTER)
            else:
                told = False
                self._tell(records)

    def say(self, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """Something happens at a contact, or on the account's phone; `count` times."""
        said, hidden = self._with_file(said)
        numbered: list[dict[str, str]] = [{}]
        if (count := said.get("count", 1)) > 1:
            base, text = said.get("message_id") or new_id(), said.get("text", "")
            numbers = range(1, count + 1)
            numbered = [{"message_id": f"{base}-{n}", "text": f"{text} {n}"} for n in numbers]
        records = [record_of({**said, **each}) for each in numbered]
        if len(json.dumps(records[0])) > LARGEST:
            raise InvalidRequest(f"cannot say it: it has more than {LARGEST} bytes", field="fields")
        self._add([{**record, **hidden} for record in records])
        first = records[0]
        return {"id": first["message_id"], "record": first["id"], "waiting": self._side().waiting}

    def send(self, message: Mapping[str, Any]) -> str:
        """The message's id, once the contact has it; with a key that came before, the same one."""
        key = message.get("key")
        id = "3EB0" + key[:18].upper() if isinstance(key, str) and key else new_id()
        chat = jid_of(message["to"], "to")
        shown = {**_shown(message), **self._whole(message)}
        if self._side().receive(chat, id, shown):
            self._add([own_message(chat, id, message)])
        self._add([ack(chat, id, "server"), ack(chat, id, "delivered")])
        self._add([ack(chat, id, "read")], time.time() + self._read_after)
        return id

    def tell(self, told: Mapping[str, Any]) -> None:
        """Of the moment: its contacts see it, and nothing of it can come twice."""
        chat = jid_of(told["chat"], "chat") if told.get("chat") else ""
        shown = {
            name: value for name, value in told.items() if name not in ("chat", "state") and value
        }
        self._side().receive(chat, new_id(), {"at": round(time.time(), 3), **shown})

    async def file_of(self, record: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """What a contact sent with a message."""
        try:
            path = self._own_folder() / MEDIA / Path(str(record["_media"].get("file", ""))).name
            file = await asyncio.to_thread(open_plain, path)
        except OSError as error:
            raise EngineError(
                "cannot load the file: WhatsApp does not have it any more", code="media_gone"
            ) from error
        with file:
            while piece := await asyncio.to_thread(file.read, PIECE):
                yield piece

    def heard(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._side().page(asked.get("after", 0), asked.get("limit", 100))

    def make_noise(self) -> None:
        """By turns a contact writes, and the account's owner on the phone."""
        self._noise += 1
        own, text = self._noise % 2 == 0, f"message {self._noise} of the sandbox"
        record = record_of({"contact": NOISE, "text": text, "from_me": own})
        more = [ack(record["chat"], record["message_id"], "server")] if own else []
        with suppress(EngineError):  # on a full disk there is none
            self._add([record, *more])

    def _with_file(self, said: Mapping[str, Any]) -> tuple[Mapping[str, Any], Record]:
        """`say` as of a message with its file, and what the session needs to load that. What the
        caller says of the file itself holds, also where it is wrong."""
        if not (file := self._whole(said, stays=True)):
            return said, {}
        fields = said.get("fields", {})
        named = {name: said[name] for name in ("mimetype", "filename") if name in said}
        media = {"mimetype": "application/octet-stream", **named, **file, **fields.get("media", {})}
        main = str(media["mimetype"]).partition("/")[0]
        word = said.get("type") or (main if main in ("image", "video", "audio") else "document")
        changed = {"type": word, "fields": {**fields, "media": media}}
        return {**said, **changed}, {"_media": {"file": file["sha256"]}}

    def take_part(self, part: Mapping[str, Any]) -> Mapping[str, Any]:
        """The command `file_part`: one part after the other."""
        path, raw = self._upload(part.get("upload")), binascii.a2b_base64(part["data"])
        with _holding(), path.open("ab" if part["index"] else "wb") as file:
            file.write(raw)
            return {"size": file.tell()}

    def _whole(self, message: Mapping[str, Any], *, stays: bool = False) -> dict[str, Any]:
        """Size and checksum of a message's file; {} without one. `stays`: to be loaded."""
        name = message.get("upload")
        if isinstance(content := message.get("content"), str):
            name = os.urandom(16).hex()
            self.take_part({"upload": name, "index": 0, "data": content})
        elif name is None:
            return {}
        path, digest = self._upload(name), new_sha256()
        size = path.stat().st_size if path.exists() else -1
        if size != message.get("size", max(size, 0)):
            raise EngineError("cannot send the file: it is not whole here", code="file_lost")
        with _holding(), path.open("rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
            sha256 = digest.hexdigest()
            path.replace(path.with_name(sha256)) if stays else path.unlink()
        return {"size": size, "sha256": sha256}

    def _upload(self, name: object) -> Path:
        """The file that holds the parts of this upload."""
        if not (isinstance(name, str) and _UPLOAD.fullmatch(name)):
            raise InvalidRequest("cannot take it: this is no part of a file", field="upload")
        return _made(self._own_folder() / MEDIA, self._folder) / f"{name}.part"

    def _add(self, records: Sequence[Record], due: float = 0.0) -> None:
        self._side().add(records, due)
        self._changed.set()

    async def _until_more(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._side().next_due()):
                await self._changed.wait()

    def _tell(self, records: Sequence[Record]) -> None:
        for record in records:
            if record["kind"] == "message":
                direction = "out" if record["from_me"] else "in"
                self._happened("message", direction=direction, type=record["type"])
            elif record["kind"] == "message_ack":
                self._happened("ack", id=record["message_id"], ack=record["state"])

    def _happened(self, kind: str, **detail: Any) -> None:
        self._reporter.happened(Happening(kind, detail))

    def _side(self) -> "Held":
        if self._held is None:
            from agent.engines.sandbox.held import Held  # with sqlite3

            self._held = Held(self._own_folder(), kept=self._reporter.keeps)
        return self._held

    def close(self) -> None:
        if self._held is not None:
            self._held.close()

    def _own_folder(self) -> Path:
        """Made at its first use, with the rights of the session's own folder."""
        return _made(self._folder, self._session)


@contextmanager
def _holding() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EngineError(f"cannot hold the file: {error}", code="save_failed") from error


def _made(folder: Path, like: Path) -> Path:
    """The folder, made with the rights of the other one where it is not there yet."""
    try:
        folder.mkdir(mode=0o700)
        folder.chmod(like.stat().st_mode & 0o770)
    except FileExistsError:
        pass
    except OSError as error:
        raise EngineError(f"cannot make {folder}: {error}", code="save_failed") from error
    return folder


def _shown(message: Mapping[str, Any]) -> dict[str, Any]:
    """What a contact sees, but for a file."""
    hidden = ("key", "to", "content", "upload")
    shown = {name: value for name, value in message.items() if name not in hidden}
    return {"at": round(time.time(), 3), "type": "text", **shown}


# What contacts do, as records of messages: each kind that a real engine has. The API has checked
# the types of the fields.


def jid_of(contact: object, field: str = "contact") -> str:
    """A phone number, or a chat's id as it is."""
    text = contact.strip() if isinstance(contact, str) else ""
    if is_phone(text):
        return f"{digits_of(text)}@s.whatsapp.net"
    user, at, server = text.replace("@c.us", "@s.whatsapp.net").partition("@")
    if not (user and at and server) or len(text) > 64 or any(c.isspace() for c in text):
        raise InvalidRequest(
            f"cannot say it: {field} is neither a phone number nor a chat's id", field=field
        )
    return f"{user}@{server}"


def new_id() -> str:
    return "3EB0" + os.urandom(9).hex().upper()


def record_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """What the command `say` asks for; InvalidRequest names the field."""
    kind = said.get("kind", "message")
    sender = jid_of(said.get("contact"))
    own = said.get("from_me") is True
    chat = jid_of(said["group"], "group") if said.get("group") else sender
    about = said.get("of", "")
    if (kind in ABOUT_MESSAGE or kind == "message_ack") and not about:
        raise InvalidRequest(f"cannot say it: a {kind} needs the id of a message", field="of")
    id = about or said.get("message_id") or new_id()
    record = _record(kind, chat, id, "" if own else sender)
    record["from_me"] = own or kind == "message_ack"
    more = said.get("fields", {})
    if unknown := sorted(set(more) - set(MORE)):
        known = ", ".join(MORE)
        raise InvalidRequest(
            f"cannot say it: unknown field {unknown[0]!r:.40}; known: {known}", field="fields"
        )
    record |= _content(kind, said, more) | more
    record["id"] = _id_of(record)
    return record


def own_message(chat: str, id: str, message: Mapping[str, Any]) -> dict[str, Any]:
    """What the session sent itself, as its account's other devices see it."""
    kind = _OF_TYPE.get(message.get("type", ""), "message")
    record = _record(kind, chat, id)
    if kind != "message":
        record["message_id"] = message.get("message_id", "")
        record |= {name: message[name] for name in ("emoji", "text") if name in message}
    else:
        word = message.get("type", "text")
        text = message.get("text") or message.get("caption") or ""
        record |= {"type": word if word in TYPES else "other", "text": text, "fresh": True}
        record |= _answers(message)
        if word == "media":
            main = str(message.get("mimetype", "")).partition("/")[0]
            record["type"] = main if main in ("image", "video", "audio") else "document"
            record["media"] = {"mimetype": message.get("mimetype", "")}
    record["id"] = _id_of(record)
    return record


def _answers(message: Mapping[str, Any]) -> dict[str, Any]:
    """What it replies to, and whom it names."""
    found: dict[str, Any] = {}
    if message.get("quote"):
        sender = message.get("quote_from", "")
        found["quote"] = {
            "message_id": message["quote"],
            "sender": "" if sender == ME else sender,
            "text": message.get("quote_text", ""),
        }
    if message.get("mentions"):
        found["mentions"] = list(message["mentions"])
    return found


def ack(chat: str, id: str, state: str) -> dict[str, Any]:
    own = {"id": f"a:{id}:{chat}:{state}"[:200], "state": state}
    return _record("message_ack", chat, id) | own


def _record(kind: str, chat: str, id: str, sender: str = "") -> dict[str, Any]:
    who = {"from_me": not sender, "sender": sender, "alias": "", "message_id": id}
    return {"v": 1, "kind": kind, "at": round(time.time(), 3), "chat": chat, **who}


def _content(kind: str, said: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    text = said.get("text", "")
    match kind:
        case "message":
            word = said.get("type", "text")
            return {"type": word, "text": text, "fresh": True, **_sample(word, text, more)}
        case "message_reaction":
            return {"emoji": text}
        case "message_edit":
            return {"text": text}
        case "message_vote":
            return {"options": [text] if text else []}
        case "message_ack":
            return {"state": text or "delivered"}
        case "call":
            return {"call_id": said.get("of") or new_id(), "state": text or "offer", "video": False}
    return {}


def _sample(word: str, text: str, more: Mapping[str, Any]) -> dict[str, Any]:
    """What a message of this type must have, where the caller gave nothing."""
    if word in _MIMETYPES:
        return {"media": {"mimetype": _MIMETYPES[word], "size": 1024}}
    if word == "location":
        return {"location": {"latitude": -23.5505, "longitude": -46.6333, "name": text}}
    if word == "contact":
        vcard = "BEGIN:VCARD\nVERSION:3.0\nFN:Ann\nTEL;type=CELL:+5511999990000\nEND:VCARD"
        return {"contacts": [{"name": "Ann", "vcard": vcard}]}
    if word == "poll":
        return {"poll": {"question": text, "options": ["yes", "no"], "several": False}}
    return {}


def _id_of(record: Mapping[str, Any]) -> str:
    """The same for the same thing, whenever it comes."""
    kind, who = record["kind"], record["sender"] or "me"
    message = f"{record['chat']}:{who}:{record['message_id']}"
    if kind == "message":
        return f"m:{message}"[:200]
    if kind == "call":
        return f"c:{record['call_id']}:{record['state']}"[:200]
    if kind == "message_ack":
        return f"a:{record['message_id']}:{record['sender']}:{record['state']}"[:200]
    return f"{ABOUT_MESSAGE[kind]}:{message}:{record['at']}"[:200]
