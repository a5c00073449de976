"""The use of workers: memory, processor time, processes. Blocking reads of /proc and /sys: call it
in a thread. One walk serves all workers."""

from collections.abc import Mapping
from pathlib import Path

from agent.core.model import InstanceId
from agent.host import units
from agent.host.machine.processes import UNSEEN, Usage, measure_trees


def measure(
    main_pids: Mapping[InstanceId, int], kind: units.Kind = units.INSTANCES
) -> dict[InstanceId, Usage]:
    """By the kernel's account of a unit's control group where it has one, else by /proc."""
    by_id = {id: _of_group(kind.unit(id), pid) for id, pid in main_pids.items()}
    lacking = {id: main_pids[id] for id, usage in by_id.items() if usage.partial}
    if lacking:
        trees = measure_trees(frozenset(lacking.values()))
        for id, pid in lacking.items():
            by_id[id] = by_id[id].completed(trees[pid])
    return by_id


def _of_group(unit: str, main_pid: int) -> Usage:
    group = units.control_group(unit)
    if str(main_pid) not in (pids := _words(group / "cgroup.procs")):
        return UNSEEN  # of another agent, or there is no account
    memory, used = _words(group / "memory.current"), _field(group / "cpu.stat", "usage_usec")
    # The kernel can take back file pages that were not used recently.
    kept = (
        int(memory[0]) - (_field(group / "memory.stat", "inactive_file") or 0) if memory else None
    )
    # 0: it is about to go, and has no number any more.
    return Usage(kept, None if used is None else used / 1e6, len([*filter("0".__ne__, pids)]))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []


def _field(path: Path, name: str) -> int | None:
    words = _words(path)
    return int(words[words.index(name) + 1]) if name in words else None
