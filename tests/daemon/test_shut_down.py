"""The agent's end closes workers of this machine, and no session of a server."""

from types import SimpleNamespace
from typing import Any

from agent.config.config import Config
from agent.core.model import Instance, InstanceId, SessionRecord, UnitState, UnitStatus
from agent.daemon.main import close_sessions
from agent.supervise.facts import Facts


class Host:
    def __init__(self) -> None:
        self.stopped: list[str] = []

    async def list(self) -> Any:
        return {InstanceId(id): UnitStatus(UnitState.ACTIVE) for id in ("own", "packed", "remote")}

    async def stop(self, which: Facts | InstanceId) -> None:
        self.stopped.append(which.id if isinstance(which, Facts) else which)


async def test_sessions_of_a_backend_go_on() -> None:
    host: Any = Host()
    own, remote = (
        Facts(Instance(InstanceId(id), "sandbox", True, {"backend": backend}), SessionRecord())
        for id, backend in (("own", ""), ("remote", "evo"))
    )

    async def save() -> None:
        assert not host.stopped, "the next agent takes no stop of ours for an operator's"
        host.stopped.append("saved")

    registry = SimpleNamespace(facts={its.id: its for its in (own, remote)})
    settings = SimpleNamespace(config=Config())
    supervisor: Any = SimpleNamespace(registry=registry, settings=settings, seats=host, host=host)
    await close_sessions(supervisor, save)
    assert sorted(host.stopped) == ["own", "packed", "saved"]
