"""One round of repairs by hand: which instances need one, its steps, and how each ended."""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agent.cli.client import AgentSaidNo, Client
from agent.cli.terminal.progress import with_progress
from agent.cli.terminal.show import clean, moment
from agent.core.model import ConnectionStatus, Health, HealthVerdict
from agent.core.recovery.beginning import trouble_of
from agent.core.recovery.ladder import UNPAIRING
from agent.core.recovery.ladder import steps_for as ladder_steps

AT_ONCE = 4
SECONDS = 330.0
"""A little longer than the agent itself waits for a repair to end."""
LONGEST_WAIT = 300
TO_THE_END = f"?wait={LONGEST_WAIT}"
_UNWELL = ("degraded", "stuck", "corrupted", "not_found")
_STORY = frozenset(
    {"operator", "repair", "repair_step", "repaired", "repair_over", "status", "verdict"}
)
_ON_THE_SERVER = {
    ("whaticket", "regenerate_keys"): "disconnect, back up and remove, start-session, wait",
}
"""The parts of a step that a backend's server carries out."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """The result of one instance's repair."""

    id: str
    health: str
    why: str
    result: str
    good: bool
    steps: tuple[str, ...] = ()

    @property
    def row(self) -> tuple[str, str, str, str]:
        return self.id, self.health, self.why, self.result

    @property
    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "verdict": self.health,
            "sentence": self.why,
            "result": self.result,
            "good": self.good,
            "steps": list(self.steps),
        }


def repair_all(
    client: Client, instances: Iterable[dict[str, Any]], options: argparse.Namespace
) -> list[Repaired]:
    """Side by side, a few at a time; in the order of the ids."""
    unwell = [
        instance
        for instance in instances
        if instance["should_run"] and instance["health"]["verdict"] in _UNWELL
    ]
    if options.dry_run:
        return [_dry_run(instance) for instance in unwell]
    begun = {row["id"]: _newest(client, row["id"]) for row in unwell} if options.debug else {}
    from concurrent.futures import ThreadPoolExecutor  # every other command starts without it

    repaired: list[Repaired] = []

    def work() -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for result in pool.map(lambda instance: _repair(client, instance), unwell):
                repaired.append(result)

    with_progress(f"repairing {len(unwell)} instances", work, lambda: f", {len(repaired)} done")
    for id, cursor in begun.items():
        _print_story(client, id, cursor)
    return repaired


def steps_for(instance: dict[str, Any]) -> tuple[str, ...]:
    """The ladder for this instance; steps that end a pairing only where it has none."""
    health = instance["health"]
    state = ConnectionStatus(health["state"])
    verdict = HealthVerdict(Health(health["verdict"]), state, health["reason"], health["sentence"])
    ladder = ladder_steps(verdict, trouble_of(verdict), elsewhere=bool(instance.get("backend")))
    return tuple(step.value for step in ladder if not (instance["paired"] and step in UNPAIRING))


def _dry_run(instance: dict[str, Any]) -> Repaired:
    steps = steps_for(instance)
    shown = ", ".join(_in_full(instance["engine"], step) for step in steps)
    return _repaired(instance, f"would try: {shown}", good=True, steps=steps)


def _in_full(engine: str, step: str) -> str:
    parts = _ON_THE_SERVER.get((engine, step), "")
    return f"{step} ({parts})" if parts else step


def _repair(client: Client, instance: dict[str, Any]) -> Repaired:
    try:
        path = f"/api/instance/{instance['id']}/recover{TO_THE_END}"
        result = client.post(path, seconds=SECONDS)
    except AgentSaidNo as error:
        return _repaired(instance, str(error), good=False)
    return _repaired(instance, result["ending"].replace("_", " ") or "well", good=result["healthy"])


def _repaired(
    instance: dict[str, Any], result: str, *, good: bool, steps: tuple[str, ...] = ()
) -> Repaired:
    health = instance["health"]
    return Repaired(instance["id"], health["verdict"], health["sentence"], result, good, steps)


def _newest(client: Client, id: str) -> int:
    events = client.get(f"/api/instance/{id}/events", {"limit": 1})["events"]
    return int(events[0]["cursor"]) if events else 0


def _print_story(client: Client, id: str, begun: int) -> None:
    """The events of this round, without those before it."""
    query = {"limit": 200, "after": begun}
    for event in client.get(f"/api/instance/{id}/events", query)["events"]:
        if event["kind"] in _STORY:
            line = f"{moment(event['time'])} [{id}] {event['kind']}: {event['sentence']}"
            print(clean(line), file=sys.stderr)
