"""The views of sessions are sent to the database while the sessions come and go."""

from types import SimpleNamespace
from typing import Any

from agent.supervise.fleet.publishing import Publishing


async def test_a_session_may_go_while_its_view_is_sent() -> None:
    views: dict[Any, Any] = {"x": object(), "y": object()}
    sent: list[str] = []

    class Database:
        async def publish(self, _member: Any, shown: dict[str, Any]) -> None:
            sent.extend(shown)
            views.pop("y", None)

    member: Any = SimpleNamespace(epoch=0)
    database: Any = Database()
    publishing = Publishing(lambda: views, lambda _view: {}, database, lambda: member)
    assert await publishing.publish() == 2
    assert sent == ["x", "y"]
    assert await publishing.publish() == 0
