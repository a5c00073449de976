"""Webhooks over memory: every answer at once, nothing is sent."""

from collections.abc import Sequence
from dataclasses import replace

from agent.errors import NotFound
from agent.wings.webhooks.view import Trial, WebhookView

WALL = 1_800_000_000.0

FAILING = WebhookView(
    "ops",
    "https://ops.example/in",
    "failing",
    "open",
    cursor=41,
    waiting=7,
    oldest_wall=WALL - 600,
    problem="it answered 503",
    next_try_wall=WALL + 60,
    delivered_wall=WALL - 700,
    dead=1,
)


class FakeWebhooks:
    def __init__(self) -> None:
        self.known: dict[str, WebhookView] = {}
        self.answer = Trial(True, 200, "", 0.0125, "ok")
        self.asked: list[str] = []

    def views(self) -> Sequence[WebhookView]:
        return [self.known[name] for name in sorted(self.known)]

    async def test(self, name: str) -> Trial:
        self._find(name)
        self.asked.append(f"test {name}")
        return self.answer

    async def retry(self, name: str) -> None:
        self.known[name] = replace(self._find(name), problem="", state="sending")
        self.asked.append(f"retry {name}")

    def _find(self, name: str) -> WebhookView:
        if name not in self.known:
            raise NotFound(f"cannot find the webhook {name}; declared: {', '.join(self.known)}")
        return self.known[name]
