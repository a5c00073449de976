"""One run of the agent: looks at its state folder, builds its parts, runs and stops them."""

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from agent import clock, errors, logfiles
from agent.api.http.auth import KeyRing
from agent.api.http.call import Parts as ApiParts
from agent.api.server import Server, build_app
from agent.config.config import USUAL_LISTEN, Config
from agent.config.load import load_config
from agent.core.model import Category, InstanceId, JournalEntry
from agent.core.words import counted
from agent.daemon import state_folder as own
from agent.daemon.troubles import Troubles
from agent.deliver.bus import EventBus
from agent.fleet.settings import fleet_of
from agent.host import choose, life, units
from agent.log import about, going_on, log, set_level, set_up_logging
from agent.messages.reader import Reader
from agent.messages.sending import Sending
from agent.metrics.exporter import Exporter, Family, backend_families
from agent.moving.archives import Archives
from agent.store.database import Store
from agent.supervise import assemble, passes, snapshots, upkeep
from agent.supervise.facts import Facts
from agent.vault.identity import scan
from agent.webhooks.part import Webhooks, check_kinds

AGAIN = 5.0
"""Seconds until a task that failed begins again."""


@dataclass(slots=True)
class Signals:
    """Requests of the machine to the whole agent."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    reload: asyncio.Event = field(default_factory=asyncio.Event)

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)

    def ignore(self) -> None:
        """Ignore signals: nothing is left to stop, and one must not spoil the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    def _stop(self, number: signal.Signals) -> None:
        """Ask for the stop. A second signal changes nothing: each step is bounded in time."""
        log.info("%s: stopping in order", number.name)
        self.stop.set()


async def keep_up(
    name: str, begin: Callable[[], Awaitable[object]], again: float = AGAIN
) -> object:
    """Run a task to its end. One that failed begins again: a full disk, a want of descriptors or an
    error of its own is no reason to close sessions that are well. Where passes stop coming, the
    watchdog ends the agent; a damaged database ends it, for the next start sets that aside."""
    while True:
        try:
            return await asyncio.ensure_future(begin())  # see `_run_on`
        except StopAsked:
            raise
        except Exception as error:
            every = error if isinstance(error, ExceptionGroup) else ExceptionGroup("", [error])
            if every.subgroup(lambda e: isinstance(e, errors.StoreError) and e.code == "damaged"):
                raise
            trace = None if isinstance(error, errors.WaError) else error
            log.error("the task %s begins again in %g s: %s", name, again, error, exc_info=trace)
            await asyncio.sleep(again)


THREADS = min(32, (os.cpu_count() or 1) + 4)
"""Number of threads, as many as Python would start one by one."""


async def start_threads() -> None:
    """Start all threads now: later a limit of tasks may allow none, and passes would fail."""
    threads = ThreadPoolExecutor(THREADS, thread_name_prefix="disk")
    asyncio.get_running_loop().set_default_executor(threads)
    all_started = threading.Barrier(THREADS)
    await asyncio.gather(*(asyncio.to_thread(all_started.wait, 10.0) for _ in range(THREADS)))


def main(config_path: Path | None, overrides: Mapping[str, str]) -> int:
    """Run the agent until it is stopped; the exit status says how it ended."""
    os.umask(0o077)  # as its service has it: each parent of a folder that it makes, too
    try:
        config = load_config(config_path, os.environ, overrides=overrides)
        set_up_logging(config.agent.log_level, config.agent.log_format)
        if config.log.folder:
            folder, form = Path(config.log.folder), config.agent.log_format
            with going_on(f"cannot write log files in {folder}"):
                logfiles.open_files(folder, form, config.log.repairs_name)
        for sentence in config.warnings:
            log.warning("%s", sentence)
        state = config.agent.state_path
        # No agent can have used it: it is not there, or root's mark of the service would say so.
        only_lock = [*state.glob("*")] == [state / "lock"]  # of a start that failed
        first = only_lock or not os.path.lexists(state) or "WA_STATE_USED" in os.environ
        with choose.only_agent(state), own.only_copy(state) as mark:
            return asyncio.run(Daemon(config, config_path, overrides).run(mark, first=first))
    except errors.WaError as error:
        log.error("%s", error)
        if full := (error.code == "disk_full"):
            log.error("the agent cannot start on a full disk: make room there, then start it again")
        if (full or isinstance(error, errors.TryLater)) and "NOTIFY_SOCKET" in os.environ:
            # systemd starts us again at once, as often as it takes, as with a late mount
            time.sleep(5.0)
        return errors.TryLater.exit_status if full else error.exit_status


