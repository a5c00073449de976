"""Checks of pairs of settings, and the settings that a reload cannot change."""

from collections.abc import Iterator
from ipaddress import ip_address
from itertools import combinations
from operator import attrgetter
from typing import Any

from agent.config.config import Config, sections
from agent.config.sections import split_address
from agent.config.tables import all_tables, rows_of
from agent.core.findings.memory import MemoryPolicy
from agent.core.setting import Fault, settings_of
from agent.engines.catalog import remote_engines


def changes_that_need_restart(old: Config, new: Config) -> list[str]:
    """Keys whose new value a running agent cannot take on."""
    changed = []
    for name in sections():
        before, after = getattr(old, name), getattr(new, name)
        fixed = [its.name for its, mark in settings_of(before) if mark.restart]
        changed += [f"{name}.{it}" for it in fixed if getattr(before, it) != getattr(after, it)]
    # A new backend needs no restart.
    return changed + sorted(
        f"[[backend]] {its.name}" for its in old.backend if its not in new.backend
    )


def find_faults(config: Config) -> Iterator[Fault]:
    """The impossible pairs."""
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
    for name, table in all_tables().items():
        for number, row in enumerate(rows_of(config, table)):
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
    sessions, cache = config.session_root.absolute(), config.cache_root.absolute()
    state = config.agent.state_path.absolute()
    if state.is_relative_to(cache):
        cause = f"the state ({state}) must be outside the cache ({cache})"
        yield ("agent.cache_path", "agent.state_path"), cause
    pairs = ("cache_path", cache), ("session_storage_path", sessions)
    for (key, one), (other_key, other) in combinations(
        (*pairs, ("state_path", state / "backends")), 2
    ):
        if one.is_relative_to(other) or other.is_relative_to(one):
            cause = (
                f"{one} and {other} must be separate folders: a cache may be deleted at any time"
            )
            yield (f"agent.{key}", f"agent.{other_key}", "agent.state_path"), cause
