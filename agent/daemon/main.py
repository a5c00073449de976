"""One run of the agent: looks at its state folder, builds its parts, runs and stops them."""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agent.api.server import Server
from agent.config.config import Config
from agent.config.load import load_config
from agent.config.sections import USUAL_LISTEN
from agent.core.model import InstanceId
from agent.daemon.parts import open_parts
from agent.daemon.state_folder import (
    StatePlaces,
    go_on,
    name_some,
    read_mark,
    refuse_foreign_state,
    refuse_missing_state,
    running_elsewhere,
    state_is_missing,
    used_mark,
)
from agent.daemon.stop import stop_in_order
from agent.daemon.tasks import Signals, Tasks
from agent.deliver.bus import EventBus
from agent.errors import TryLater, WaError
from agent.host import units
from agent.host.base import Host
from agent.host.choose import open_host
from agent.host.machine.state_folders import UsedState, used_states
from agent.host.only_agent import only_agent, only_of_sessions
from agent.log import set_up_logging
from agent.logfiles import open_files
from agent.store.database import Store
from agent.supervise.assemble import Ground, Supervision, Supervisor
from agent.supervise.copies.snapshots import finish_cut_short
from agent.supervise.loop import Wakes
from agent.supervise.start_up import find_declared_problem, line_up, load_instances
from agent.vault.identity import found_sessions, scan

THREADS = min(32, (os.cpu_count() or 1) + 4)
"""As many as Python would start, one by one."""


async def start_threads() -> None:
    """Later a limit of tasks may allow no thread, and a pass that needs one would fail."""
    asyncio.get_running_loop().set_default_executor(
        ThreadPoolExecutor(THREADS, thread_name_prefix="disk")
    )
    all_started = threading.Barrier(THREADS)
    await asyncio.gather(*(asyncio.to_thread(all_started.wait, 10.0) for _ in range(THREADS)))


def refuse_copied_state(state: Path, session_root: Path) -> None:
    """TryLater when an agent, or a worker, of this machine uses another folder with the mark of
    this one: one is a copy of the other. Writes nothing."""
    here = read_mark(state)
    if here is None:
        return
    for used in used_states():
        mark = None if used.is_same(state) else read_mark(used.seen_at)
        if mark is not None and mark.id == here.id:
            raise TryLater(_sentence(state, used, session_root), code="state_copied")


def _sentence(state: Path, used: UsedState, session_root: Path) -> str:
    if used.agent:
        who = f"another agent runs (process {used.agent})"
        first = "stop that agent first"
    else:
        who = "no agent runs, but workers do"
        first = f"start the agent on {used.folder} again and stop it in order first"
    here = scan(session_root) if session_root.is_dir() else []
    sessions = used.workers or [folder.id for folder in here]
    whose = f" with {name_some(sessions)}" if sessions else ""
    return (
        f"cannot start on {state}: it and {used.folder} are copies of one state folder, and on"
        f" {used.folder} {who}{whose}: each session would log in a second time. To go on here,"
        f" {first}; for an agent of its own, begin with an empty state folder, and take single"
        " sessions over with `wa-agent export` and `import`"
    )


log = logging.getLogger(__name__)

NEXT_START = 5.0
"""Seconds until the service manager may try again what needs another moment (a late mount)."""


def main(config_path: Path | None, overrides: Mapping[str, str]) -> int:
    """Run the agent until it is stopped; the exit status says how it ended."""
    try:
        config = _read_config(config_path, overrides)
        set_up_logging(config.agent.log_level, config.agent.log_format)
        if config.log.folder:
            folder, form = Path(config.log.folder), config.agent.log_format
            open_files(folder, form, config.log.repairs_name)
        for sentence in config.warnings:
            log.warning("%s", sentence)
        with only_agent(config.agent.state_path):
            refuse_copied_state(config.agent.state_path, config.session_root)
            return asyncio.run(Daemon(config, config_path, overrides).run())
    except WaError as error:
        log.error("%s", error)
        full = error.code == "disk_full"
        if full:
            log.error("the agent cannot start on a full disk: make room there, then start it again")
        if (full or isinstance(error, TryLater)) and "NOTIFY_SOCKET" in os.environ:
            time.sleep(NEXT_START)  # systemd starts us again at once, as often as it takes
        return TryLater.exit_status if full else error.exit_status


