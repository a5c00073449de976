"""The use of whole process trees, from /proc. Blocking reads; one walk serves all trees. A worker
looks at its own tree with this, so it must import little."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.host.machine.proc_table import TICKS, Process, all_processes, proportional_bytes


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a worker's whole process tree. None: this machine does not show it."""

    memory_bytes: int | None
    cpu_seconds: float | None
    processes: int | None

    @property
    def partial(self) -> bool:
        return None in (self.memory_bytes, self.cpu_seconds, self.processes)

    def shared_by(self, count: int) -> "Usage":
        """One session's part, where one process holds so many."""
        if count < 2:
            return self
        memory, cpu = self.memory_bytes, self.cpu_seconds
        return Usage(
            None if memory is None else memory // count,
            None if cpu is None else cpu / count,
            self.processes,
        )

    def completed(self, other: "Usage") -> "Usage":
        return Usage(
            other.memory_bytes if self.memory_bytes is None else self.memory_bytes,
            other.cpu_seconds if self.cpu_seconds is None else self.cpu_seconds,
            other.processes if self.processes is None else self.processes,
        )


UNSEEN = Usage(None, None, None)


def measure_trees(leaders: frozenset[int]) -> dict[int, Usage]:
    return {leader: _of_tree(tree) for leader, tree in find_trees(leaders).items()}


def find_trees(leaders: frozenset[int]) -> dict[int, list[Process]]:
    """Each leader's session, and what descends from it in sessions of its own."""
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
