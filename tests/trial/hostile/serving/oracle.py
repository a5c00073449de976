"""What stays true of sessions on a server, whatever it answers and its webhook tells."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from agent.engines.evolution.backend import EvolutionBackend
from agent.engines.evolution.session import EvolutionSession
from agent.engines.evolution.settings import Pace, read_settings
from tests.engines.evolution.conftest import Heard

from agent.core.model import InstanceId
from agent.core.reasons import reason_of
from tests.standin.evolution import KEY, StandIn
from tests.standin.evolution.instances import Instance
from tests.trial.hostile.serving.acts import ADOPTED, NAMES, PAIRED


class Log(logging.Handler):
    """What the agent would have in its log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@dataclass
class Bench:
    """A server, the backend before it, and what was said and done."""

    standin: StandIn
    folder: Path
    pace: Pace
    backend: EvolutionBackend = field(init=False)
    heard: Heard = field(default_factory=Heard)
    by_name: dict[str, Heard] = field(default_factory=lambda: {name: Heard() for name in NAMES})
    there: dict[str, Instance] = field(default_factory=dict)
    """What others made on the server, before the agent came."""
    deleted: set[str] = field(default_factory=set)
    """By a person, with the server's own page."""
    errors: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=lambda: [KEY])
    log: Log = field(default_factory=Log)

    def begin(self) -> None:
        """A worker."""
        told = {"name": "eu", "url": self.standin.url, "key": KEY, "timeout": 1.5}
        self.backend = EvolutionBackend(self.folder, read_settings(told), self.heard, self.pace)

    def hold(self, name: str) -> EvolutionSession:
        settings = {"remote": "", "adopted": name in ADOPTED}
        return self.backend.hold(InstanceId(name), settings, self.by_name[name])

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
            # A 1.8 shows nothing that others put into a session; one that hangs is made anew.
            assert now is instance, f"{name}, which the agent did not make, was deleted"


def judge_words(bench: Bench) -> None:
    """No claim ends a pairing that goes on; no key is repeated."""
    for instance in bench.paired():
        for claim in bench.by_name[instance.name].claims:
            reason = reason_of(claim.reason or "unknown")
            ends = reason.unpairs or (reason.hopeless and claim.reason)
            assert not ends, f"{instance.name} is paired, and was told as {claim.reason}"
            assert claim.status != "QR_REQUIRED", f"{instance.name} is paired, and shows a code"
    said = [*bench.errors, *(claim.sentence for claim in bench.heard.servers), *bench.log.lines]
    said += [repr(claim) for heard in bench.by_name.values() for claim in heard.claims]
    for secret in bench.secrets:
        repeated = [each for each in said if secret in each]
        assert not repeated, f"a secret is repeated: {repeated[0]}"