class StopAsked(Exception):
    """Ends the TaskGroup when an orderly stop was asked for."""


@dataclass(eq=False)
class Daemon:
    _config: Config
    _config_path: Path | None
    _overrides: Mapping[str, str]
    _hosts: Callable[..., Awaitable[life.Host]] = choose.open_host
    """Opens what starts the workers of one kind."""
    _signals: Signals = field(init=False, default_factory=Signals)
    _wakes: passes.Wakes = field(init=False, default_factory=passes.Wakes)

    async def run(self, mark: own.StateMark, *, first: bool = False) -> int:
        self._signals.listen()
        await start_threads()
        config, root = self._config, self._config.session_root
        self._bus = EventBus(config.api.event_queue)
        state = config.agent.state_path
        host = await self._hosts(config.agent.host, config, self._wakes.wake)
        try:
            running = [id for id, unit in (await host.list()).items() if unit.runs]
            if await asyncio.to_thread(own.state_is_missing, state, root):
                own.refuse_missing_state(state, own.used_mark(os.environ, installed=False))
                own.refuse_foreign_state(state, (), running)
                words = "a new state begins in the empty %s; if it had one, stop the agent, and"
                (log.info if first else log.warning)(f"{words} mount or name that: --state", state)
            await asyncio.to_thread(root.mkdir, mode=0o700, parents=True, exist_ok=True)
            with choose.only_of_sessions(root):
                await asyncio.to_thread(snapshots.finish_cut_short, root)
                store = await Store.open(state / own.DATABASE)
                store.on_append = self._bus.publish
                try:
                    known = {row.id for row, _ in await store.instances()}
                    known |= {found.id for found in await asyncio.to_thread(scan, root)}
                    own.refuse_foreign_state(state, known, running)
                    store.lost = await own.go_on(store, state, mark)
                    return await self._run_on(store, host)
                finally:
                    await store.close()
                    log.info("database closed; the agent has stopped")
                    self._signals.ignore()
        except errors.WaError:
            await host.close(leave_workers=True)
            raise

    async def _run_on(self, store: Store, host: life.Host) -> int:
        """Build the parts, and run them to their end."""
        supervisor = assemble.Supervisor(
            self._config,
            store,
            host,
            self._bus,
            self._wakes,
            open_packs=lambda: self._hosts(host.name, self._config, lambda _: None, units.PACKS),
        )
        server: Server | None = None
        state, status = self._config.agent.state_path, 1
        fleet = None
        if fleet_of(self._config).store:
            from agent.fleet.joined import Joined

            fleet = Joined(supervisor, state)
        try:
            reader = Reader(supervisor.registry)
            await self._take_over(supervisor)
            for facts in supervisor.registry.facts.values():
                if not facts.instance.enabled:  # what waits there is asked for at no link
                    reader.changed(facts.id)
            sending = Sending(state, supervisor, store, self._bus, reader)
            sending.take_on(self._config)
            webhooks = Webhooks(self._config, (store, self._bus, reader, supervisor.registry.facts))

            def families() -> Iterator[Family]:
                yield from backend_families(supervisor.backends.views())
                yield from sending.families(supervisor.views())
                yield from troubles.families()
                yield from webhooks.families()

            disks = (state, self._config.session_root)
            exporter = Exporter(supervisor.views, supervisor.status, disks, families)
            troubles = Troubles(supervisor, exporter, reader, sending, webhooks)
            for_handlers = ApiParts(
                self._config.api,
                supervisor,
                KeyRing(store, await store.keys()),
                exporter,
                reader,
                sending,
                webhooks,
                Archives(supervisor),
                *(troubles.present, troubles.windows),
                self._places(),
                self._signals.reload,
                forward=fleet.forward if fleet else None,
            )
            server = Server(for_handlers)
            await server.open(self._config.api_socket, os.environ, await host.missing_address())
            watchdog = upkeep.Watchdog(supervisor.loop, store, supervisor.settings)
            tasks: dict[str, Callable[[], Awaitable[object]]] = {
                "passes": supervisor.loop.run,
                "packs": supervisor.seats.run,
                "sampling": supervisor.sampler.run,
                "incidents": supervisor.incidents.run,
                "addresses": supervisor.reaching.run,
                "rounds": supervisor.upkeep.report_keys,
                "snapshots": supervisor.keeping.run,
                "watchdog": watchdog.run,
                "heartbeat": watchdog.beat,
                "performance log": supervisor.upkeep.log_performance,
                "ports": server.get_missing_ports,
                "trash": supervisor.upkeep.sweep_trash,
                "database check": supervisor.upkeep.check_database,
                "reload": partial(self._reload_when_asked, supervisor, sending, webhooks),
                "stop": self._end_when_asked,
                "messages": reader.run,
                "outbox": sending.run,
                "troubles": troubles.run,
                "webhooks": webhooks.run,
                **(fleet.begin(sending, partial(build_app, for_handlers)) if fleet else {}),
            }
            try:
                async with asyncio.TaskGroup() as group:
                    for name, begin in tasks.items():
                        group.create_task(keep_up(name, begin), name=name)
                    # Modules and settings stay: the collector does not walk them again in each
                    # burst of new sessions, and not while nothing happens.
                    gc.freeze()
                    watchdog.say("READY=1")
                    await store.note(said("agent_started", "the agent started"))
                    log.info("ready on %s", ", ".join(server.addresses))
            except* StopAsked:
                status = 0
            except* errors.StoreError as failures:
                log.error("the agent ends, as its database is damaged", exc_info=failures)
            watchdog.say("STOPPING=1")
        finally:
            # Whatever ended it, records are written. In a task of its own: with Python 3.11.2 a
            # timeout would end the one whose TaskGroup has failed.
            stops = stop_in_order(supervisor, server, state, ordered=self._signals.stop.is_set())
            written = await asyncio.ensure_future(stops)
        return status if written else 1

    async def _take_over(self, supervisor: assemble.Supervisor) -> None:
        """Go on with what the agent before this one had: sessions, packs, counts."""
        registry, config = supervisor.registry, self._config
        left = await assemble.load_instances(registry, config.instance)
        await supervisor.backends.take_over(config.backend)
        with going_on():
            await supervisor.seats.take_over(config.agent.state_path / "run-packs")
        for id in await assemble.line_up(registry, supervisor.seats, left):
            self._wakes.wake(id)
        await supervisor.upkeep.take_over()
        supervisor.expect(registry.facts)

    async def _end_when_asked(self) -> None:
        await self._signals.stop.wait()
        raise StopAsked

    async def _reload_when_asked(
        self, supervisor: assemble.Supervisor, sending: Sending, webhooks: Webhooks
    ) -> None:
        while True:
            await self._signals.reload.wait()
            self._signals.reload.clear()
            try:
                config = load_config(self._config_path, os.environ, overrides=self._overrides)
                check_kinds(config)
            except errors.ConfigError as error:
                log.error("the old settings stay in force: %s", error)
                supervisor.settings.refused = True
                continue
            await assemble.take_on(config, supervisor, self._config)
            sending.take_on(config)
            webhooks.reload(config)
            set_level(config.agent.log_level)
            log.info("settings read again")

    def _places(self) -> dict[str, str]:
        """Return the paths of this agent's own state, for doctor and the API."""
        config = self._config
        paths = {
            "state": config.agent.state_path,
            "sessions": config.session_root,
            "cache": config.cache_root,
            "socket": config.api_socket,
            "config": self._config_path,
        }
        places = {name: str(path.absolute()) for name, path in paths.items() if path is not None}
        return {**places, "listen": config.api.listen or USUAL_LISTEN}


