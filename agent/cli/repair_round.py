"""One round of repairs by hand: who needs one, what would be tried, and how each went."""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agent.cli.client import AgentSaidNo, Client
from agent.cli.terminal.progress import with_progress
from agent.cli.terminal.show import clean, moment
from agent.core.model import ConnectionStatus, Health, HealthVerdict
from agent.core.recovery.ladder import UNPAIRING
from agent.core.recovery.ladder import steps_for as ladder_steps
from agent.core.recovery.repair import trouble_of

AT_ONCE = 4
SECONDS = 330.0
"""A little longer than the agent itself waits for a repair to end."""
_UNWELL = ("degraded", "stuck", "corrupted", "not_found")
_STORY = frozenset(
    {"operator", "repair", "repair_step", "repaired", "repair_over", "status", "verdict"}
)
_THERE = {
    ("whaticket", "regenerate_keys"): "disconnect, back up and remove, start-session, wait",
}
"""What a step is made of where it is done on somebody else's server."""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of one instance's repair."""

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
    client: Client, every: Iterable[dict[str, Any]], options: argparse.Namespace
) -> list[Done]:
    """Side by side, a few at a time; in the order of the ids."""
    unwell = [one for one in every if needs_round(one)]
    begun = {one["id"]: _newest(client, one["id"]) for one in unwell} if options.debug else {}
    if options.dry_run:
        return [_would(one) for one in unwell]
    from concurrent.futures import ThreadPoolExecutor  # every other command starts without it

    done: list[Done] = []

    def work() -> None:
        with ThreadPoolExecutor(AT_ONCE) as few:
            for one in few.map(lambda row: _repair(client, row), unwell):
                done.append(one)

    with_progress(f"repairing {len(unwell)} instances", work, lambda: f", {len(done)} done")
    if options.debug:
        for one in done:
            _tell_story(client, one.id, begun[one.id])
    return done


def needs_round(one: dict[str, Any]) -> bool:
    return bool(one["should_run"]) and one["health"]["verdict"] in _UNWELL


def steps_for(one: dict[str, Any]) -> tuple[str, ...]:
    """The ladder as it would be climbed; what ends a pairing only where there is none."""
    told = one["health"]
    verdict = HealthVerdict(
        Health(told["verdict"]), ConnectionStatus(told["state"]), told["reason"], told["sentence"]
    )
    ladder = ladder_steps(verdict, trouble_of(verdict), elsewhere=bool(one.get("backend")))
    return tuple(step.value for step in ladder if not (one["paired"] and step in UNPAIRING))


def _would(one: dict[str, Any]) -> Done:
    steps = steps_for(one)
    told = ", ".join(_in_full(one["engine"], step) for step in steps)
    return _done(one, f"would try: {told}", good=True, steps=steps)


def _in_full(engine: str, step: str) -> str:
    there = _THERE.get((engine, step), "")
    return f"{step} ({there})" if there else step


def _repair(client: Client, one: dict[str, Any]) -> Done:
    try:
        path = f"/api/instance/{one['id']}/recover"
        found = client.request("POST", path, seconds=SECONDS).json()
    except AgentSaidNo as error:
        return _done(one, str(error), good=False)
    return _done(one, found["ending"].replace("_", " ") or "well", good=found["healthy"])


def _done(one: dict[str, Any], result: str, *, good: bool, steps: tuple[str, ...] = ()) -> Done:
    told = one["health"]
    return Done(one["id"], told["verdict"], told["sentence"], result, good, steps)


def _newest(client: Client, id: str) -> int:
    found = client.get(f"/api/instance/{id}/events", {"limit": 1})["events"]
    return int(found[0]["cursor"]) if found else 0


def _tell_story(client: Client, id: str, begun: int) -> None:
    """What this round did, and nothing of what was before."""
    found = client.get(f"/api/instance/{id}/events", {"limit": 200, "after": begun})["events"]
    for event in found:
        if event["kind"] in _STORY:
            line = f"{moment(event['time'])} [{id}] {event['kind']}: {event['sentence']}"
            print(clean(line), file=sys.stderr)
