"""doctor's check of what is wrong now."""

from collections.abc import Iterator

from agent.cli.doctor.check import Check, Installation
from agent.cli.doctor.findings import Finding, note, ok
from agent.errors import WaError


def checks(_: Installation) -> Iterator[Check]:
    yield Check("troubles", _troubles)


def _troubles(here: Installation) -> Iterator[Finding]:
    try:
        troubles = here.client.get("/api/troubles")["troubles"]
    except WaError:
        return  # the check of the agent tells it
    if troubles:
        names = ", ".join(sorted({trouble["kind"] for trouble in troubles}))
        yield note(f"{len(troubles)} at present: {names}", "wa-agent list --trouble")
    else:
        yield ok("none at present")
