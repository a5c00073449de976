"""Backends over memory: the same face, every answer at once, no workers."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent.core.model import Instance, InstanceId, parse_instance_id
from agent.core.session import BackendView
from agent.core.words import RemoteSession, ServerClaim
from agent.errors import InvalidRequest, NotFound, Refused, TryLater

if TYPE_CHECKING:
    from tests.fakes.supervisor import FakeSupervisor


def make_backend(name: str, engine: str = "evolution", **more: Any) -> BackendView:
    now = time.time()
    told = {it: more.pop(it) for it in ("up", "reason", "sessions") if it in more}
    claim = ServerClaim(True, version="2.3.7", seconds=0.02, sessions=2)._replace(**told)
    made: dict[str, Any] = {
        "sentence": "it answers",
        "since_wall": now - 600,
        "checked_wall": now - 5,
        "next_check_wall": now + 25,
    }
    return BackendView(name, engine, f"http://{name}.example:8080", claim, **{**made, **more})


class FakeBackends:
    """`known` are declared; `there` are the sessions each has."""

    def __init__(self, house: "FakeSupervisor") -> None:
        self.house = house
        self.known: dict[str, BackendView] = {}
        self.there: dict[str, list[RemoteSession]] = {}
        self.checked: list[str] = []
        self.away = False
        """While true no server can be reached."""

    def declare(self, name: str, engine: str = "evolution", **more: Any) -> BackendView:
        self.known[name] = make_backend(name, engine, **more)
        return self.known[name]

    def views(self) -> Sequence[BackendView]:
        return list(self.known.values())

    def view(self, name: str) -> BackendView:
        if name not in self.known:
            raise NotFound(f"cannot find the backend {name}: none of that name is declared")
        return self.known[name]

    async def sessions(self, name: str) -> list[RemoteSession]:
        self._reach(name)
        return self.there.get(name, [])

    async def adopt(self, name: str, remote: str, id: InstanceId | None) -> InstanceId:
        view = self._reach(name)
        if remote not in {one.name for one in self.there.get(name, [])}:
            raise NotFound(f"cannot adopt {remote}: backend {name} has no such session")
        wanted = id or parse_instance_id(remote.lower())
        if wanted in self.house.known:
            raise Refused(f"cannot adopt {remote} as {wanted}: it exists", code="exists")
        settings = {"backend": name, "remote": remote}
        await self.house.create(Instance(wanted, view.engine, True, settings))
        return wanted

    async def check(self, name: str) -> BackendView:
        self.checked.append(name)
        view = self._reach(name)
        self.known[name] = replace(view, checked_wall=time.time())
        return self.known[name]

    async def reset(self, name: str) -> BackendView:
        self.known[name] = replace(self.view(name), breaker="closed")
        return self.known[name]

    def check_place(self, instance: Instance) -> None:
        """As the real one refuses to create."""
        if instance.backend not in self.known:
            raise InvalidRequest(
                f"cannot create {instance.id}: no [[backend]] {instance.backend!r}",
                field="settings.backend",
                code="unknown_backend",
            )
        if self.known[instance.backend].engine != instance.engine:
            raise InvalidRequest(
                f"cannot create {instance.id}: another engine", field="engine", code="wrong_engine"
            )

    def _reach(self, name: str) -> BackendView:
        view = self.view(name)
        if self.away:
            raise TryLater(f"cannot ask backend {name}: no connection", code="backend_down")
        return view
