"""What a worker says of its session: that it is there, and what happened, which is kept, counted,
written down or passed on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.core.model import Happening, InstanceId
from agent.core.words import KEPT
from agent.deliver.bus import EventBus
from agent.supervise.facts import Facts
from agent.supervise.passes.findings import PASSING, WITH_TEXT, Findings, passing_entry, text_entry
from agent.supervise.registry import Registry
from agent.supervise.story import Notes


@dataclass(frozen=True, slots=True)
class Happenings:
    kept: Sequence[Callable[[InstanceId], None]]
    findings: Findings
    registry: Registry
    notes: Notes
    bus: EventBus
    wake: Callable[[InstanceId], None]

    def take(self, facts: Facts, happening: Happening) -> None:
        if happening.kind == KEPT:
            self.attached(facts.id)
            return
        if happening.kind in ("not_kept", "kept_again"):
            self.attached(facts.id)
        if self.findings.note(facts, happening):
            self.wake(facts.id)
        self.registry.touch(facts)
        if happening.kind in WITH_TEXT:
            self.notes.write(text_entry(facts, happening))
        if happening.kind in PASSING and self.bus.wants(happening.kind):
            self.bus.publish_passing(passing_entry(facts, happening))

    def attached(self, id: InstanceId) -> None:
        for hear in self.kept:
            hear(id)
