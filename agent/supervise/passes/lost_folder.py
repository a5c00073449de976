"""A session's folder was deleted or replaced under its live worker: notice and say it. Only that
worker has the pairing as it is now, so no plan may end it; a person may restore a snapshot, and
when the worker ends by itself, the newest snapshot takes the folder's place."""

import asyncio
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from agent.core.model import InstanceId
from agent.core.words import SUSPECT
from agent.errors import Refused
from agent.supervise.facts import Facts
from agent.vault.folder import SESSION

CODE = "folder_lost"

Inodes = Mapping[str, int]
"""Of an instance's folder and of the session in it, as far as they exist."""


class FolderLooks:
    """Looks at folders in a thread; the requests of one turn of the event loop share one call of
    the thread, for there are hundreds of probes a minute."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._asked: dict[InstanceId, asyncio.Future[Inodes]] = {}
        self._looking: set[asyncio.Task[None]] = set()

    def ask(self, id: InstanceId) -> "asyncio.Future[Inodes]":
        """What lies at its path, looked at after this call."""
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_soon(self._begin)
        if id not in self._asked:
            self._asked[id] = loop.create_future()
        return self._asked[id]

    def _begin(self) -> None:
        asked, self._asked = self._asked, {}
        task = asyncio.get_running_loop().create_task(self._look(asked), name="look at folders")
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _look(self, asked: "Mapping[InstanceId, asyncio.Future[Inodes]]") -> None:
        try:
            inodes = await asyncio.to_thread(_inodes_of_all, self._root, list(asked))
        except Exception as error:  # no thread could be started: each pass fails, and tries again
            for answer in asked.values():
                if not answer.done():
                    answer.set_exception(error)
                    answer.exception()  # a probe that gave up has cancelled its future
            return
        for id, answer in asked.items():
            if not answer.done():
                answer.set_result(inodes[id])


def _inodes_of_all(root: Path, ids: Collection[InstanceId]) -> dict[InstanceId, Inodes]:
    return {id: _inodes_of(root / id) for id in ids}


def _inodes_of(folder: Path) -> Inodes:
    """Of the entries at an instance's path now; missing ones are left out."""
    inodes = {}
    for name, path in (("folder", f"{folder}"), ("session", f"{folder}/{SESSION}")):
        try:
            inodes[name] = os.stat(path, follow_symlinks=False).st_ino  # noqa: PTH116 - with each probe
        except OSError:
            continue
    return inodes


def compare_folder(facts: Facts, raw: object, here: Inodes) -> None:
    """Compare the folder that a probe says its worker has with the one at its path."""
    folders = raw if isinstance(raw, Mapping) else {}
    inodes, deleted = _numbers(folders.get("inodes")), folders.get("deleted")
    gone = [name for name in inodes if isinstance(deleted, list) and name in deleted]
    other = [name for name, inode in inodes.items() if here.get(name) != inode]
    facts.run.folder_deleted = bool(gone)
    if gone:
        facts.run.folder_lost = f"its {gone[0]} was deleted under its worker"
    elif other:
        facts.run.folder_lost = f"its {other[0]} was moved away or replaced under its worker"
    else:
        facts.run.folder_lost = ""


def refuse_to_end(facts: Facts, doing: str) -> None:
    """Refuse an order that would end the worker with the only copy of the pairing."""
    if holds_the_only_copy(facts):
        raise Refused(
            f"cannot {doing} {facts.id}: {facts.run.folder_lost}, and only that worker still has"
            " the pairing; restore a snapshot in its place. To end the pairing all the same, log"
            " the session out or delete it",
            code=CODE,
        )


def holds_the_only_copy(facts: Facts) -> bool:
    claim = facts.run.claim
    lost = claim is not None and claim.claim.reason == SUSPECT  # its worker has it no more either
    return facts.run.folder_deleted and facts.unit.runs and facts.record.paired and not lost


def _numbers(raw: Any) -> dict[str, int]:
    if not isinstance(raw, Mapping):
        return {}
    return {name: ino for name, ino in raw.items() if type(ino) is int and isinstance(name, str)}
