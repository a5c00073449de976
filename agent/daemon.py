"""The agent: builds its parts, runs them in one TaskGroup, stops them in order."""

import asyncio
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.api.serve import Server, serve
from agent.config import Config, load_config, unused_variables
from agent.core.model import Category, InstanceId, JournalEntry
from agent.deliver.bus import EventBus
from agent.deliver.webhooks.all import Webhooks
from agent.errors import ConfigError, TryLater, WaError
from agent.host import units
from agent.host.base import Host
from agent.host.choose import open_host
from agent.host.only_agent import only_agent
from agent.log import set_level, set_up_logging
from agent.logfiles import open_files
from agent.metrics.exporter import Exporter
from agent.store.database import Store
from agent.supervise.assemble import Supervision, assemble
from agent.supervise.backends.notes import CIRCUITS
from agent.supervise.copies.snapshots import finish_cut_short
from agent.supervise.loop import Wakes
from agent.supervise.periodic.alerts import Alerting, alertmanager_of
from agent.supervise.periodic.performance_log import log_performance
from agent.supervise.periodic.upkeep import check_database, sweep_trash
from agent.supervise.periodic.usage import keep_trends
from agent.supervise.periodic.watchdog import Watchdog
from agent.supervise.reload import Reload, take_on
from agent.supervise.requests.evidence import Evidence
from agent.supervise.shared import Ground
from agent.supervise.shut_down import StopTimes, close_sessions, leave_sessions
from agent.supervise.start_up import find_declared_problem, line_up, load_instances
from agent.supervise.state_folder import (
    StatePlaces,
    go_on,
    note_stop,
    refuse_foreign_state,
    refuse_missing_state,
    running_elsewhere,
    state_is_missing,
    used_mark,
)
from agent.vault.identity import found_sessions, scan

log = logging.getLogger(__name__)

LATEST_CIRCUITS = 1000
NEXT_START = 5.0
"""Seconds until the service manager may try again what needs another moment (a late mount)."""


@dataclass(slots=True)
class Signals:
    """What the machine asks of the whole agent."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    reload: asyncio.Event = field(default_factory=asyncio.Event)

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)

    def ignore(self) -> None:
        """Nothing is left to stop: an impatient signal must not spoil the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    def _stop(self, number: signal.Signals) -> None:
        if self.stop.is_set():
            log.warning("%s again: saving without further waiting", number.name)
            self.hurry.set()
        else:
            log.info("%s: stopping in order", number.name)
            self.stop.set()


class StopAsked(Exception):
    """Ends the TaskGroup when somebody asked for an orderly stop."""


def main(config_path: Path | None, overrides: Mapping[str, str]) -> int:
    """Run the agent until it is stopped; the exit status says how it ended."""
    try:
        config = _read_config(config_path, overrides)
        set_up_logging(config.agent.log_level, config.agent.log_format)
        if config.log.folder:
            chosen, form = config.log, config.agent.log_format
            open_files(
                Path(chosen.folder),
                form,
                max_bytes=chosen.max_bytes,
                keep=chosen.keep,
                repairs_name=chosen.repairs_name,
            )
        for sentence in unused_variables(os.environ, config.backend):
            log.warning("%s", sentence)
        with only_agent(config.agent.state_path):
            return asyncio.run(Daemon(config, config_path, overrides).run())
    except WaError as error:
        log.error("%s", error)
        if isinstance(error, TryLater) and "NOTIFY_SOCKET" in os.environ:
            time.sleep(NEXT_START)  # systemd starts us again at once, as often as it takes
        return error.exit_status


