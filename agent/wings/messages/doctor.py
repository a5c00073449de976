"""doctor's check of messages: whether sessions dropped any that were not delivered."""

from collections.abc import Iterator

from agent.cli.doctor.check import Check, Installation
from agent.config.wing_tables import own_row
from agent.errors import WaError
from agent.host.machine.findings import Finding, note, ok
from agent.wings.messages.settings import TABLES


def checks(_: Installation) -> Iterator[Check]:
    yield Check("messages", _examine)


def _examine(here: Installation) -> list[Finding]:
    if not own_row(here.config, TABLES[0]).keep:
        return [ok("[messages] keep = false: nothing that arrives is kept")]
    try:
        sessions = here.client.get("/api/messages")["sessions"]
    except WaError:
        return []  # the check of the agent tells why
    advice = "wa-agent webhooks shows who takes none; [messages] in agent.toml has the bounds"
    losses = [
        note(f"{one['instance']} dropped {one['lost']} messages before they were delivered", advice)
        for one in sessions
        if one["lost"]
    ]
    waiting = sum(one["waiting"] for one in sessions)
    return losses or [ok(f"no session dropped one that was not delivered; {waiting} wait")]
