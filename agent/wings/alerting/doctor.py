"""doctor's checks of what the agent raises: alerts that fire, and the way to the Alertmanager."""

from collections.abc import Iterator

from agent.cli.doctor.check import Check, Installation
from agent.cli.doctor.findings import Finding, note, ok
from agent.errors import WaError


def checks(_: Installation) -> Iterator[Check]:
    yield Check("alerts", _alerts)


def _alerts(here: Installation) -> Iterator[Finding]:
    try:
        board = here.client.get("/api/alerts")
    except WaError:
        return  # the check of the agent tells it
    loud = [
        alert["name"]
        for alert in board["alerts"]
        if alert["state"] == "firing" and alert["severity"] != "none"
    ]
    if loud:
        names = ", ".join(sorted(set(loud)))
        yield note(f"{len(loud)} fire: {names}", "wa-agent alerts")
    else:
        yield ok("none fires")
    if problem := board["alertmanager_problem"]:
        yield note(problem, "correct [alerts] alertmanager, or start it", check="alertmanager")