class Daemon:
    """One run of the agent."""

    def __init__(
        self, config: Config, config_path: Path | None, overrides: Mapping[str, str]
    ) -> None:
        self._config = config
        self._config_path = config_path
        self._overrides = overrides
        self._signals = Signals()
        self._wakes = Wakes()
        self._backend_wakes = Wakes()
        self._bus = EventBus(config.api.event_queue)
        self._state = StatePlaces(
            config.agent.state_path,
            config.session_root,
            config.cache_root,
            used_mark(os.environ, installed=False),
        )

    async def run(self) -> int:
        self._signals.listen()
        root = self._config.session_root
        state = self._config.agent.state_path
        if await asyncio.to_thread(state_is_missing, self._state):
            await self._refuse_missing_state()
        await asyncio.to_thread(root.mkdir, mode=0o700, parents=True, exist_ok=True)
        await asyncio.to_thread(finish_cut_short, root)
        store = await Store.open(state / "agent.db", found=lambda: found_sessions(root))
        store.on_append = self._bus.publish
        try:
            host = await self._open_host(self._config.agent.host, units.INSTANCES)
            await self._refuse_foreign_state(store, host)
            older = await go_on(store, self._state, rebuilt=bool(store.rebuilt_from))
            backends = None
            if self._config.backend:
                backends = await self._open_host(host.name, units.BACKENDS)
            ground = Ground(
                store,
                host,
                backends,
                self._bus,
                self._wakes,
                self._backend_wakes,
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
        folders = {found.id for found in await asyncio.to_thread(scan, self._config.session_root)}
        try:
            refuse_foreign_state(self._state, rows | folders, await _running(host))
        except WaError:
            await host.close(leave_workers=True)
            raise

    async def _open_host(self, choice: str, kind: units.Kind) -> Host:
        state = self._config.agent.state_path
        wake, run, root = {
            units.INSTANCES.prefix: (self._wakes.wake, "run", self._config.session_root),
            units.BACKENDS.prefix: (
                self._backend_wakes.wake,
                "run-backends",
                self._config.backends_root,
            ),
            # A pack has no passes, and all that it keeps is in its run folder.
            units.PACKS.prefix: (_nothing, "run-packs", state / "run-packs"),
        }[kind.prefix]
        return await open_host(
            choice,
            wake=wake,
            worker=self._config.worker,
            run_dir=state / run,
            session_root=root,
            cache_root=self._config.cache_root,
            kind=kind,
        )

    async def _run_on(self, ground: Ground, *, older: bool) -> int:
        supervision = assemble(self._config, ground)
        store, host = ground.store, ground.host
        leave = False
        server: Server | None = None
        try:
            registry, root = supervision.registry, self._config.session_root
            await load_instances(registry, store, root, self._config.instance, older=older)
            told = await store.history(kinds=CIRCUITS, limit=LATEST_CIRCUITS)
            await supervision.backends.take_over(self._config.backend, told)
            supervision.packs.take_over()
            for id in await line_up(registry, supervision.seats, supervision.room):
                self._wakes.wake(id)
            await supervision.handover.take_over()
            await supervision.carried.take_over()
            if not supervision.carried.ended_in_order:
                supervision.figures.repairs_before = supervision.figures.repairs()
            supervision.figures.expect(supervision.registry.facts)
            supervisor = supervision.supervisor
            state = self._config.agent.state_path
            exporter = Exporter(supervisor.views, supervisor.status, state)
            exporter.backends = supervisor.backends.views
            alerting = Alerting(
                lambda: supervision.settings.config,
                supervisor.views,
                supervisor.status,
                exporter,
                store,
                alertmanager_of(self._config.alerts),
            )
            if (pushed := alerting.alertmanager) is not None:
                exporter.alert_deliveries = lambda: pushed.deliveries
            webhooks = Webhooks(
                self._config.webhook,
                store,
                self._bus,
                machine=self._config.alerts.machine or socket.gethostname(),
                version=supervisor.status().version,
            )
            exporter.webhooks = webhooks.figures
            server = await serve(
                self._config.api,
                supervisor,
                store,
                exporter,
                socket_path=self._config.api_socket,
                alerts=alerting.board,
                webhooks=webhooks,
                evidence=Evidence(host, root, supervision.sampler),
                places=self._places(),
                listen=await host.missing_address(),
            )
            status = await self._serve_until_stopped(
                supervision, ground, server, alerting, webhooks
            )
        finally:
            # Whatever ended it, an order or a failure: sessions are saved and closed.
            leave = await host.agent_is_restarting()
            written = await self._stop_in_order(supervision, ground, server, leave=leave)
        return status if written else 1

    def _places(self) -> dict[str, str]:
        """For whoever looks at this machine: not at another state than this agent's."""
        config = self._config
        found = {
            "state": config.agent.state_path,
            "sessions": config.session_root,
            "cache": config.cache_root,
            "socket": config.api_socket,
        }
        if self._config_path is not None:
            found["config"] = self._config_path
        places = {name: str(path.absolute()) for name, path in found.items()}
        return {**places, "listen": config.scraped_at}

    async def _serve_until_stopped(
        self,
        supervision: Supervision,
        ground: Ground,
        server: Server,
        alerting: Alerting,
        webhooks: Webhooks,
    ) -> int:
        store = ground.store
        watchdog = Watchdog(supervision.loop, store.answers)
        status = 0
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(supervision.loop.run(), name="passes")
                if ground.backend_host is not None:
                    tasks.create_task(supervision.backends.loop.run(), name="backends")
                tasks.create_task(supervision.packs.run(), name="packs")
                tasks.create_task(supervision.sampler.run(), name="sampling")
                tasks.create_task(
                    keep_trends(supervision.trends, supervision.registry.facts), name="trends"
                )
                tasks.create_task(supervision.incidents.run(), name="incidents")
                tasks.create_task(supervision.reaching.run(server.routes), name="addresses")
                tasks.create_task(supervision.rounds.run(), name="rounds")
                tasks.create_task(supervision.figures.watch_lag(), name="loop lag")
                tasks.create_task(supervision.handover.run(), name="handover")
                tasks.create_task(supervision.snapshots.run(), name="snapshots")
                tasks.create_task(watchdog.run(), name="watchdog")
                tasks.create_task(
                    log_performance(
                        supervision.supervisor.views,
                        lambda: supervision.settings.config.log.performance_interval,
                    ),
                    name="performance log",
                )
                tasks.create_task(supervision.supervisor.finish_deletions(), name="deletions")
                tasks.create_task(alerting.run(), name="alerts")
                if alerting.alertmanager is not None:
                    tasks.create_task(alerting.alertmanager.run(), name="alertmanager")
                tasks.create_task(webhooks.run(), name="webhooks")
                tasks.create_task(server.get_missing_ports(), name="ports")
                tasks.create_task(
                    sweep_trash(
                        self._config.session_root,
                        lambda: supervision.settings.config.sessions.trash_days,
                    ),
                    name="trash",
                )
                copy = self._config.agent.state_path / "agent.db.copy"
                tasks.create_task(check_database(store, copy), name="database check")
                tasks.create_task(
                    self._reload_when_asked(supervision, store, webhooks), name="reload"
                )
                tasks.create_task(self._end_when_asked(), name="stop")
                # Modules and settings stay: the collector does not walk them again in each burst
                # of new sessions, and not while nothing happens.
                gc.freeze()
                watchdog.say("READY=1")
                await store.append(_said("agent_started", "the agent started"))
                log.info("ready on %s", ", ".join(server.addresses))
        except* StopAsked:
            pass
        except* Exception as failures:
            status = 1
            for failure in failures.exceptions:
                log.error("a part of the agent failed", exc_info=failure)
        watchdog.say("STOPPING=1")
        return status

    async def _end_when_asked(self) -> None:
        await self._signals.stop.wait()
        raise StopAsked

    async def _stop_in_order(
        self,
        supervision: Supervision,
        ground: Ground,
        server: Server | None,
        *,
        leave: bool,
    ) -> bool:
        """Schedules have ended with the TaskGroup; what follows keeps this order.

        False when the disk took not all of it: that keeps no session from being closed.
        """
        written, store, host = True, ground.store, ground.host
        supervision.supervisor.repairs.stop()
        facts = supervision.registry.facts.values()
        every = [one for one in facts if not one.instance.backend]
        log.info("schedules stopped; %s", "workers stay" if leave else "closing every session")

        async def write(what: Awaitable[object]) -> None:
            nonlocal written
            try:
                await what
            except WaError as error:
                written = False
                log.error("the stop goes on: %s", error)

        async def save_records() -> None:
            await write(supervision.registry.save_all(closing=not leave))
            await write(supervision.handover.keep())

        if leave:
            await save_records()
            await leave_sessions(every)
        else:
            chosen = supervision.settings.config.stop
            times = StopTimes(chosen.prepare, chosen.save, chosen.close)
            await close_sessions(every, host, times, save_records, hurry=self._signals.hurry)
        await supervision.packs.close(leave_workers=leave)
        await supervision.backends.close(leave_workers=leave)
        await write(store.append(_said("agent_stopped", "the agent stopped in order")))
        await write(note_stop(store, self._state))
        if server is not None:
            await server.close()
        # Nothing shows them any more: what the next agent begins with is what was shown last.
        await supervision.carried.keep()
        self._bus.close()
        await host.close(leave_workers=leave)
        return written

    async def _reload_when_asked(
        self, supervision: Supervision, store: Store, webhooks: Webhooks
    ) -> None:
        reach = Reload(
            supervision.settings,
            supervision.registry,
            store,
            self._config.session_root,
            self._wakes,
            supervision.backends,
        )
        while True:
            await self._signals.reload.wait()
            self._signals.reload.clear()
            try:
                config = _read_config(self._config_path, self._overrides)
            except ConfigError as error:
                log.error("the old settings stay in force: %s", error)
                supervision.settings.refused = True
                continue
            await take_on(config, reach)
            webhooks.apply(config.webhook)
            set_level(config.agent.log_level)
            log.info("settings read again")


def _read_config(path: Path | None, overrides: Mapping[str, str]) -> Config:
    return load_config(path, os.environ, overrides=overrides, more=find_declared_problem)


def _nothing(_id: InstanceId) -> None: ...


async def _running(host: Host) -> list[InstanceId]:
    return [id for id, unit in (await host.list()).items() if unit.runs]


def _said(kind: str, sentence: str) -> JournalEntry:
    return JournalEntry(kind, sentence, Category.SYSTEM, wall=time.time())
