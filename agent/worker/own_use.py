"""The use of this worker and its children, measured here for an agent that cannot measure it.

The agent is another user, behind a wall: it cannot count a worker's files, and where the kernel
keeps no account of a unit's memory it cannot measure that either.
"""

import os
from contextlib import suppress
from dataclasses import asdict
from typing import Any


def own_use() -> dict[str, Any]:
    """Memory and processor time of this process and all its children, as the kernel shows them."""
    # Only where an agent asks: most machines tell it themselves.
    from agent.host.machine.process_tree import measure_trees

    me = os.getpid()
    return asdict(measure_trees(frozenset({me}))[me])


def open_files(pid: int | str = "self") -> int:
    """Open files of this process and its children; a sandboxed renderer's cannot be counted."""
    count = 0
    with suppress(OSError):  # it ended, or belongs to another user
        count = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - strings will do
    if pid == "self":
        pid, count = os.getpid(), count - 1  # the folder that was read is closed again
    with suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", "rb") as children:  # noqa: PTH123
        count += sum(open_files(int(child)) for child in children.read().split())
    return count
