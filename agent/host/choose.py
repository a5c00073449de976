"""Which host this machine offers, and locks by which one agent alone uses a folder."""

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from agent.config.config import Config
from agent.errors import ConfigError, HostError, TryLater, cause_of
from agent.files import folder_locked
from agent.host import life, units

log = logging.getLogger(__name__)

BOOTED_BY_SYSTEMD = Path("/run/systemd/system")
"""Folder of sd_booted(3): it exists where systemd is the running init, and nowhere else."""


async def open_host(
    choice: str, config: Config, wake: life.Wake, kind: units.Kind = units.INSTANCES
) -> life.Host:
    """Open a host. `choice`: auto, systemd or process; for a second kind, the first's name."""
    state, packs, worker = config.agent.state_path, kind is units.PACKS, config.worker
    run_dir = state / ("run-packs" if packs else "run")
    root = run_dir if packs else config.session_root
    limits = life.Limits(worker.watchdog, worker.stop_timeout, worker.burst)
    lacking = ""
    if not BOOTED_BY_SYSTEMD.is_dir():
        lacking = "systemd did not boot this machine"
    elif not units.template_installed(kind):
        lacking = f"{kind.template} is not installed; run scripts/install"
    if choice == "auto":
        if not lacking and root.absolute() != kind.installed:
            lacking = f"the installed units serve {kind.installed}, not {root}"
        if lacking:
            log.info("workers are plain processes: %s", lacking)
        # Where nothing is missing a failure is an error: units of the agent may run, and a second
        # set of workers beside them would fight over the sessions.
        choice = "process" if lacking else "systemd"
    # Each host is imported only where it is used: the other one would cost memory.
    if choice == "process":
        from agent.host.process import WORKER, Places, ProcessHost

        places = Places(run_dir, root, config.cache_root, config.session_root)
        return await ProcessHost.open(wake, places, limits, [*WORKER, *kind.arguments])
    if lacking:
        raise HostError(f"cannot use systemd for the workers: {lacking}")
    if kind is units.INSTANCES and config.cache_root != units.INSTALLED_CACHE:
        what = "the installed units read their cache in %s, not in %s: %s needs a drop-in for that"
        log.warning(what, units.INSTALLED_CACHE, config.cache_root, kind.template)
    from agent.host.systemd import SystemdHost

    return await SystemdHost.open(wake, limits, kind)


@contextlib.contextmanager
def only_agent(state: Path) -> Iterator[None]:
    """Lock the state directory: two agents on one machine's sessions would fight."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.EROFS and not state.exists():
            why = "it does not exist, and this program may not make it; make it yourself, and"
            why += " where systemd runs the agent, name it in ReadWritePaths= of wa-agent.service"
            raise ConfigError(f"cannot use {state} as state directory: {why}") from error
        cure = "put right its disk, or what is in its way, or point [agent] state_path elsewhere"
        # A disk that takes writes again needs no person.
        kind = TryLater if error.errno in (errno.EROFS, errno.EIO, errno.ENOSPC) else ConfigError
        raise kind(f"cannot use {state} as state directory: {cause_of(error)}; {cure}") from error
    with contextlib.ExitStack() as held:
        held.callback(os.close, fd)
        try:
            held.enter_context(folder_locked(state))
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 20, 0).decode(errors="replace").strip() or "unknown"
            why = f"cannot use {state}: another agent runs on it (process {holder}); stop it"
            raise TryLater(why, code="locked") from None
        with contextlib.suppress(OSError):  # a full disk: the lock holds without the number
            os.ftruncate(fd, os.pwrite(fd, f"{os.getpid()}\n".encode(), 0))
        yield


@contextlib.contextmanager
def only_of_sessions(root: Path) -> Iterator[None]:
    """Lock the folder of the sessions: two agents with a state directory each may name the same."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(folder_locked(root))
        except BlockingIOError:
            why = "another agent runs them, with another state directory"
            cure = "give this one a session_storage_path of its own"
            words = f"cannot use the sessions in {root}: {why}; {cure}"
            raise TryLater(words, code="locked") from None
        yield
