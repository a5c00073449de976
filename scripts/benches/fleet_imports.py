"""What the imports of an agent with [fleet] add to one without, as JSON: part, MiB of RSS."""

import json
import os
from importlib import import_module

from scripts.benches.processes import MIB, memory

WITHOUT = ("agent.daemon.main",)
PARTS = {
    "psycopg": ("agent.fleet.postgres",),
    "PyNaCl": ("nacl.bindings",),
    "the agent's modules of the fleet": (
        "agent.fleet.fleet",
        "agent.supervise.fleet.assemble",
        "agent.supervise.fleet.joining",
        "agent.api.fleet.door",
    ),
}


def measure() -> dict[str, float]:
    _load(WITHOUT)
    found, before = {}, memory(os.getpid())
    for part, names in PARTS.items():
        _load(names)
        after = memory(os.getpid())
        more = {kind: (after[kind] - before[kind]) / MIB for kind in ("Rss", "Anonymous")}
        found[f"import of {part}"] = more["Rss"]
        found[f"… of that pages of files: {part}"] = more["Rss"] - more["Anonymous"]
        before = after
    return found


def _load(names: tuple[str, ...]) -> None:
    for name in names:
        import_module(name)


if __name__ == "__main__":
    print(json.dumps(measure()))