# The orderly stop: what ends first, what is saved, what is closed. Each step has its time.


async def stop_in_order(
    supervisor: assemble.Supervisor, server: Server | None, state: Path, *, ordered: bool
) -> bool:
    """Schedules have ended with the TaskGroup; what follows keeps this order. Where the agent is
    restarting, or a failure ended it, the workers stay.

    False when the disk took not all of it: that keeps no session from being closed.
    """
    written, store = True, supervisor.store
    leave = not ordered or await supervisor.host.agent_is_restarting()
    if server is not None:
        server.announce_end()
    supervisor.registry.stopping = True
    log.info("schedules stopped; %s", "workers stay" if leave else "closing every session")

    async def write(what: Awaitable[object]) -> None:
        nonlocal written
        try:
            await what
        except errors.WaError as error:
            written = False
            log.error("cannot finish a step of the stop, continuing: %s", error)

    async def save_records() -> None:
        await write(supervisor.registry.save_all(closing=not leave))
        await write(supervisor.upkeep.keep())

    if leave:
        await save_records()
        facts = supervisor.registry.facts.values()
        links = [each.link for each in facts if each.link and not each.instance.backend]
        await asyncio.gather(*(link.close() for link in links), return_exceptions=True)
    else:
        await close_sessions(supervisor, save_records)
    await supervisor.gate.fleet.close(leave=leave)
    await supervisor.seats.close(leave_workers=leave)
    await supervisor.backends.close()
    await write(store.append(said("agent_stopped", "the agent stopped in order")))
    await write(own.note_stop(store, state))
    if server is not None:
        await server.close()
    supervisor.bus.close()
    await supervisor.host.close(leave_workers=leave)
    return written


