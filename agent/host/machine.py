"""Processes in /proc: their start, session, parent, environment. A pid alone is used again; pid and
start time together name one process. Of a process and of the machine: memory, processor, files."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import NamedTuple

from agent.core.model import InstanceId
from agent.errors import HostError, cause_of
from agent.host import units

PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    pid: int
    parent: int
    session: int
    cpu_ticks: int
    start_ticks: int
    """Ticks of the clock from the machine's boot to the process' start."""
    rss_bytes: int
    zombie: bool


def read_process(pid: int) -> Process | None:
    """Read a process; None: there is no such process."""
    raw = _read(f"/proc/{pid}/stat", at_once=True)
    # The name is in parentheses and may itself have spaces and parentheses.
    fields = raw[raw.rfind(b")") + 2 :].split(maxsplit=22)
    if len(fields) < 22:
        return None
    parent, session, user, system, start, pages = (int(fields[at]) for at in (1, 3, 11, 12, 19, 21))
    zombie = fields[0] in (b"Z", b"X")
    return Process(pid, parent, session, user + system, start, pages * PAGE, zombie)


def all_processes() -> Iterator[Process]:
    """Yield all visible processes, in one walk."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    except OSError as error:
        raise HostError(f"cannot list the processes: {cause_of(error)}") from error
    for pid in pids:
        if (process := read_process(pid)) is not None:
            yield process


def variables_of(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with; {} = another user's process."""
    with suppress(OSError):
        if Path(f"/proc/{pid}").stat().st_uid != os.geteuid():
            return {}
    text = _read(f"/proc/{pid}/environ").decode(errors="replace")
    return dict(variable.split("=", 1) for variable in text.split("\0") if "=" in variable)


def _read(path: str, *, at_once: bool = False) -> bytes:
    """`at_once`: it is short, and the kernel gives all of it in one go. Without pathlib and io: a
    machine has a thousand of them."""
    with suppress(OSError):  # gone, or another user's
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            raw = part = os.read(descriptor, 1 << 16)
            while part and not at_once:
                raw += (part := os.read(descriptor, 1 << 16))
            return raw
        finally:
            os.close(descriptor)
    return b""


def proportional_bytes(pid: int) -> int:
    """Memory of one process, shared pages divided among their users (PSS); resident memory where
    the kernel does not allow that, 0 when it is gone."""
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    process = read_process(pid)
    return process.rss_bytes if process is not None else 0


# The use of whole process trees, from /proc. Blocking reads; one walk serves all trees. A worker
# looks at its own tree with this, so it must import little.


@dataclass(frozen=True, slots=True)
class Usage:
    """Usage of a worker's whole process tree. None: this machine does not show it."""

    memory_bytes: int | None
    cpu_seconds: float | None
    processes: int | None

    @property
    def partial(self) -> bool:
        return None in (self.memory_bytes, self.cpu_seconds, self.processes)

    def shared_by(self, count: int) -> "Usage":
        """Return one session's part if one process holds `count` of them."""
        count = max(count, 1)
        memory = None if self.memory_bytes is None else self.memory_bytes // count
        cpu = None if self.cpu_seconds is None else self.cpu_seconds / count
        return Usage(memory, cpu, self.processes)

    def completed(self, other: "Usage") -> "Usage":
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Usage(*(other if mine is None else mine for mine, other in pairs))


UNSEEN = Usage(None, None, None)


def measure_trees(leaders: frozenset[int]) -> dict[int, Usage]:
    found = {}
    for leader, tree in find_trees(leaders).items():
        memory = sum(proportional_bytes(process.pid) for process in tree)
        cpu_seconds = sum(process.cpu_ticks for process in tree) / TICKS
        found[leader] = Usage(memory, cpu_seconds, len(tree)) if tree else UNSEEN
    return found


def find_trees(leaders: frozenset[int]) -> dict[int, list[Process]]:
    """Return each leader's session, and what descends from it in sessions of its own."""
    processes = {process.pid: process for process in all_processes() if not process.zombie}
    trees: dict[int, list[Process]] = {leader: [] for leader in leaders}
    for process in processes.values():
        at, seen = process, set[int]()  # read one by one, they may name each other
        while not (at.pid in leaders or at.session in leaders or at.pid in seen):
            seen.add(at.pid)
            at = processes.get(at.parent, at)
        if (leader := at.pid if at.pid in leaders else at.session) in leaders:
            trees[leader].append(process)
    return trees


def measure(main_pids: Mapping[InstanceId, int]) -> dict[InstanceId, Usage]:
    """Measure workers by the kernel's account of their control groups, else by /proc."""
    by_id = {id: _of_group(units.INSTANCES.unit(id), pid) for id, pid in main_pids.items()}
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
    pages = _field(group / "memory.stat", "inactive_file") or 0
    kept = int(memory[0]) - pages if memory else None
    # 0: it is about to go, and has no number any more.
    return Usage(kept, None if used is None else used / 1e6, sum(pid != "0" for pid in pids))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []


def _field(path: Path, name: str) -> int | None:
    words = _words(path)
    return int(words[words.index(name) + 1]) if name in words else None


def machine_memory() -> tuple[int, int]:
    """Return bytes of memory: in all, and what can be had without swapping."""
    words = _words(Path("/proc/meminfo"))
    total, available = (words.index(name) + 1 for name in ("MemTotal:", "MemAvailable:"))
    return int(words[total]) * 1024, int(words[available]) * 1024


class CoreUse:
    """Measures the share of all cores' time that was used between two readings."""

    def __init__(self) -> None:
        self._before = _core_ticks()

    def read(self) -> float:
        before, self._before = self._before, _core_ticks()
        busy, total = (now - then for now, then in zip(self._before, before, strict=True))
        return min(max(busy / total, 0.0), 1.0) if total > 0 else 0.0


def _core_ticks() -> tuple[int, int]:
    """Return ticks: busy, and altogether. Guests' time is in their hosts' already."""
    ticks = [int(word) for word in _words(Path("/proc/stat"))[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)
