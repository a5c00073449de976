"""Checks of [[backend]] tables beside each other and beside [[instance]]."""

from collections.abc import Mapping, Sequence

from agent.config.config import Config, Declaration
from agent.config.problem import Problem
from agent.engines.catalog import backend_faults, remote_engines


def find_backend_problem(config: Config) -> Problem | None:
    """The first thing that cannot be, or None."""
    names: set[str] = set()
    for number, backend in enumerate(config.backend):
        for keys, cause in backend_faults(backend):
            return Problem(tuple(f"backend[{number}].{key}" for key in keys), cause)
        if backend.name in names:
            return Problem((f"backend[{number}].name",), f"{backend.name} is declared twice")
        names.add(backend.name)
    return _instances(config.instance, {backend.name: backend.engine for backend in config.backend})


def _instances(instances: Sequence[Declaration], engines: Mapping[str, str]) -> Problem | None:
    """An instance on a backend must name one that is there, and a session of its own."""
    taken: dict[tuple[str, str], str] = {}
    for number, declared in enumerate(instances):
        key = f"instance[{number}].settings.backend"
        if declared.engine not in remote_engines():
            if declared.settings.get("backend"):
                cause = f"engine {declared.engine} runs on this machine and takes no backend"
                return Problem((key,), cause)
            continue
        name, remote = declared.settings.get("backend"), declared.settings.get("remote", "")
        if not isinstance(name, str) or name not in engines:
            known = ", ".join(engines) or "none"
            return Problem((key,), f"it must name a declared [[backend]] ({known})")
        if engines[name] != declared.engine:
            cause = f"backend {name} has engine {engines[name]}, the instance {declared.engine}"
            return Problem((key,), cause)
        if not isinstance(remote, str):
            return Problem((f"instance[{number}].settings.remote",), "it must be a text")
        session = (name, remote or declared.id)
        if session in taken:
            cause = f"{taken[session]} already has that session of backend {name}"
            return Problem((f"instance[{number}].settings.remote",), cause)
        taken[session] = declared.id
    return None
