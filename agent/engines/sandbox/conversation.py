"""What is written between the sandbox's account and its contacts: WhatsApp gives each message until
the session has it on its disk, and a contact gets each one once."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.core.words import Happening
from agent.engines.base import Reporter
from agent.engines.sandbox.records import ack, chat_of, new_id, own_message, record_of
from agent.engines.sandbox.said_files import SaidFiles
from agent.engines.sandbox.server import Server
from agent.errors import EngineError, InvalidRequest

if TYPE_CHECKING:
    from agent.engines.sandbox.held import Held

Record = Mapping[str, Any]

FOLDER = "whatsapp"
"""Beside the session's own folder: what WhatsApp and the contacts have is no part of a session."""
AT_ONCE = 200
"""Messages that WhatsApp gives before it waits until they are taken."""
AGAIN_AFTER = 1.0
"""Seconds until it gives again what was not taken."""
LARGEST = 256 << 10
NOISE = "5511900000001"
"""Who writes at the rate of the settings."""


class Conversation:
    """One account's. `count` hears of each message that came or went."""

    def __init__(
        self,
        session: Path,
        server: Server,
        reporter: Reporter,
        read_after: float,
        count: Callable[[], None],
    ) -> None:
        self._folder = session.with_name(FOLDER)
        self._session = session
        self._server = server
        self._reporter = reporter
        self._read_after = read_after
        self._count = count
        self._held: Held | None = None
        self._files = SaidFiles(self._own_folder)
        self.commands: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
            "say": self.say,
            "heard": self.heard,
            "file_part": self._files.take,
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
        chat = chat_of(message["to"])
        shown = {**_shown(message), **self._files.whole(message)}
        if self._side().receive(chat, id, shown):
            self._add([own_message(chat, id, message)])
        self._add([ack(chat, id, "server"), ack(chat, id, "delivered")])
        self._add([ack(chat, id, "read")], time.time() + self._read_after)
        return id

    def tell(self, told: Mapping[str, Any]) -> None:
        """Of the moment: its contacts see it, and nothing of it can come twice."""
        chat = chat_of(told["chat"]) if told.get("chat") else ""
        shown = {
            name: value for name, value in told.items() if name not in ("chat", "state") and value
        }
        self._side().receive(chat, new_id(), {"at": round(time.time(), 3), **shown})

    def file_of(self, record: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """What a contact sent with a message."""
        return self._files.pieces(str(record["_media"].get("file", "")))

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
        if not (file := self._files.whole(said, stays=True)):
            return said, {}
        fields = said.get("fields", {})
        named = {name: said[name] for name in ("mimetype", "filename") if name in said}
        media = {"mimetype": "application/octet-stream", **named, **file, **fields.get("media", {})}
        main = str(media["mimetype"]).partition("/")[0]
        word = said.get("type") or (main if main in ("image", "video", "audio") else "document")
        changed = {"type": word, "fields": {**fields, "media": media}}
        return {**said, **changed}, {"_media": {"file": file["sha256"]}}

    def _add(self, records: Sequence[Record], due: float = 0.0) -> None:
        self._side().add(records, due)
        self._changed.set()

    async def _until_more(self) -> None:
        try:
            async with asyncio.timeout(self._side().next_due()):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _tell(self, records: Sequence[Record]) -> None:
        for record in records:
            if record["kind"] == "message":
                direction = "out" if record["from_me"] else "in"
                self._happened("message", direction=direction, type=record["type"])
                self._count()
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
        try:
            self._folder.mkdir(mode=0o700)
            self._folder.chmod(self._session.stat().st_mode & 0o770)
        except FileExistsError:
            pass
        except OSError as error:
            raise EngineError(f"cannot make {self._folder}: {error}", code="save_failed") from error
        return self._folder


def _shown(message: Mapping[str, Any]) -> dict[str, Any]:
    """What a contact sees, but for a file."""
    hidden = ("key", "to", "content", "upload")
    shown = {name: value for name, value in message.items() if name not in hidden}
    return {"at": round(time.time(), 3), "type": "text", **shown}
