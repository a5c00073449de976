"""The use of whole process trees, from /proc. Blocking reads; one walk serves all trees. A worker
looks at its own tree with this, so it must import little."""

from dataclasses import astuple, dataclass

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
        memory, cpu, count = self.memory_bytes, self.cpu_seconds, max(count, 1)
        return Usage(memory and memory // count, cpu and cpu / count, self.processes)

    def completed(self, other: "Usage") -> "Usage":
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Usage(*(its if mine is None else mine for mine, its in pairs))


UNSEEN = Usage(None, None, None)


def measure_trees(leaders: frozenset[int]) -> dict[int, Usage]:
    return {leader: _of_tree(tree) for leader, tree in find_trees(leaders).items()}


def find_trees(leaders: frozenset[int]) -> dict[int, list[Process]]:
    """Each leader's session, and what descends from it in sessions of its own."""
    processes = {process.pid: process for process in all_processes() if not process.zombie}
    trees: dict[int, list[Process]] = {leader: [] for leader in leaders}
    for process in processes.values():
        at, seen = process, set[int]()  # read one by one, they may name each other
        while at.pid not in seen and not leaders & {at.pid, at.session} and at.parent in processes:
            seen.add(at.pid)
            at = processes[at.parent]
        for leader in (at.pid, at.session):
            if leader in leaders:
                trees[leader].append(process)
                break
    return trees


def _of_tree(tree: list[Process]) -> Usage:
    if not tree:
        return UNSEEN
    return Usage(
        memory_bytes=sum(proportional_bytes(process.pid) for process in tree),
        cpu_seconds=sum(process.cpu_ticks for process in tree) / TICKS,
        processes=len(tree),
    )
