"""What workers use: memory, processor time, processes.

Blocking reads of /proc and /sys: call it in a thread. One walk serves all workers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.core.model import InstanceId
from agent.host import units
from agent.host.proc_table import TICKS, Process, all_processes, proportional_bytes


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a worker's whole process tree. None: this machine does not let us see it."""

    memory_bytes: int | None
    cpu_seconds: float | None
    processes: int | None

    @property
    def partial(self) -> bool:
        return None in (self.memory_bytes, self.cpu_seconds, self.processes)

    def completed(self, other: "Usage") -> "Usage":
        return Usage(
            other.memory_bytes if self.memory_bytes is None else self.memory_bytes,
            other.cpu_seconds if self.cpu_seconds is None else self.cpu_seconds,
            other.processes if self.processes is None else self.processes,
        )


UNSEEN = Usage(None, None, None)


def measure(
    main_pids: Mapping[InstanceId, int], kind: units.Kind = units.INSTANCES
) -> dict[InstanceId, Usage]:
    """By the kernel's account of a unit's control group where it has one, else by /proc."""
    found = {id: _of_group(kind.unit(id), pid) for id, pid in main_pids.items()}
    lacking = {id: main_pids[id] for id, usage in found.items() if usage.partial}
    if lacking:
        trees = _trees(frozenset(lacking.values()))
        for id, pid in lacking.items():
            found[id] = found[id].completed(_of_tree(trees[pid]))
    return found


def _of_group(unit: str, main_pid: int) -> Usage:
    group = units.control_group(unit)
    try:
        pids = (group / "cgroup.procs").read_text(encoding="ascii").split()
    except OSError:
        return UNSEEN
    if str(main_pid) not in pids:  # of another agent's worker, not of this one
        return UNSEEN
    memory = _number(group / "memory.current")
    if memory is not None:
        # File pages that nobody touched of late are the machine's to take back.
        memory -= _field(group / "memory.stat", "inactive_file") or 0
    used = _field(group / "cpu.stat", "usage_usec")
    return Usage(memory, None if used is None else used / 1e6, len(pids))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _field(path: Path, name: str) -> int | None:
    try:
        for line in path.read_text(encoding="ascii").splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except (OSError, ValueError):
        pass
    return None


def _trees(leaders: frozenset[int]) -> dict[int, list[Process]]:
    """Each leader's session, and whatever descends from it in sessions of its own."""
    processes = {process.pid: process for process in all_processes() if not process.zombie}
    trees: dict[int, list[Process]] = {leader: [] for leader in leaders}
    owner: dict[int, int] = {}
    for pid, process in processes.items():
        leader = _leader_of(pid, processes, leaders, owner)
        if leader:
            trees[leader].append(process)
    return trees


def _leader_of(
    pid: int, processes: Mapping[int, Process], leaders: frozenset[int], owner: dict[int, int]
) -> int:
    """0 when it belongs to none of them."""
    path: list[int] = []
    at, leader = pid, 0
    while at in processes and at not in owner and at not in path:
        process = processes[at]
        if at in leaders:
            leader = at
        elif process.session in leaders:
            leader = process.session
        if leader:
            break
        path.append(at)
        at = process.parent
    leader = leader or owner.get(at, 0)
    owner.update(dict.fromkeys([*path, pid], leader))
    return leader


def _of_tree(tree: Iterable[Process]) -> Usage:
    processes = list(tree)
    if not processes:
        return UNSEEN
    return Usage(
        memory_bytes=sum(proportional_bytes(process.pid) for process in processes),
        cpu_seconds=sum(process.cpu_ticks for process in processes) / TICKS,
        processes=len(processes),
    )
