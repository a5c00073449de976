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
    kind: str,
    wake: Wake,
    *,
    run_dir: Path,
    session_root: Path,
    worker: WorkerSection,
    cache_root: Path | None = None,
) -> Host:
    """`kind` is the setting: auto, systemd or process."""
    if kind == "process":
        return await _open_process(wake, run_dir, session_root, worker, cache_root)
    if kind == "systemd":
        return await _open_systemd(wake, worker, cache_root)
    missing = _what_systemd_lacks(session_root)
    if missing:
        log.info("workers are plain processes: %s", missing)
        return await _open_process(wake, run_dir, session_root, worker, cache_root)
    # From here on a failure is one: units of ours may run, and a second set of workers
    # beside them would fight over the sessions.
    return await _open_systemd(wake, worker, cache_root)


def _what_systemd_lacks(session_root: Path) -> str:
    """Why "auto" does not take systemd; "" when it does."""
    if not BOOTED_BY_SYSTEMD.is_dir():
        return "systemd did not boot this machine"
    if not units.template_installed():
        return f"{units.INSTANCE_TEMPLATE} is not installed"
    if session_root.absolute() != units.INSTALLED_SESSIONS:
        return f"the installed units serve {units.INSTALLED_SESSIONS}, not {session_root}"
    return ""


# Each host is imported only where it serves: neither costs the other's machine memory.


async def _open_process(
    wake: Wake,
    run_dir: Path,
    session_root: Path,
    worker: WorkerSection,
    cache_root: Path | None,
) -> Host:
    from agent.host.process import ProcessHost

    return await ProcessHost.open(wake, run_dir, session_root, worker, cache_root=cache_root)


async def _open_systemd(wake: Wake, worker: WorkerSection, cache_root: Path | None) -> Host:
    if not BOOTED_BY_SYSTEMD.is_dir():
        raise HostError("cannot use systemd for the workers: it did not boot this machine")
    if not units.template_installed():
        raise HostError(
            f"cannot use systemd for the workers: {units.INSTANCE_TEMPLATE} is not installed;"
            " scripts/install does that"
        )
    if cache_root not in (None, units.INSTALLED_CACHE):
        log.warning(
            "the installed units read their cache in %s, not in %s: %s needs a drop-in for that",
            units.INSTALLED_CACHE,
            cache_root,
            units.INSTANCE_TEMPLATE,
        )
    from agent.host.systemd import SystemdHost

    return await SystemdHost.open(wake, worker)
