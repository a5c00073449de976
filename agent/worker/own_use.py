"""What this worker and its children use, told where the agent cannot see it.

The agent is another user, behind a wall; where the kernel keeps no account of a unit's memory,
nobody but the worker itself can look.
"""

import os
from dataclasses import asdict
from typing import Any

from agent.host.machine.process_tree import measure_trees


def own_use() -> dict[str, Any]:
    """Of all that descends from here, as far as the kernel shows it."""
    me = os.getpid()
    return asdict(measure_trees(frozenset({me}))[me])
