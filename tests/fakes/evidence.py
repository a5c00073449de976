"""Evidence over memory: no worker runs, so there is nothing to measure and nothing failed."""

from agent.core.model import InstanceId
from agent.errors import NotFound
from agent.wings.evidence.part import WorkerLines


class FakeSampler:
    async def measure_now(self, id: InstanceId) -> None: ...

    def watch(self) -> None: ...


class FakeEvidence:
    async def worker_lines(self, id: InstanceId, after: int | None = None) -> WorkerLines:
        return WorkerLines(None, f"wa-agent logs {id}")

    async def failed_starts(self, id: InstanceId) -> list[object]:
        return []

    async def picture(self, id: InstanceId, name: str) -> bytes:
        raise NotFound(f"cannot show the picture {name} of {id}: there is none")
