"""What is sent by itself: how it went, and what still waits to be sent."""

from collections.abc import Iterator

from agent.core.webhook import Result, WebhookFigures
from agent.metrics.text import COUNTER, GAUGE, Family, sample

DELIVERIES = Family(
    "wa_agent_webhook_deliveries_total", COUNTER, "Tries and events of webhooks, by their result."
)
LENGTH = Family("wa_agent_outbox_length", GAUGE, "Events that wait to be sent.")
OLDEST = Family(
    "wa_agent_outbox_oldest_timestamp_seconds",
    GAUGE,
    "When the oldest event happened that waits to be sent; nothing while none waits.",
)
KIND = "webhook"


def webhook_samples(figures: WebhookFigures) -> Iterator[tuple[Family, str]]:
    yield (
        DELIVERIES,
        "".join(
            sample(DELIVERIES.name, figures.results.get(one.value, 0), result=one.value)
            for one in Result
        ),
    )
    yield LENGTH, sample(LENGTH.name, figures.waiting, kind=KIND)
    if figures.oldest_wall is not None:
        yield OLDEST, sample(OLDEST.name, figures.oldest_wall, kind=KIND)
