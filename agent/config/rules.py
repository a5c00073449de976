"""Checks of pairs of settings, and the settings that a reload cannot change."""

import re
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

from agent.config.addresses import is_loopback, split_address
from agent.config.config import Config, sections
from agent.config.problem import Problem
from agent.config.wing_tables import ArrayTable, wing_tables
from agent.core.findings.crypto_patterns import own_pattern
from agent.core.findings.memory import MemoryPolicy
from agent.core.setting import settings_of
from agent.core.words import LEAST_MEMORY
from agent.engines.catalog import backend_faults, remote_engines


def find_problem(config: Config) -> Problem | None:
    """The first impossible pair, or None."""
    return next(_problems(config), None)


def _problems(config: Config) -> Iterator[Problem]:
    yield from _single(config)
    yield from _paths(config)
    yield from _times(config)
    yield from _memory(config)
    yield from _backends(config)
    for name, rows in config.of_wings.items():
        table = wing_tables()[name]
        if isinstance(table, ArrayTable) and (problem := table.find_problem(rows)):
            yield problem


def changes_that_need_restart(old: Config, new: Config) -> list[str]:
    """Keys whose new value a running agent cannot take on. Of a [[backend]] each setting by name,
    never its value: some are secrets."""
    changed = []
    for section in sections():
        before, after = getattr(old, section), getattr(new, section)
        for setting, mark in settings_of(before):
            if mark.restart and getattr(before, setting.name) != getattr(after, setting.name):
                changed.append(f"{section}.{setting.name}")
    now = {backend.name: backend.flat() for backend in new.backend}
    for backend in sorted(old.backend, key=lambda its: its.name):  # a new one needs no restart
        if backend.name not in now:
            changed.append(f"[[backend]] {backend.name}")
            continue
        values = now[backend.name]
        changed += [
            f"backend {backend.name}: {key}"
            for key, value in backend.flat().items()
            if value != values.get(key)
        ]
    return changed


def _single(config: Config) -> Iterator[Problem]:
    listen, repairs = config.api.listen, config.log.repairs_name
    try:
        host = split_address(listen)[0] if listen else "localhost"
        if config.api.trust_loopback and not is_loopback(host):
            cause = f"trust_loopback is only for a loopback address, api.listen is {listen}"
            yield Problem(("api.trust_loopback", "api.listen"), cause)
    except ValueError as error:
        yield Problem(("api.listen",), str(error))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", repairs):
        yield Problem(("log.repairs_name",), f"{repairs!r:.80} is not a plain file name")
    if repairs in ("audit.log", "performance.log"):
        cause = f"{repairs} is the name of another log in that folder"
        yield Problem(("log.repairs_name",), cause)
    for entry in config.crypto.patterns:
        try:
            own_pattern(entry)
        except ValueError as error:
            yield Problem(("crypto.patterns",), f"cannot use {entry!r:.80}: {error}")


def _paths(config: Config) -> Iterator[Problem]:
    state = config.agent.state_path.absolute()
    sessions, cache, backends = (
        path.absolute() for path in (config.session_root, config.cache_root, config.backends_root)
    )
    keys = "agent.cache_path", "agent.session_storage_path", "agent.state_path"
    if _overlap(sessions, cache):
        cause = "must be separate folders: the cache may be deleted at any time"
        yield Problem(keys, f"sessions ({sessions}) and cache ({cache}) {cause}")
    if state.is_relative_to(cache):
        cause = f"the state ({state}) must be outside the cache ({cache})"
        yield Problem((keys[0], keys[2]), cause)
    for key, folder in ((keys[1], sessions), (keys[0], cache)):
        if _overlap(folder, backends):
            cause = f"{folder} and the backends' folder ({backends}) must be separate folders"
            yield Problem((key, keys[2]), cause)


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _times(config: Config) -> Iterator[Problem]:
    for small, great in (
        ("reconnect.base", "reconnect.max"),
        ("health.timeout", "health.interval"),
        ("stop.save", "worker.stop_timeout"),
        ("memory.warn", "memory.critical"),
    ):
        less, more = attrgetter(small)(config), attrgetter(great)(config)
        if less > more:
            yield Problem((small, great), f"{small} ({less:g}) is more than {great} ({more:g})")


def _memory(config: Config) -> Iterator[Problem]:
    most, instance = config.worker.memory_max, config.memory.instance
    for key, value in (("worker.memory_max", most), ("memory.instance", instance)):
        if 0 < value < LEAST_MEMORY:
            cause = f"{key} ({value}) is less than {LEAST_MEMORY}, the least that a worker needs"
            yield Problem((key,), cause)
    # The default of memory.instance yields to a lower memory_max; a set value must be possible.
    if 0 < most < instance != MemoryPolicy().instance:
        yield Problem(
            ("memory.instance", "worker.memory_max"),
            f"memory.instance ({instance}) is more than worker.memory_max ({most}),"
            " above which the worker is killed",
        )


def _backends(config: Config) -> Iterator[Problem]:
    names: set[str] = set()
    for number, backend in enumerate(config.backend):
        for keys, cause in backend_faults(backend):
            yield Problem(tuple(f"backend[{number}].{key}" for key in keys), cause)
        if backend.name in names:
            yield Problem((f"backend[{number}].name",), f"{backend.name} is declared twice")
        names.add(backend.name)
    taken: dict[tuple[Any, Any], str] = {}
    for number, its in enumerate(config.instance):
        if its.engine in remote_engines():
            session = its.settings.get("backend"), its.settings.get("remote") or its.id
            if (twin := taken.setdefault(session, its.id)) != its.id:
                cause = f"{twin} already has that session of backend {session[0]}"
                yield Problem((f"instance[{number}].settings.remote",), cause)
