"""What the agent's end closes: workers of this machine, and no session of a server."""

from typing import Any

from agent.config.config import StopSection
from agent.core.model import Instance, InstanceId, SessionRecord, UnitState, UnitStatus
from agent.daemon.main import close_sessions
from agent.supervise.facts import Facts


class Host:
    def __init__(self) -> None:
        self.stopped: list[str] = []

    async def list(self) -> Any:
        ids = ("own", "packed", "remote")
        return {InstanceId(id): UnitStatus(UnitState.ACTIVE) for id in ids}

    async def stop(self, id: InstanceId) -> None:
        self.stopped.append(id)


async def test_sessions_of_a_backend_go_on() -> None:
    host: Any = Host()
    own = Facts(Instance(InstanceId("own"), "sandbox", True), SessionRecord())

    async def save() -> None:
        assert not host.stopped, "the next agent takes no stop of ours for an operator's"
        host.stopped.append("saved")

    besides = {InstanceId("remote")}
    await close_sessions([own], host, StopSection(), save, besides=besides)
    assert sorted(host.stopped) == ["own", "packed", "saved"]
