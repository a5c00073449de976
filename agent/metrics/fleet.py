"""The figures of a fleet; without [fleet] there are none."""

from collections.abc import Iterator, Mapping

from agent.core.fleet.figures import MACHINE_STATES, FleetFigures
from agent.metrics.text import COUNTER, GAUGE, HISTOGRAM, Family, histogram_lines, sample

_GAUGES = (
    ("lease_seconds_left", "Seconds until this machine's lease ends; 0 after its end."),
    ("database_reachable", "1 while the last renewal reached the fleet's database."),
    ("halted", "1 while no session changes its machine until an operator accepts a loss."),
    ("commands_waiting", "1 while stored commands wait for this machine."),
    ("unwritable", "1 while this machine cannot keep what it must remember, and renews no lease."),
    ("elsewhere", "Other machines that renew their leases in another database."),
    ("apart", "Other machines that do not answer, or would not promise to wait for this one."),
    ("copy_bytes", "Sealed bytes of the newest copies of this machine's sessions."),
)
_COUNTERS = (
    ("renewals", "Renewals of this machine's lease by outcome."),
    ("takeovers", "Takeovers of lost machines that this machine sent, by outcome."),
    ("moves", "Planned moves away from this machine by outcome."),
    ("promises", "Promises that other machines asked for, by outcome."),
)


def fleet_samples(figures: FleetFigures | None) -> Iterator[tuple[Family, str]]:
    if figures is None:
        return
    info = Family("wa_fleet_info", GAUGE, "This machine's name in the fleet; always 1.")
    yield info, sample(info.name, 1, member=figures.machine)
    for name, meaning in _GAUGES:
        yield _gauge(f"wa_fleet_{name}", meaning, float(getattr(figures, name)))
    name = "wa_fleet_copy_age_seconds"
    meaning = "Age of the oldest change of this machine's sessions that no stored copy holds."
    yield _gauge(name, meaning, figures.copy_age_max)
    if figures.certificate_ends_wall is not None:
        name = "wa_fleet_certificate_expires_timestamp_seconds"
        meaning = "When the certificate of this machine's fleet listener ends."
        yield _gauge(name, meaning, figures.certificate_ends_wall)
    machines = {state: figures.machines.get(state, 0) for state in MACHINE_STATES}
    yield _by("machines", GAUGE, "Machines of the fleet by state.", "state", machines)
    sessions = {"owned": figures.owned, "waiting": figures.waiting, "moving": figures.moving}
    meaning = "Sessions: owned by this machine, moving away from it, waiting in the whole fleet."
    yield _by("sessions", GAUGE, meaning, "state", sessions)
    for what, meaning in _COUNTERS:
        counted = getattr(figures.counts, what)
        yield _by(f"{what}_total", COUNTER, meaning, "outcome", counted)
    family = Family("wa_fleet_renewal_seconds", HISTOGRAM, "How long renewals took.")
    histogram = figures.counts.renewal_seconds
    bounds = (f"{bound:g}" for bound in histogram.bounds)
    yield family, histogram_lines(family.name, bounds, histogram.counts, histogram.total)


def _gauge(name: str, meaning: str, value: float) -> tuple[Family, str]:
    return Family(name, GAUGE, meaning), sample(name, value)


def _by(
    what: str, type: str, meaning: str, label: str, values: Mapping[str, int]
) -> tuple[Family, str]:
    name = f"wa_fleet_{what}"
    lines = "".join(sample(name, value, **{label: word}) for word, value in values.items())
    return Family(name, type, meaning), lines
