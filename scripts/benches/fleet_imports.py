"""What an agent with [fleet] imports and connects to, as JSON: part, MiB of RSS that it adds.

Its argument is an address of the fleet's database.
"""

import asyncio
import json
import os
import sys
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


COUNT = 4
CONNECTIONS = f"{COUNT} connections"


async def measure(address: str) -> dict[str, float]:
    _load(WITHOUT)
    found, before = {}, memory(os.getpid())
    for part, names in PARTS.items():
        _load(names)
        after = memory(os.getpid())
        more = {kind: (after[kind] - before[kind]) / MIB for kind in ("Rss", "Anonymous")}
        found[f"import of {part}"] = more["Rss"]
        found[f"… of that pages of files: {part}"] = more["Rss"] - more["Anonymous"]
        before = after
    from agent.fleet.postgres.connection import connect

    opened = [await connect(address) for _ in range(COUNT)]
    found[CONNECTIONS] = (memory(os.getpid())["Rss"] - before["Rss"]) / MIB
    for connection in opened:
        await connection.close()
    return found


def _load(names: tuple[str, ...]) -> None:
    for name in names:
        import_module(name)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(sys.argv[1]))))
