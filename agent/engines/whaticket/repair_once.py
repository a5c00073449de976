"""One round over the sessions of a whaticket-like server, without an agent: `python -m
agent.engines.whaticket.repair_once`, called by scripts/auto-fix-sessions.sh. It works from a bare
copy of the `agent` folder: the standard library only.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.engines.remote.plain_http import PlainHttp
from agent.engines.whaticket.keys.removed import RemovedKeys
from agent.engines.whaticket.keys.store import SessionStore, open_store
from agent.engines.whaticket.once.errors import (
    ErrorRound,
    Sessions,
    attribute,
    over_threshold,
)
from agent.engines.whaticket.once.hand_over import agent_answers, hand_over
from agent.engines.whaticket.once.options import (
    Environment,
    Options,
    Orders,
    read_options,
    read_orders,
    read_state_dir,
)
from agent.engines.whaticket.once.repair import (
    Repairer,
    Task,
    is_down_still,
    is_left_down,
    status_of,
)
from agent.engines.whaticket.once.say import Voice, complain, show_stats
from agent.engines.whaticket.once.state_file import UNNAMED, Memory, locked, open_memory
from agent.engines.whaticket.once.usage import USAGE
from agent.engines.whaticket.server import WhaticketServer
from agent.errors import ConfigError, EngineError, NotFound, WaError

_SOCKET = "/run/wa-agent/api.sock"
_INTERRUPTED, _UNREACHABLE = 75, 5
_LEFT_DOWN = "left as it is: it was disconnected at the server, not by a round"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status that the usage names."""
    try:
        orders = read_orders(sys.argv[1:] if argv is None else argv)
        return _run(orders, Environment())
    except WaError as error:
        complain(str(error))
        return status_of(error)


def _run(orders: Orders, env: Environment) -> int:
    if orders.help:
        sys.stdout.write(USAGE)
        return 0
    place = Path(env.text("WA_AGENT_SOCKET", _SOCKET))
    if agent_answers(place):
        hand_over(place, orders)
    if orders.stats:
        show_stats(open_memory(read_state_dir(env)[1], writes=False).stats)
        return 0
    options = read_options(env, orders)
    voice = Voice(options.audit_log, debug=orders.debug, dry_run=orders.dry_run)
    logging.getLogger().addHandler(logging.NullHandler())
    if orders.dry_run:
        return asyncio.run(_one_round(options, orders, voice))
    voice.open()
    with locked(options.state_dir):
        return asyncio.run(_one_round(options, orders, voice))


async def _one_round(options: Options, orders: Orders, voice: Voice) -> int:
    memory = open_memory(options.state_dir, writes=not orders.dry_run)
    backup = options.backup_dir
    shelf = RemovedKeys(backup.parent, folder=backup.name, keep=options.keep_days * 86400.0)
    server = WhaticketServer(options.backend, PlainHttp(options.backend.server))
    store = open_store(options.backend, backup.parent, shelf)
    try:
        return await RepairOnce(options, orders, voice, memory, server, store).run()
    finally:
        await store.close()
        await server.close()


