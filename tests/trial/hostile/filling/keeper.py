"""The program that writes, with LD_PRELOAD in its environment: for each line of its input, which is
a run in JSON, it begins a process by fork, which says on a line each what it acknowledged and what
was refused. A last line says how that process ended."""

import asyncio
import base64
import hashlib
import json
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.errors import StoreError
from agent.wings.messages.lookup import set_mark
from agent.wings.messages.media.shelf import Shelf
from agent.wings.messages.out.database import NAME
from agent.wings.messages.out.file import FOLDER, OutboxFiles
from agent.wings.messages.out.rows import NewMessage
from agent.wings.messages.out.states import State
from agent.wings.messages.out.store import OutboxStore
from tests.wings.messages.out.test_outbox_file import ID, row
from tests.wings.messages.spools import entries, spool_at

MOST = 160
"""Records of a spool, so that it begins segments and lets them go."""
SHELF = 60_000
"""Bytes of media."""


def say(**told: Any) -> None:
    os.write(1, json.dumps(told).encode() + b"\n")


def spool(run: Mapping[str, Any]) -> None:
    found = spool_at(Path(run["folder"]), most=MOST)
    waiting, number = list(run["waiting"]), run["number"]
    for what, *how in run["ops"]:
        try:
            if what == "append":
                waiting += range(number, number + how[0])
                number += how[0]
                found.append(entries(waiting, "x" * how[1]))
                say(kept=waiting)
                waiting = []
            elif what == "settle":
                found.settle(found.newest)
            elif what == "mark":
                set_mark(found.folder, f"{number % 7}", number)
            elif what == "above":
                found.go_above(found.newest + 5)
            elif what == "page":
                found.page(0, 100)
            else:
                found.trim()
        except OSError as error:
            say(refused=error.strerror or "")
    say(waiting=waiting, number=number)


def media(run: Mapping[str, Any]) -> None:
    shelf, number = Shelf(Path(run["folder"]) / "media", SHELF), run["number"]
    for what, *how in run["ops"]:
        try:
            if what == "append":
                number += 1
                content = os.urandom(how[1] * 20 + 1)
                store_file(shelf, f"{number:04d}", content, number)
                say(stored=f"{number:04d}", sha256=hashlib.sha256(content).hexdigest())
            elif what == "page":
                shelf.state()
            elif what == "trim":
                shelf.trim(float(number - 4))
        except OSError as error:
            say(refused=error.strerror or "")
    say(number=number)


def store_file(shelf: Shelf, name: str, content: bytes, at: int) -> None:
    file = shelf.begin(name)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(file, left) :]
    except OSError:
        shelf.drop(name, file)
        raise
    shelf.finish(name, file, float(at))


async def outbox(run: Mapping[str, Any]) -> None:
    folder, number = Path(run["folder"]), run["number"]
    files = OutboxFiles(folder / FOLDER)
    try:
        store = await OutboxStore.open(folder / NAME)
    except StoreError as error:
        say(refused=str(error), number=number)
        return
    for sentence in store.sentences:
        say(aside=sentence)
    for what, *how in run["ops"]:
        try:
            if what == "append":
                number += 1
                await take(store, files, number, how[1])
            elif what in ("settle", "page"):
                for waiting in (await store.waiting())[: 1 if what == "page" else 3]:
                    await store.change(waiting.number, begun_wall=1.0, tries=1)
                    say(ending=waiting.id)
                    await store.end(waiting.number, State.SENT, message_id=f"W{waiting.id}")
                    say(ended=waiting.id)
                    files.remove(waiting.file)
            elif what == "mark":
                await store.ledger.put_account(ID, 5.0, f"{number}")
            elif what == "trim":
                await store.forget_ended(0.0, 5)
            else:
                await store.empty_log()
        except StoreError as error:
            say(refused=str(error))
    say(number=number)
    await store.close()


async def take(store: OutboxStore, files: OutboxFiles, number: int, size: int) -> None:
    """As the outbox does: the file first, which goes again where the row was not taken."""
    id, name = f"out_{number}", f"file{number}" if size % 2 else ""
    values = {**{each: getattr(row(id), each) for each in row(id).__slots__}, "file": name}
    if name:
        files.write(name, base64.b64encode(id.encode() * size).decode())
    try:
        await store.take(NewMessage(type(row(id))(**values), '{"text": "x"}'), lambda _: None)
    except StoreError:
        files.remove(name)
        raise
    say(taken=id, file=name, size=size)


def main() -> None:
    works = {"spool": spool, "media": media, "outbox": lambda run: asyncio.run(outbox(run))}
    for line in sys.stdin:
        run = json.loads(line)
        pid = os.fork()
        if not pid:
            status = 1
            try:
                works[run["what"]](run)
                status = 0
            except BaseException:
                say(broke=traceback.format_exc())
            finally:
                os._exit(status)
        say(status=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