class Daemon:
    """One run of the agent."""

    def __init__(
        self,
        config: Config,
        config_path: Path | None,
        overrides: Mapping[str, str],
        hosts: Callable[..., Awaitable[Host]] = open_host,
    ) -> None:
        """`hosts` opens what starts the workers of one kind."""
        self._config = config
        self._hosts = hosts
        self._config_path = config_path
        self._overrides = overrides
        self._signals = Signals()
        self._wakes = Wakes()
        self._bus = EventBus(config.api.event_queue)
        self._state = StatePlaces(
            config.agent.state_path,
            config.session_root,
            config.cache_root,
            used_mark(os.environ, installed=False),
        )

    async def run(self) -> int:
        self._signals.listen()
        await start_threads()
        root = self._config.session_root
        state = self._config.agent.state_path
        if await asyncio.to_thread(state_is_missing, self._state):
            await self._refuse_missing_state()
        await asyncio.to_thread(root.mkdir, mode=0o700, parents=True, exist_ok=True)
        with only_of_sessions(root):
            return await self._run_alone(root, state)

    async def _run_alone(self, root: Path, state: Path) -> int:
        await asyncio.to_thread(finish_cut_short, root)
        store = await Store.open(state / "agent.db", folder_sessions=lambda: found_sessions(root))
        store.on_append = self._bus.publish
        try:
            host = await self._open_host(self._config.agent.host, units.INSTANCES)
            await self._refuse_foreign_state(store, host)
            older = await go_on(store, self._state, rebuilt=bool(store.rebuilt_from))
            ground = Ground(
                store,
                host,
                self._bus,
                self._wakes,
                lambda: self._open_host(host.name, units.PACKS),
            )
            return await self._run_on(ground, older=older)
        finally:
            await store.close()
            log.info("database closed; the agent has stopped")
            self._signals.ignore()

    async def _refuse_missing_state(self) -> None:
        """Workers that run without a state here are evidence: this is no first start."""
        host = await self._open_host(self._config.agent.host, units.INSTANCES)
        try:
            running = {*await _running(host), *running_elsewhere(self._state)}
        finally:
            await host.close(leave_workers=True)
        refuse_missing_state(self._state, running)

    async def _refuse_foreign_state(self, store: Store, host: Host) -> None:
        rows = {instance.id for instance, _ in await store.instances()}
        folders = {folder.id for folder in await asyncio.to_thread(scan, self._config.session_root)}
        try:
            refuse_foreign_state(self._state, rows | folders, await _running(host))
        except WaError:
            await host.close(leave_workers=True)
            raise

    async def _open_host(self, choice: str, kind: units.Kind) -> Host:
        config = self._config
        state = config.agent.state_path
        wake, run, root = {
            units.INSTANCES.prefix: (self._wakes.wake, "run", config.session_root),
            units.PACKS.prefix: (lambda _: None, "run-packs", state / "run-packs"),
        }[kind.prefix]
        return await self._hosts(
            choice,
            wake=wake,
            worker=config.worker,
            run_dir=state / run,
            session_root=root,
            cache_root=config.cache_root,
            kind=kind,
            members_root=config.session_root,
        )

    async def _run_on(self, ground: Ground, *, older: bool) -> int:
        supervision = Supervision(self._config, ground)
        supervisor = Supervisor(supervision)
        store, host, leave = ground.store, ground.host, False
        server: Server | None = None
        try:
            registry, root = supervision.registry, self._config.session_root
            await load_instances(registry, store, root, self._config.instance, older=older)
            await supervision.backends.take_over(self._config.backend)
            await supervision.packs.take_over(self._config.agent.state_path / "run-packs")
            for id in await line_up(registry, supervision.seats, supervision.gate):
                self._wakes.wake(id)
            await supervision.handover.take_over()
            supervision.figures.expect(supervision.registry.facts)
            parts = await open_parts(
                self._config,
                supervision,
                supervisor,
                self._places(),
                reload=self._signals.reload.set,
            )
            server = parts.server
            tasks = Tasks(
                self._config,
                parts,
                self._signals,
                lambda: _read_config(self._config_path, self._overrides),
            )
            status = await tasks.run()
        finally:
            # Whatever ended it, an order or a failure: sessions are saved and closed.
            leave = await host.agent_is_restarting()
            written = await stop_in_order(
                supervision,
                supervisor,
                server,
                self._state,
                leave=leave,
                hurry=self._signals.hurry,
            )
        return status if written else 1

    def _places(self) -> dict[str, str]:
        """The paths of this agent's own state, for doctor and the API."""
        config = self._config
        paths = {
            "state": config.agent.state_path,
            "sessions": config.session_root,
            "cache": config.cache_root,
            "socket": config.api_socket,
        }
        if self._config_path is not None:
            paths["config"] = self._config_path
        places = {name: str(path.absolute()) for name, path in paths.items()}
        return {**places, "listen": config.api.listen or USUAL_LISTEN}


def _read_config(path: Path | None, overrides: Mapping[str, str]) -> Config:
    return load_config(path, os.environ, overrides=overrides, more=find_declared_problem)


async def _running(host: Host) -> list[InstanceId]:
    return [id for id, unit in (await host.list()).items() if unit.runs]
