"""Webhooks over memory: every answer at once, nothing is sent."""

from typing import Any

from agent.errors import NotFound

FAILING: dict[str, Any] = {
    **{"name": "ops", "url": "https://ops.example/in", "state": "failing", "circuit": "open"},
    **{"cursor": 41, "waiting": 7, "oldest": "2027-01-15T07:50:00.000Z", "dead": 1},
    **{"problem": "it answered 503", "next_try": None, "delivered": None, "messages": None},
}
TAKEN = {"delivered": True, "status": 200, "problem": "", "seconds": 0.0125, "said": "ok"}


class FakeWebhooks:
    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        self.answer: dict[str, Any] = dict(TAKEN)
        self.asked: list[str] = []

    def views(self) -> list[dict[str, Any]]:
        return list(self.known.values())

    async def test(self, name: str) -> dict[str, Any]:
        self._note("test", name)
        return self.answer

    def retry(self, name: str) -> None:
        self._note("retry", name)

    def _note(self, what: str, name: str) -> None:
        if name not in self.known:
            raise NotFound(f"cannot find the webhook {name}; declared: {', '.join(self.known)}")
        self.asked.append(f"{what} {name}")