async def close_sessions(
    supervisor: assemble.Supervisor, save_records: Callable[[], Awaitable[None]]
) -> None:
    """Prepare, save and close the sessions. Those of backends go on."""
    times, all_facts = supervisor.settings.config.stop, supervisor.registry.facts.values()
    linked = [facts for facts in all_facts if facts.link and not facts.instance.backend]
    besides = {facts.id for facts in all_facts if facts.instance.backend}
    many = counted(len(linked), "session")
    await _ask_all(linked, "prepare_stop", times.prepare, f"tell {many} to prepare")
    await save_records()
    await _ask_all(linked, "save", times.save, f"save {many}")
    # A start may still be queued: it would begin when the agent is gone.
    units = await supervisor.seats.list()
    running = {id for id, unit in units.items() if unit.runs or unit.job_pending} - besides
    begun = clock.boot_now()

    async def close(id: InstanceId) -> None:
        try:
            async with asyncio.timeout(times.close):
                known = supervisor.registry.facts.get(id)
                await (supervisor.seats.stop(known) if known else supervisor.host.stop(id))
        except (errors.WaError, TimeoutError) as error:
            log.error("cannot close the worker of %s: %s", id, error or "too slow", extra=about(id))

    await asyncio.gather(*map(close, running))
    log.info("closed %s in %.1f s", counted(len(running), "worker"), clock.boot_now() - begun)


async def _ask_all(linked: Collection[Facts], do: str, limit: float, what: str) -> None:
    begun = clock.boot_now()

    async def ask(facts: Facts) -> None:
        try:
            if facts.link is not None:
                await facts.link.call(do, {}, timeout=limit)
        except errors.WaError as error:
            words = "cannot %s the session of %s: %s"
            log.warning(words, do.replace("_", " "), facts.id, error, extra=about(facts.id))

    await asyncio.gather(*map(ask, linked))
    log.info("%s: done in %.1f s", what, clock.boot_now() - begun)


def said(kind: str, sentence: str) -> JournalEntry:
    return JournalEntry(kind, sentence, Category.SYSTEM, wall=time.time())
