"""The memory that a session's unit grants, and the drop-in that grants what the session may use."""

import math
import subprocess
from collections.abc import Collection
from contextlib import suppress

from agent.core.words import BEHIND
from agent.host.units import INSTANCES

_SECONDS = 15.0


def granted_memory(ids: Collection[str]) -> dict[str, float]:
    """MemoryMax= of each session's unit, its drop-ins included; inf = no limit. Empty where no
    systemd answers."""
    units = {INSTANCES.unit(id): id for id in ids}
    command = ["systemctl", "show", "--no-pager", "-p", "Id,MemoryMax", "--", *units]
    said = ""
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        ).stdout
    found = {}
    for block in said.split("\n\n") if units else ():
        row = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        most = row.get("MemoryMax", "")
        if row.get("Id") in units and (most.isdigit() or most == "infinity"):
            found[units[row["Id"]]] = float(most)
    return found


def memory_drop_in(id: str, wanted: float) -> tuple[str, str]:
    """The path and the text of the file that root must create for it."""
    most = "infinity" if math.isinf(wanted) else int(wanted * BEHIND)
    path = f"/etc/systemd/system/{INSTANCES.unit(id)}.d/memory.conf"
    return path, f"[Service]\nMemoryMax={most}\n"
