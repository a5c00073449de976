"""A session's folder was deleted or replaced under its live worker: notice, save, then restart.
Until it is saved only that worker has the pairing: no plan may end the worker."""

import asyncio
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from agent.core.model import Category, InstanceId
from agent.errors import Refused, WaError
from agent.host.base import Host
from agent.log import bound
from agent.supervise.facts import Facts
from agent.vault.refuge import bring_back, inodes_of

REFUGE = "refuge"
"""In the worker's runtime folder, which worker and agent both see."""
SAVE_TIMEOUT = 20.0
CODE = "folder_lost"

log = logging.getLogger(__name__)


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
    return {id: inodes_of(root / id) for id in ids}


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
            " the pairing; the agent tries to save it at each probe. To end the pairing all the"
            " same, log the session out or delete it",
            code=CODE,
        )


def holds_the_only_copy(facts: Facts) -> bool:
    return facts.run.folder_deleted and facts.unit.runs and facts.record.paired


async def save_from_worker(facts: Facts, host: Host, root: Path) -> str:
    """Save it, once per probe; a sentence on the result, "" when there was nothing to save."""
    if (
        not facts.run.folder_deleted
        or facts.link is None
        or facts.run.refuge_tried == facts.run.probe
    ):
        return ""
    facts.run.refuge_tried = facts.run.probe
    said = bound(Category.SESSION, facts.id)
    try:
        await facts.link.call("save_elsewhere", {"name": REFUGE}, timeout=SAVE_TIMEOUT)
        refuge = host.link_path(facts.id).parent / REFUGE
        paired = facts.record.paired
        retired = await asyncio.to_thread(bring_back, root, facts.instance, refuge, paired=paired)
    except WaError as error:
        said.error("%s, and the worker cannot save it elsewhere: %s", facts.run.folder_lost, error)
        return ""
    facts.saved.identity = None
    facts.run.folder_deleted = False
    facts.asked.restart_for = f"{facts.run.folder_lost}; the agent saved it into a new folder"
    more = f"; the trash has the other folder as {retired}" if retired else ""
    sentence = f"{facts.run.folder_lost}: the worker saved it into a new folder{more}"
    said.warning("%s", sentence)
    return sentence


def _numbers(raw: Any) -> dict[str, int]:
    if not isinstance(raw, Mapping):
        return {}
    return {name: ino for name, ino in raw.items() if type(ino) is int and isinstance(name, str)}
