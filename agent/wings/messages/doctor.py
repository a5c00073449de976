"""doctor's check of messages: whether sessions dropped any that were not delivered, or have some to
send for long."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from agent.cli.doctor.check import Check, Installation
from agent.cli.doctor.findings import Finding, note, ok
from agent.cli.terminal.show import duration
from agent.config.tables import own_row
from agent.errors import WaError
from agent.wings.messages.settings import TABLES, MessagesSettings

OLD = 900.0
"""Seconds; as the trouble outbox_old has it."""


def checks(_: Installation) -> Iterator[Check]:
    yield Check("messages", _examine)


def _examine(here: Installation) -> list[Finding]:
    settings = own_row(here.config, TABLES[0])
    if not settings.keep:
        return [ok("[messages] keep = false: nothing that arrives is kept")]
    return [*_examine_records(here), *_examine_quota(settings)]


def _examine_quota(settings: MessagesSettings) -> Iterator[Finding]:
    if settings.media_most_megabytes > settings.media_megabytes:
        yield note(
            f"files of messages over {settings.media_megabytes} MiB are not loaded, though"
            f" [messages] media_most_megabytes is {settings.media_most_megabytes}",
            "a file must fit into media_megabytes, too: raise it in agent.toml",
        )


def _examine_records(here: Installation) -> list[Finding]:
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
    found = losses or [ok(f"no session dropped one that was not delivered; {waiting} wait")]
    return [*found, *examine_outbox(sessions, datetime.now(UTC))]


def examine_outbox(sessions: Sequence[Mapping[str, Any]], now: datetime) -> Iterator[Finding]:
    """Those whose oldest message waits to be sent for long."""
    for one in sessions:
        out = one["outbox"]
        age = (now - datetime.fromisoformat(out["oldest"])).total_seconds() if out else 0.0
        if age > OLD:
            why = out["sentence"] or "its session sends"
            yield note(
                f"{one['instance']} has {out['waiting']} messages to send, the oldest for"
                f" {duration(age)}: {why}",
                f"wa-agent why {one['instance']} and wa-agent outbox {one['instance']} say more",
            )
