"""What a session's page says of its outbox: counts, what it waits for, no text and no chat."""

from collections.abc import Callable

from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent
from tests.wings.page.browsing import listening, make_agent, picture, watcher
from tests.wings.page.watcher import Watcher

__all__ = ["listening", "make_agent", "watcher"]

PACED = """
[api]
trust_loopback = true

[messages.pace]
per_minute = 0.5
"""


async def test_a_sessions_page_counts_what_waits_and_what_was_sent(
    listening: Callable[..., RunningAgent], watcher: Watcher, eventually: Eventually
) -> None:
    agent = listening(PACED)
    await agent.start()
    await agent.create("sales", scan_after=0)
    await eventually(lambda: agent.status("sales"), "CONNECTED")
    for number in range(4):
        body = {"to": f"491515550000{number}", "text": "a secret word"}
        await agent.do("POST", "/api/instance/sales/messages", body)

    async def waits() -> str:
        return str((await agent.do("GET", "/api/instance/sales"))["outbox"].get("reason"))

    await eventually(waits, "paced")
    facts = "document.querySelector('#instance .facts').innerText"
    for width, scheme in ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")):
        await watcher.size(width, 1700, phone=width < 800)
        await watcher.colours(scheme)
        await watcher.go(f"http://{agent.listen}/#/instance/sales")
        await watcher.until(f"{facts}.includes('To be sent')")
        await watcher.until(f"{facts}.includes('Last sent')")
        said = await watcher.run(facts)
        assert "To be sent\n3\n" in said
        assert await watcher.run(
            "document.querySelector('#instance').innerText.includes("
            "'What is to be sent waits: [messages.pace] lets one message go')"
        )
        assert "secret" not in said and "49151555" not in said
        assert await watcher.run("document.documentElement.scrollWidth") <= width
        await picture(watcher, f"outbox-{width}-{scheme}")
