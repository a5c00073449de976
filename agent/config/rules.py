"""Checks of pairs of settings, and the settings that a reload cannot change."""

import re
from pathlib import Path

from agent.config.addresses import is_loopback, split_address
from agent.config.backend_rules import find_backend_problem
from agent.config.config import Config, sections
from agent.config.problem import Problem
from agent.config.wing_tables import ArrayTable, wing_tables
from agent.core.findings.crypto_patterns import own_pattern
from agent.core.findings.memory import MemoryPolicy
from agent.core.setting import settings_of
from agent.core.words import LEAST_MEMORY


def find_problem(config: Config) -> Problem | None:
    """The first impossible pair, or None."""
    return (
        _address(config)
        or _log(config)
        or _paths(config)
        or _times(config)
        or _limits(config)
        or _crypto(config)
        or find_backend_problem(config)
        or _of_wings(config)
    )


def _of_wings(config: Config) -> Problem | None:
    for name, rows in config.of_wings.items():
        table = wing_tables()[name]
        if isinstance(table, ArrayTable) and (problem := table.find_problem(rows)):
            return problem
    return None


def changes_that_need_restart(old: Config, new: Config) -> list[str]:
    """Keys whose new value a running agent cannot take on."""
    changed = []
    for section in sections():
        before, after = getattr(old, section), getattr(new, section)
        for setting, mark in settings_of(before):
            if mark.restart and getattr(before, setting.name) != getattr(after, setting.name):
                changed.append(f"{section}.{setting.name}")
    return changed + _backend_changes(old, new)


def _backend_changes(old: Config, new: Config) -> list[str]:
    """Each setting of a [[backend]] by name, never its value: some are secrets."""
    before, after = ({backend.name: backend for backend in config.backend} for config in (old, new))
    changed = []
    for name in sorted(before):  # a new backend needs no restart
        if name not in after:
            changed.append(f"[[backend]] {name}")
            continue
        old_values, new_values = before[name].flat(), after[name].flat()
        changed += [
            f"backend {name}: {key}"
            for key, value in old_values.items()
            if value != new_values.get(key)
        ]
    return changed


def _address(config: Config) -> Problem | None:
    if not config.api.listen:
        return None
    try:
        host, _ = split_address(config.api.listen)
    except ValueError as error:
        return Problem(("api.listen",), str(error))
    if config.api.trust_loopback and not is_loopback(host):
        return Problem(
            ("api.trust_loopback", "api.listen"),
            f"trust_loopback is only for a loopback address, api.listen is {config.api.listen}",
        )
    return None


def _crypto(config: Config) -> Problem | None:
    for entry in config.crypto.patterns:
        try:
            own_pattern(entry)
        except ValueError as error:
            return Problem(("crypto.patterns",), f"cannot use {entry!r:.80}: {error}")
    return None


def _log(config: Config) -> Problem | None:
    name = config.log.repairs_name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        return Problem(("log.repairs_name",), f"{name!r:.80} is not a plain file name")
    if name in ("audit.log", "performance.log"):
        return Problem(("log.repairs_name",), f"{name} is the name of another log in that folder")
    return None


def _paths(config: Config) -> Problem | None:
    sessions, cache, state = (
        Path(part).absolute()
        for part in (config.session_root, config.cache_root, config.agent.state_path)
    )
    if cache == sessions or cache in sessions.parents or sessions in cache.parents:
        return Problem(
            ("agent.cache_path", "agent.session_storage_path", "agent.state_path"),
            f"sessions ({sessions}) and cache ({cache}) must be separate folders:"
            " the cache may be deleted at any time",
        )
    if cache == state or cache in state.parents:
        return Problem(
            ("agent.cache_path", "agent.state_path"),
            f"the state ({state}) must be outside the cache ({cache})",
        )
    backends = config.backends_root.absolute()
    for key, folder in (("agent.session_storage_path", sessions), ("agent.cache_path", cache)):
        if folder == backends or folder in backends.parents or backends in folder.parents:
            return Problem(
                (key, "agent.state_path"),
                f"{folder} and the backends' folder ({backends}) must be separate folders",
            )
    return None


def _times(config: Config) -> Problem | None:
    reconnect, health, stop, worker = config.reconnect, config.health, config.stop, config.worker
    pairs = (
        ("reconnect.base", reconnect.base, "reconnect.max", reconnect.max),
        ("health.timeout", health.timeout, "health.interval", health.interval),
        ("stop.save", stop.save, "worker.stop_timeout", worker.stop_timeout),
        ("memory.warn", config.memory.warn, "memory.critical", config.memory.critical),
    )
    for small, less, great, more in pairs:
        if less > more:
            return Problem((small, great), f"{small} ({less:g}) is more than {great} ({more:g})")
    return None


def _limits(config: Config) -> Problem | None:
    worker = config.worker
    least = {
        "worker.memory_max": (worker.memory_max, LEAST_MEMORY),
        "memory.instance": (config.memory.instance, LEAST_MEMORY),
    }
    for key, (value, bound) in least.items():
        if 0 < value < bound:
            return Problem(
                (key,), f"{key} ({value}) is less than {bound}, the least that a worker needs"
            )
    instance = config.memory.instance
    # The default of memory.instance yields to a lower memory_max; a set value must be possible.
    if 0 < worker.memory_max < instance != MemoryPolicy().instance:
        return Problem(
            ("memory.instance", "worker.memory_max"),
            f"memory.instance ({instance}) is more than worker.memory_max ({worker.memory_max}),"
            " above which the worker is killed",
        )
    return None
