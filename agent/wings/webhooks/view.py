"""How a webhook is shown that gets messages besides events: one view of both."""

from dataclasses import replace
from typing import TYPE_CHECKING

from agent.core.breaker import BreakerState
from agent.wings.webhooks.deliveries import WebhookState, WebhookView

if TYPE_CHECKING:
    from agent.wings.webhooks.messages.carrier import MessageCarrier


def with_messages(view: WebhookView, carrier: "MessageCarrier") -> WebhookView:
    standing, waiting = carrier.gate.standing, carrier.waiting
    circuit = standing.patience.circuit
    failing = bool(standing.patience.failures) or view.state is WebhookState.FAILING
    state = WebhookState.SENDING if waiting else view.state
    return replace(
        view,
        state=WebhookState.FAILING if failing else state,
        circuit=view.circuit if circuit is BreakerState.CLOSED else circuit,
        waiting=view.waiting + waiting,
        messages=waiting,
        oldest_wall=_least(view.oldest_wall, carrier.oldest_wall),
        problem=view.problem or standing.problem,
        next_try_wall=_least(view.next_try_wall, standing.next_try_wall),
        delivered_wall=max(view.delivered_wall or 0.0, standing.delivered_wall or 0.0) or None,
        dead=view.dead + len(carrier.dead()),
    )


def _least(*walls: float | None) -> float | None:
    return min((wall for wall in walls if wall is not None), default=None)
