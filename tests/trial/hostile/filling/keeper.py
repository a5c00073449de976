"""The program that writes, with LD_PRELOAD in its environment: for each line of its input, which is
a run in JSON, it begins a process by fork, which says on a line each what it acknowledged and what
was refused. A last line says how that process ended."""

import asyncio
import base64
import json
import os
import sqlite3
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.core.model import InstanceId
from agent.errors import StoreError
from agent.messages.incoming import OutFiles
from agent.messages.outbox import NAME, Mark, Outbox, OutMessage
from agent.messages.outcomes import State
from agent.messages.sending import FOLDER
from tests.messages.records import file_at, messages, newest, page_of, settle

MOST = 160
"""Records of a session, so that some go."""
ID = InstanceId("sales")


def say(**told: Any) -> None:
    os.write(1, json.dumps(told).encode() + b"\n")


def incoming(run: Mapping[str, Any]) -> None:
    file = file_at(Path(run["folder"]), most=MOST)
    waiting, number = list(run["waiting"]), run["number"]
    for what, *how in run["ops"]:
        try:
            if what == "append":
                waiting += range(number, number + how[0])
                number += how[0]
                file.append(messages(waiting, "x" * how[1]))
                say(kept=waiting)
                waiting = []
            elif what == "settle":
                settle(file, newest(file))
            elif what == "mark":
                file.read("messages_marked", {"chat": f"{number % 7}", "cursor": number})
            elif what == "page":
                page_of(file, 0, 100)
            else:
                file.trim()
        except (OSError, sqlite3.Error, StoreError) as error:
            say(refused=str(error))
        for sentence in file.said:
            say(aside=sentence)
    say(waiting=waiting, number=number)


async def outbox(run: Mapping[str, Any]) -> None:
    folder, number = Path(run["folder"]), run["number"]
    files = OutFiles(folder / FOLDER)
    known = Mark(*run["mark"]) if run["mark"] else None
    try:
        box = await Outbox.open(folder / NAME, known)
    except StoreError as error:
        say(refused=str(error), number=number)
        return
    if box.opened_so:
        say(aside=box.opened_so)
    say(mark=[box.mark.id, box.mark.times])
    for what, *how in run["ops"]:
        try:
            if what == "append":
                number += 1
                await take(box, files, number, how[1])
            elif what in ("settle", "page"):
                for row in (await box.waiting())[: 1 if what == "page" else 3]:
                    await box.change(row.number, State.SENDING, begun_wall=1.0, tries=1)
                    say(ending=row.id)
                    await box.change(row.number, State.SENT, message_id=f"W{row.id}")
                    say(ended=row.id)
                    files.remove(row.file)
            elif what == "mark":
                await box.note_acks(ID, [], number)
            else:
                await box.tidy()
        except StoreError as error:
            say(refused=str(error))
    say(number=number)
    await box.close()


async def take(box: Outbox, files: OutFiles, number: int, size: int) -> None:
    """As `Sending` does: the file first, which goes again where the row was not taken."""
    id, name, now = f"out_{number}", f"file{number}" if size % 2 else "", time.time()
    row = OutMessage(
        *(0, id, ID, 0.0, "", "1", "1", "text", State.ACCEPTED, now, now, now + 3600), file=name
    )
    if name:
        files.write(name, base64.b64encode(id.encode() * size).decode())
    try:
        await box.take(row, '{"text": "x"}', lambda _row, _again: None)
    except StoreError:
        files.remove(name)
        raise
    say(taken=id, file=name, size=size)


def main() -> None:
    works = {"incoming": incoming, "outbox": lambda run: asyncio.run(outbox(run))}
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
