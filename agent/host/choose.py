"""Which host this machine offers."""

import logging
from pathlib import Path

from agent.config.sections import WorkerSection
from agent.errors import HostError
from agent.host import units
from agent.host.base import Host, Wake

log = logging.getLogger(__name__)

BOOTED_BY_SYSTEMD = Path("/run/systemd/system")
"""sd_booted(3): it exists where systemd is the running init, and nowhere else."""


async def open_host(
    choice: str,
    wake: Wake,
    *,
    run_dir: Path,
    session_root: Path,
    worker: WorkerSection,
    cache_root: Path | None = None,
    kind: units.Kind = units.INSTANCES,
    members_root: Path | None = None,
) -> Host:
    """`choice` is the setting: auto, systemd or process; for a second kind, the first's name.
    `members_root`: of the sessions that a worker of this kind may hold several of."""
    if choice == "auto":
        missing = _what_systemd_lacks(session_root, kind)
        if missing:
            log.info("workers are plain processes: %s", missing)
        # Where nothing is missing a failure is an error: units of the agent may run, and a second
        # set of workers beside them would fight over the sessions.
        choice = "process" if missing else "systemd"
    # Each host is imported only where it is used: the other one would cost memory.
    if choice == "process":
        from agent.host.process.child import Places
        from agent.host.process.host import WORKER, ProcessHost

        places = Places(run_dir, session_root, cache_root, members_root)
        return await ProcessHost.open(wake, places, worker, [*WORKER, *kind.arguments])
    _check_systemd(cache_root, kind)
    from agent.host.systemd.host import SystemdHost

    return await SystemdHost.open(wake, worker, kind)


def _what_systemd_lacks(session_root: Path, kind: units.Kind) -> str:
    """Why "auto" does not take systemd; "" when it does."""
    if not BOOTED_BY_SYSTEMD.is_dir():
        return "systemd did not boot this machine"
    if not units.template_installed(kind):
        return f"{kind.template} is not installed"
    if session_root.absolute() != kind.installed:
        return f"the installed units serve {kind.installed}, not {session_root}"
    return ""


def _check_systemd(cache_root: Path | None, kind: units.Kind) -> None:
    if not BOOTED_BY_SYSTEMD.is_dir():
        raise HostError("cannot use systemd for the workers: it did not boot this machine")
    if not units.template_installed(kind):
        raise HostError(
            f"cannot use systemd for the workers: {kind.template} is not installed;"
            " run scripts/install"
        )
    if kind is units.INSTANCES and cache_root not in (None, units.INSTALLED_CACHE):
        log.warning(
            "the installed units read their cache in %s, not in %s: %s needs a drop-in for that",
            units.INSTALLED_CACHE,
            cache_root,
            kind.template,
        )