@dataclass(slots=True)
class RepairOnce:
    options: Options
    orders: Orders
    voice: Voice
    memory: Memory
    server: WhaticketServer
    store: SessionStore
    stopping: bool = False
    worst: int = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._stop)
        await self._keys_must_be_there()
        if not self.orders.dry_run:
            self.store.shelf.sweep()
        begun = time.monotonic()
        tasks = await self._tasks()
        self.memory.stats.checked += 1
        self.memory.stats.check_seconds += time.monotonic() - begun
        self.memory.save()
        repairer = Repairer(self.server, self.store, self.options, self.memory, self.voice)
        for task in tasks:
            if self.stopping:
                return _INTERRUPTED  # what is left is found again by the next round
            await self._do(repairer, task)
        if not self.voice.shown and not self.worst:
            sys.stdout.write("nothing needs a repair\n")
        return self.worst

    async def _keys_must_be_there(self) -> None:
        """A mistyped SESSIONS_DIR or an unreachable Redis is no system without errors."""
        if self.store.folder is not None:
            try:
                there = await asyncio.to_thread(self.store.folder.ids)
            except EngineError as error:
                raise ConfigError(f"cannot use SESSIONS_DIR: {error}") from error
            if not there and self.store.redis is None:
                where = self.options.backend.own.auth_folder
                raise ConfigError(f"cannot use SESSIONS_DIR: no session's folder is like {where}")
        if self.store.redis is not None:
            try:
                await self.store.redis.ping()
            except EngineError as error:
                address = self.store.redis.resp.address
                raise RedisAway(f"{error} (REDIS_URL, {address})") from error

    async def _tasks(self) -> list[Task]:
        """What is to be done with whom; the logs are read up to now."""
        what = self.orders.what
        if what != "all":
            await self._must_be_known(what)
        if self.orders.reset:
            return [Task(what, "an operator asked for a reset", reset=True)]
        if self.orders.put_back:
            return [Task(what, "an operator asked for its keys", put_back=self.orders.put_back)]
        read = ErrorRound(self.options, self.memory, self.voice)
        read.read()
        sessions = Sessions(self.server, self.store, read.hints)
        await sessions.look()
        if (down := sessions.trouble) is not None:
            # What is stored still names sessions: what a round took down is tried all the same.
            self.worst = status_of(down)
            self.voice.warn(str(down))
        await attribute(read, sessions, self.memory)
        self.memory.save()
        cut_off = await self._cut_off()
        over = over_threshold(self.memory.errors, self.options)
        minutes = f"{self.options.window / 60:g} min"
        tasks = [
            Task(due.session, f"{due.count} crypto errors in {minutes}", due.peers, due.unnamed)
            for due in over
            if due.session != UNNAMED and due.session not in {task.session for task in cut_off}
        ]
        if unnamed := sum(due.count for due in over if due.session == UNNAMED):
            self._complain_of_unnamed(unnamed)
        if what == "all":
            return [*cut_off, *[task for task in tasks if not await self._is_left_down(task)]]
        return [task for task in (*cut_off, *tasks) if task.session == what]

    async def _is_left_down(self, task: Task) -> bool:
        try:
            left = is_left_down(await self.server.state(task.session))
        except EngineError:
            return False  # its repair says why the server does not answer
        if left:
            self.voice.row(task.session, task.why, _LEFT_DOWN)
            self.voice.note("INFO", task.session, _LEFT_DOWN)
        return left

    def _complain_of_unnamed(self, count: int) -> None:
        self.worst = 1
        self.voice.warn(
            f"{count} errors name no session, and no peer identifies it: set"
            " LOG_SESSION, or a LOG_FILE with {id}"
        )

    async def _must_be_known(self, id: str) -> None:
        if self.orders.dry_run and id in await self._stored():
            return
        if await self.server.state(id) is None:
            raise NotFound(f"cannot find session {id}: the server knows no such session")

    async def _stored(self) -> list[str]:
        return await self.store.ids() if self.store.usable else []

    async def _cut_off(self) -> list[Task]:
        """What a round before this one took down, and is not up."""
        tasks = []
        for id, down in list(self.memory.down.items()):
            try:
                row = await self.server.state(id)
            except EngineError:
                pass  # it is tried and says itself why it cannot be
            else:
                if row is None or not is_down_still(row):
                    if row is not None and down.taken:
                        self._healed(id)
                    self.memory.is_up(id)
                    continue
            tasks.append(
                Task(
                    id,
                    "its last round was interrupted",
                    down.peers,
                    down.damaged,
                    cut_off=True,
                    only_up=down.taken or down.reset or not down.left_undone,
                    put_back=down.put_back,
                )
            )
        return tasks

    def _healed(self, id: str) -> None:
        """The round that took its damaged keys out was cut off, and it came up by itself."""
        self.memory.forget_errors(id)
        self.memory.stats.repaired += 1
        self.voice.note("INFO", id, "recovered: it has connected since its interrupted last round")

    async def _do(self, repairer: Repairer, task: Task) -> None:
        if self.orders.dry_run:
            try:
                self.voice.row(task.session, task.why, f"would do: {await repairer.plan(task)}")
            except WaError as error:
                self.voice.row(task.session, task.why, str(error))
                self.worst = status_of(error)
            return
        result = await repairer.carry_out(task)
        self.voice.row(task.session, task.why, result.text)
        self.worst = result.status or self.worst

    def _stop(self) -> None:
        self.stopping = True


class RedisAway(WaError):
    code = "redis"
    exit_status = _UNREACHABLE


if __name__ == "__main__":
    try:
        status = main()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
    sys.exit(status)
