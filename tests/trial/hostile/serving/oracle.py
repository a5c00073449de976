"""Conditions that hold for sessions on a server, whatever it answers."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.backends.backend import Backend
from agent.config.config import BackendDeclaration
from agent.core.reasons import reason_of
from agent.core.words import Claim, InstanceId, ServerClaim
from tests.fakes.servers import make_backend, take
from tests.standin.evolution import KEY, StandIn
from tests.standin.evolution.instances import Instance
from tests.trial.hostile.serving.acts import ADOPTED, NAMES, PAIRED


class Log(logging.Handler):
    """Lines that the agent would have in its log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@dataclass
class Bench:
    """A server, the agent's task that watches it, and what was said and done."""

    standin: StandIn
    folder: Path
    server: Backend = field(init=False)
    task: asyncio.Task[None] = field(init=False)
    servers: list[ServerClaim] = field(default_factory=list)
    claims: dict[str, list[Claim]] = field(default_factory=lambda: defaultdict(list))
    there: dict[str, Instance] = field(default_factory=dict)
    """Sessions that others made on the server before the agent came."""
    deleted: set[str] = field(default_factory=set)
    """By a person, with the server's own page."""
    errors: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=lambda: [KEY])
    log: Log = field(default_factory=Log)

    async def begin(self) -> None:
        """An agent."""
        declared = BackendDeclaration("eu", "evolution", self.standin.url, key=KEY)
        self.server = make_backend(declared, self.folder)
        self.task = asyncio.create_task(self.server.run(), name="server")
        for name in NAMES:
            heard = self.claims[name].append
            await take(self.server, name, adopted=name in ADOPTED, heard=heard)

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        assert self.task.cancelled(), self.task

    async def do(self, what: str, id: str, /, **args: object) -> Mapping[str, Any]:
        """As a pass or an order does it."""
        answer = await self.server.seats[InstanceId(id)].call(what, args, timeout=120)
        self.servers.append(self.server.claim)
        return answer

    def paired(self) -> list[Instance]:
        """Those that were it from the beginning: a code that is asked for while its session is
        ordered to begin again may be asked for twice."""
        return [self.there[name] for name in PAIRED if name not in self.deleted]


def intact(bench: Bench) -> None:
    """No pairing ended, and what others made is there, the same; what they deleted is not."""
    standin = bench.standin
    for instance in bench.paired():
        second = instance.second_logins if standin.old else 0
        assert second == 0, f"{instance.name} has a second login"
        assert instance.creds, f"the pairing of {instance.name} ended"
    for name, instance in bench.there.items():
        now = standin.instances.get(name)
        if name in bench.deleted:
            assert now in (None, instance), f"{name}, which a person deleted, was made again"
        elif name in PAIRED or not standin.old:
            # A 1.8 shows nothing that others put into a session; one that hangs is made again.
            assert now is instance, f"{name}, which the agent did not make, was deleted"


def judge_words(bench: Bench) -> None:
    """No claim ends a pairing that goes on; no key is repeated."""
    for instance in bench.paired():
        for claim in bench.claims[instance.name]:
            reason = reason_of(claim.reason or "unknown")
            ends = reason.unpairs or (reason.hopeless and claim.reason)
            assert not ends, f"{instance.name} is paired, and was told as {claim.reason}"
            assert claim.status != "QR_REQUIRED", f"{instance.name} is paired, and shows a code"
    said = [*bench.errors, *(claim.sentence for claim in bench.servers), *bench.log.lines]
    said += [repr(claim) for claims in bench.claims.values() for claim in claims]
    for secret in bench.secrets:
        repeated = [each for each in said if secret in each]
        assert not repeated, f"a secret is repeated: {repeated[0]}"
    faults = [line for line in bench.log.lines if "Traceback" in line]
    assert not faults, f"a fault of the agent: {faults[0]}"
