"""Checks of pairs of settings, and the settings that a reload cannot change."""

from collections.abc import Iterator
from ipaddress import ip_address
from operator import attrgetter
from pathlib import Path
from typing import Any

from agent.config.config import Config, sections
from agent.config.sections import split_address
from agent.config.tables import arrays, rows_of
from agent.core.findings.memory import MemoryPolicy
from agent.core.setting import Fault, settings_of
from agent.engines.catalog import remote_engines


def find_fault(config: Config) -> Fault | None:
    """The first impossible pair, or None."""
    return next(_faults(config), None)


def changes_that_need_restart(old: Config, new: Config) -> list[str]:
    """Keys whose new value a running agent cannot take on. Of a [[backend]] each setting by name,
    never its value: some are secrets."""
    changed = []
    for section in sections():
        before, after = getattr(old, section), getattr(new, section)
        for its, mark in settings_of(before):
            if mark.restart and getattr(before, its.name) != getattr(after, its.name):
                changed.append(f"{section}.{its.name}")
    now = {backend.name: backend.flat() for backend in new.backend}
    for backend in sorted(old.backend, key=lambda its: its.name):  # a new one needs no restart
        if (values := now.get(backend.name)) is None:
            changed.append(f"[[backend]] {backend.name}")
            continue
        pairs = backend.flat().items()
        changed += [f"backend {backend.name}: {key}" for key, it in pairs if it != values.get(key)]
    return changed


def _faults(config: Config) -> Iterator[Fault]:
    listen = config.api.listen
    if config.api.trust_loopback and listen and not _is_loopback(split_address(listen)[0]):
        cause = f"trust_loopback is only for a loopback address, api.listen is {listen}"
        yield ("api.trust_loopback", "api.listen"), cause
    yield from _paths(config)
    for small, great in (
        ("reconnect.base", "reconnect.max"),
        ("health.timeout", "health.interval"),
        ("stop.save", "worker.stop_timeout"),
        ("memory.warn", "memory.critical"),
    ):
        less, more = attrgetter(small)(config), attrgetter(great)(config)
        if less > more:
            yield (small, great), f"{small} ({less:g}) is more than {great} ({more:g})"
    most, instance = config.worker.memory_max, config.memory.instance
    # The default of memory.instance yields to a lower memory_max; a set value must be possible.
    if 0 < most < instance != MemoryPolicy().instance:
        cause = f"memory.instance ({instance}) is more than worker.memory_max ({most}), above which"
        yield ("memory.instance", "worker.memory_max"), f"{cause} the worker is killed"
    for name, table in arrays().items():
        for number, row in enumerate(rows_of(config, name)):
            for keys, cause in table.faults(row):
                yield tuple(f"{name}[{number}].{key}" for key in keys), cause
    taken: dict[tuple[Any, Any], str] = {}
    for number, its in enumerate(config.instance):
        if its.engine in remote_engines():
            session = its.settings.get("backend"), its.settings.get("remote") or its.id
            if (twin := taken.setdefault(session, its.id)) != its.id:
                cause = f"{twin} already has that session of backend {session[0]}"
                yield (f"instance[{number}].settings.remote",), cause


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _paths(config: Config) -> Iterator[Fault]:
    folders = config.agent.state_path, config.session_root, config.cache_root
    state, sessions, cache = (path.absolute() for path in folders)
    backends = state / "backends"
    keys = "agent.cache_path", "agent.session_storage_path", "agent.state_path"
    if _overlap(sessions, cache):
        cause = "must be separate folders: the cache may be deleted at any time"
        yield keys, f"sessions ({sessions}) and cache ({cache}) {cause}"
    if state.is_relative_to(cache):
        cause = f"the state ({state}) must be outside the cache ({cache})"
        yield (keys[0], keys[2]), cause
    for key, folder in ((keys[1], sessions), (keys[0], cache)):
        if _overlap(folder, backends):
            cause = f"{folder} and the backends' folder ({backends}) must be separate folders"
            yield (key, keys[2]), cause


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)
