"""Tasks of servers without the rest of an agent."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from unittest.mock import AsyncMock

from agent.backends.backend import Backend
from agent.backends.declared import Backends
from agent.config.config import BackendDeclaration
from agent.core.breaker import BreakerPolicy
from agent.core.model import Instance, InstanceId, SessionRecord
from agent.core.words import ADOPTED, Claim, Happening
from agent.link.client import Listener
from agent.supervise.facts import Facts


def make_backends(root: Path, woken: Callable[[InstanceId], None] = lambda _id: None) -> Backends:
    return Backends(
        root=root,
        instances={},
        store=None,  # type: ignore[arg-type]
        wake=woken,
        look_again=lambda _id, _outage: None,
        note=lambda _entry: None,
        breaker=lambda: BreakerPolicy(5, 600.0),
    )


def make_backend(declared: BackendDeclaration, root: Path) -> Backend:
    """`root`: its folder is in it."""
    made = Backend(declared, InstanceId(declared.name), make_backends(root))
    made.shared.all[declared.name], made.shared.look = made, AsyncMock(return_value="")
    return made


async def take(
    backend: Backend,
    remote: str,
    *,
    adopted: bool = True,
    paired: bool = False,
    heard: Callable[[Claim], None] = lambda _claim: None,
    happened: Callable[[Happening], None] = lambda _what: None,
) -> None:
    """Let it watch the session of that name. `heard` and `happened`: what its seat tells."""
    id = InstanceId(remote)
    settings = {"backend": backend.name, "remote": remote, ADOPTED: adopted}
    instance = Instance(id, backend.declared.engine, True, settings)
    known = Facts(instance, SessionRecord(paired=paired))
    backend.shared.instances[id] = known  # type: ignore[index]
    while backend.api is None:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await backend.take(id)
    told = Listener(lambda _, it: heard(it), lambda _, it: happened(it), lambda _: None)
    backend.attach(id, told)
