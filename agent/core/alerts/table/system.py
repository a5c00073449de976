"""The machine, its disk, and the agent itself."""

from agent.core.alerts import series as s
from agent.core.alerts.alert import Alert, AlertPolicy, Group, Severity, Unit
from agent.core.alerts.expression import Binary
from agent.core.alerts.reading import Absent, Always, Over, Predict
from agent.core.alerts.table.terms import (
    HOUR,
    MINUTE,
    above,
)


def system(alerts: AlertPolicy) -> tuple[Alert, ...]:
    group = Group.SYSTEM
    memory = Binary(s.HOST_MEMORY_USED, "/", s.HOST_MEMORY)
    disk = Binary(s.DISK_AVAILABLE, "/", s.DISK_SIZE)
    known = Over("present_over_time", s.DISK_AVAILABLE, 15 * MINUTE, offset=45 * MINUTE)
    full = Binary(
        Binary(Predict(s.DISK_AVAILABLE, HOUR, 4 * HOUR), "<", 0.0),
        "and",
        # A few minutes of copying are no trend of an hour.
        known,
    )
    return (
        Alert(
            "WaHostMemoryHigh",
            group,
            Severity.WARNING,
            5 * MINUTE,
            above(memory, alerts.host_memory_high),
            "{value} of the machine's memory is in use",
            Unit.SHARE,
        ),
        Alert(
            "WaHostMemoryCritical",
            group,
            Severity.CRITICAL,
            1 * MINUTE,
            above(memory, alerts.host_memory_critical),
            "{value} of the machine's memory is in use",
            Unit.SHARE,
        ),
        Alert(
            "WaHostCpuHigh",
            group,
            Severity.WARNING,
            10 * MINUTE,
            above(s.HOST_CPU, alerts.host_cpu),
            "the machine's cores are {value} busy",
            Unit.SHARE,
        ),
        Alert(
            "WaDiskSpaceLow",
            group,
            Severity.WARNING,
            5 * MINUTE,
            Binary(disk, "<", alerts.disk_free),
            "{value} of the disk that holds the sessions is free",
            Unit.SHARE,
        ),
        Alert(
            "WaDiskFills",
            group,
            Severity.CRITICAL,
            15 * MINUTE,
            # A nearly empty disk during a copy is not about to be full.
            Binary(Binary(disk, "<", 0.5), "and", full),
            "the disk that holds the sessions will be full within four hours; {value} is free",
            Unit.SHARE,
        ),
        Alert(
            "WaFileDescriptorsHigh",
            group,
            Severity.WARNING,
            5 * MINUTE,
            above(Binary(s.OPEN_FDS, "/", s.MAX_FDS), alerts.file_descriptors),
            "the agent has opened {value} of the files it may open",
            Unit.SHARE,
        ),
        Alert(
            "WaAgentRestarting",
            group,
            Severity.WARNING,
            0.0,
            above(Over("changes", s.STARTED, 30 * MINUTE), float(alerts.agent_starts)),
            "the agent started {value} times in half an hour",
        ),
        Alert(
            "WaAgentDown",
            group,
            Severity.CRITICAL,
            2 * MINUTE,
            Binary(s.UP, "==", 0.0),
            "the agent does not answer; its sessions run on unwatched",
        ),
        Alert(
            "WaAgentAbsent",
            group,
            Severity.CRITICAL,
            5 * MINUTE,
            Absent(s.UP),
            "Prometheus does not know of any agent",
        ),
        Alert(
            "WaDeadMansSwitch",
            group,
            Severity.NONE,
            0.0,
            Always(),
            "always fires: its absence shows that alerts no longer arrive",
        ),
    )
