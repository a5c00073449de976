"""Deliveries of webhooks, and the events that wait for them."""

from collections.abc import Iterator

from agent.metrics.text import COUNTER, GAUGE, Family, sample
from agent.wings.webhooks.view import WebhookFigures

DELIVERIES = Family(
    "wa_agent_webhook_deliveries_total", COUNTER, "Deliveries and tries of webhooks by result."
)
LENGTH = Family("wa_agent_outbox_length", GAUGE, "Events queued for webhooks.")
OLDEST = Family(
    "wa_agent_outbox_oldest_timestamp_seconds",
    GAUGE,
    "Time of the oldest queued event; absent without one.",
)
KIND = "webhook"
RESULTS = ("delivered", "failed", "dead", "expired")


def webhook_samples(figures: WebhookFigures) -> Iterator[tuple[Family, str]]:
    yield (
        DELIVERIES,
        "".join(
            sample(DELIVERIES.name, figures.results.get(result, 0), result=result)
            for result in RESULTS
        ),
    )
    yield LENGTH, sample(LENGTH.name, figures.waiting, kind=KIND)
    if figures.oldest_wall is not None:
        yield OLDEST, sample(OLDEST.name, figures.oldest_wall, kind=KIND)
