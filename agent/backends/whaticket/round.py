"""One round of repairs without an agent, for containers and cron.

What a round leaves for the next is one file, old or new after a kill: where the logs were read to,
the errors that still count, and the sessions that it took down.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from agent.backends.http import ServerDown
from agent.backends.whaticket.calls import WhaticketCalls
from agent.backends.whaticket.contract import cannot
from agent.backends.whaticket.down_and_up import NOTHING, DownAndUp
from agent.backends.whaticket.keys import SessionKeys, open_keys
from agent.backends.whaticket.log_files import Owners, open_logs, read_json, turns_first
from agent.backends.whaticket.log_lines import LogError
from agent.config.declaration import BackendDeclaration
from agent.core.findings.crypto import judge_crypto
from agent.core.findings.crypto_patterns import CryptoFinding, Effect
from agent.core.findings.crypto_window import CryptoPolicy, CryptoWindow, note_error
from agent.core.model import Health
from agent.engines.tasks import in_thread
from agent.errors import WaError
from agent.files import write_whole

BUSY, BAD_STATE = 75, 78
MOST = 16 << 20
"""Bytes of the logs that one round reads."""
REACH = 600.0
"""Seconds before the window in which errors still count: the last round may have read the first
ones of a window."""
_BY_REASON = {"unreachable": 5, "timeout": 5, "tls": 5, "refused_key": 4, "not_found": 3}


async def run_round(
    declared: BackendDeclaration,
    folder: Path,
    wanted: str,
    policy: CryptoPolicy,
    *,
    note: Callable[[str, str, str], None] = lambda _level, _id, _text: None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[list[str], int]:
    """What was done, in sentences, and an exit status: 0 done, 1 failed, 3 not found, 4 refused,
    5 server not reachable, 75 another round runs or this one was stopped. `wanted`: "all", or the
    server's id of a session. `note`: takes each step at once: a level, the session or "", and
    words. `stop`: True ends the round before its next session."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    calls = WhaticketCalls(declared)
    keys = open_keys(declared, folder / "removed")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path = folder / "round.json"
        if not (state := read_json(path)) and path.exists():
            cause = "it names what a round took down: look whether each session is connected"
            return [f"cannot read {path}, which is damaged; {cause}, and remove it"], BAD_STATE
        round = Round(path, calls, keys, policy, note, **state)
        await round.read()
        await round.repair(wanted, stop)
        return round.sentences or ["nothing needs a repair"], round.status
    except BlockingIOError:
        return ["another round runs; try again later"], BUSY
    finally:
        await calls.close()
        os.close(fd)


@dataclass(slots=True)
class Round:
    path: Path
    calls: WhaticketCalls
    keys: SessionKeys
    policy: CryptoPolicy
    note: Callable[[str, str, str], None]
    marks: dict[str, Any] = field(default_factory=dict)
    errors: list[list[Any]] = field(default_factory=list)
    """When (Unix time), the session, the pattern's name and effect, the peer."""
    down: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The sessions that a round took down: whose keys were to go, and whether they have gone."""
    sentences: list[str] = field(default_factory=list)
    status: int = 0

    def save(self) -> None:
        state = {"marks": self.marks, "errors": self.errors, "down": self.down}
        try:
            write_whole(self.path, json.dumps(state).encode())
        except OSError as error:  # as an EngineError it keeps no session down
            raise cannot(f"write {self.path}", f"{error.strerror}", "files") from error

    def say(self, level: str, id: str, text: str) -> None:
        self.sentences.append(f"{id}: {text}" if id else text)
        self.note(level, id, text)

    async def read(self) -> None:
        """Read the logs on, and find whose each error is."""
        self.keys.shelf.sweep()
        owners = Owners()
        try:
            rows, _ = await self.calls.rows()
        except ServerDown as down:  # the logs are read when it answers
            self._failed("", down)
            return
        owners.know(rows)
        logs = open_logs(self.calls.own, (), self.marks, 0 if self.marks else MOST)
        found, nameless = await in_thread(logs.read, MOST, ends=True), 0
        for one in turns_first(found):
            whose = owners.whose(one)
            if isinstance(one.it, LogError) and whose:
                what = one.it.finding
                self.errors.append([one.at, whose, what.name, str(what.effect), what.peer])
            nameless += isinstance(one.it, LogError) and not whose
        for text in (*logs.lost, *filter(None, [logs.trouble])):
            self.say("WARN", "", text)
        if nameless and not self.errors:
            self.say("WARN", "", f"{nameless} errors about keys name no session: set log_session")
            self.status = 1
        since = time.time() - self.policy.window - REACH
        self.errors = sorted(error for error in self.errors if error[0] > since)
        self.marks = logs.positions()
        logs.close()
        self.save()

    async def repair(self, wanted: str, stop: Callable[[], bool]) -> None:
        if wanted != "all" and wanted not in self.down:
            try:
                await self.calls.look(wanted)
            except WaError as error:
                self._failed(wanted, error)
                return
        for id in sorted({*self.down, *(error[1] for error in self.errors)}):
            peers = self._due(id)
            if stop():
                self.status = BUSY
                return
            if wanted in ("all", id) and (peers is not None or id in self.down):
                try:
                    await self._repair(id, peers or [], by_name=wanted == id)
                except WaError as error:
                    self._failed(id, error)

    def _due(self, id: str) -> list[str] | None:
        """The peers whose keys are to go, "" for an unknown one; None: too few errors."""
        window = CryptoWindow()
        own = [error for error in self.errors if error[1] == id]
        for at, _, name, effect, peer in own:
            window = note_error(window, CryptoFinding(name, Effect(effect), peer), self.policy, at)
            signal = judge_crypto(window, self.policy, at, counts_messages=False).signal
            if signal is not None and signal.level is Health.CORRUPTED:
                return sorted({error[4] for error in own})
        return None

    async def _repair(self, id: str, peers: list[str], *, by_name: bool) -> None:
        row, before = await self.calls.look(id), self.down.get(id)
        if before is None and not by_name and row.status.upper() == "DISCONNECTED":
            self.say("INFO", id, "left as it is, for it was disconnected at the server")
            return
        peers = before["peers"] if before else peers

        def note(*, taken: bool) -> None:
            self.down[id] = {"peers": peers, "taken": taken}
            self.save()

        going, gone = partial(note, taken=False), partial(note, taken=True)
        report = partial(self.note, "INFO", id)
        way = DownAndUp(self.calls, self.keys, id, report, went_down=going, taken=gone)
        try:
            if not (before and before["taken"]):
                await way.regenerate([peer for peer in peers if peer], damaged="" in peers)
        except WaError as error:
            if before is None or error.code != NOTHING:
                raise
        if before:
            await way.come_up()
        self.down.pop(id, None)
        self.errors = [error for error in self.errors if error[1] != id]
        self.save()
        self.say("INFO", id, "recovered")

    def _failed(self, id: str, error: WaError) -> None:
        person = error.code == "pairing_lost"
        text = "needs a person: scan its code" if person else str(error)
        self.say("WARN", id if person else "", text)
        if person or error.code == "remote_missing":
            self.down.pop(id, None)
            self.save()
        by_code = 3 if error.code == "remote_missing" else 1
        self.status = _BY_REASON.get(getattr(error, "reason", ""), by_code)
