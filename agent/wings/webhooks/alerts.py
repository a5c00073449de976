"""The alert of a webhook whose target takes no event."""

from agent.core.alerts.alert import Alert, Group, Severity, Unit
from agent.core.alerts.reading import Age
from agent.core.alerts.source import Figures, Series, Vector
from agent.core.alerts.table.terms import MINUTE, above
from agent.wings.webhooks.deliveries import WebhookFigures
from agent.wings.webhooks.metrics import KIND, OLDEST


def _oldest(own: Figures) -> Vector:
    figures: WebhookFigures | None = own.of_wings.get("webhooks")
    if figures is None or figures.oldest_wall is None:
        return {}
    return {(("kind", KIND),): figures.oldest_wall}


ALERTS = (
    Alert(
        "WaWebhookBacklog",
        Group.SYSTEM,
        Severity.WARNING,
        5 * MINUTE,
        above(
            Age(Series(OLDEST.name, f'kind="{KIND}"', of_agent=_oldest, bridged=False)),
            15 * MINUTE,
        ),
        "a webhook has not taken an event for {value}",
        Unit.SECONDS,
    ),
)
