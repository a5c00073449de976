"""Which workers use more memory than they may, where no control group holds them."""

from collections.abc import Mapping

from agent.host.machine.proc_table import all_processes, proportional_bytes


def over_limit(limits: Mapping[int, int]) -> dict[int, int]:
    """Main pid → bytes used by its whole session, for those above their limit.

    Resident memory counts shared pages for each process; only when even that is over is
    the dearer proportional figure looked at.
    """
    members: dict[int, list[int]] = {pid: [] for pid in limits}
    resident = dict.fromkeys(limits, 0)
    for process in all_processes():
        if process.session in resident:
            members[process.session].append(process.pid)
            resident[process.session] += process.rss_bytes
    over = {}
    for leader, limit in limits.items():
        if resident[leader] > limit:
            used = sum(proportional_bytes(pid) for pid in members[leader])
            if used > limit:
                over[leader] = used
    return over
