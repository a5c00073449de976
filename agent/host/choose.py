"""Which host this machine offers."""

import logging
from pathlib import Path

from agent.config.config import Config
from agent.errors import HostError
from agent.host import units
from agent.host.base import Host, Wake
from agent.host.life import Limits

log = logging.getLogger(__name__)

BOOTED_BY_SYSTEMD = Path("/run/systemd/system")
"""sd_booted(3): it exists where systemd is the running init, and nowhere else."""


async def open_host(
    choice: str, config: Config, wake: Wake, kind: units.Kind = units.INSTANCES
) -> Host:
    """`choice` is the setting: auto, systemd or process; for a second kind, the first's name."""
    state, packs, worker = config.agent.state_path, kind is units.PACKS, config.worker
    run_dir = state / ("run-packs" if packs else "run")
    root = run_dir if packs else config.session_root
    limits = Limits(worker.watchdog, worker.stop_timeout, worker.burst)
    lacking = _what_systemd_lacks(kind)
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
    from agent.host.systemd.host import SystemdHost

    return await SystemdHost.open(wake, limits, kind)


def _what_systemd_lacks(kind: units.Kind) -> str:
    """Why units cannot be its workers; "" when they can."""
    if not BOOTED_BY_SYSTEMD.is_dir():
        return "systemd did not boot this machine"
    if not units.template_installed(kind):
        return f"{kind.template} is not installed; run scripts/install"
    return ""
